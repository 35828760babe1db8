"""Runs whose machine is gone are marked; those that live, wait or are only unheard are not."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest

from deployments.services import watch
from deployments.services.watch import Watch
from tasks.errors import ConfigError

SILENCE = timedelta(minutes=15)


def test_the_window_is_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", "60")
    monkeypatch.delenv("RETUNE_SILENT_MINUTES", raising=False)
    assert watch.silence() == SILENCE
    monkeypatch.setenv("RETUNE_SILENT_MINUTES", "2.5")
    assert watch.silence() == timedelta(seconds=150)


@pytest.mark.parametrize("given", ["1", "soon", "-5", "nan"])
def test_one_too_short_for_heartbeats_is_refused(
    monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.setenv("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", "60")
    monkeypatch.setenv("RETUNE_SILENT_MINUTES", given)
    with pytest.raises(ConfigError, match=f"RETUNE_SILENT_MINUTES={given}: expected"):
        watch.silence()


@pytest.mark.integration
@pytest.mark.usefixtures("stack")
class TestOnPrefect:
    """On a real server, with runs that nobody executes."""

    def post(self, path: str, **body: Any) -> Any:
        url = f"{os.environ['PREFECT_API_URL']}{path}"
        answer = httpx.post(url, json=body, trust_env=False, timeout=30)
        return answer.raise_for_status().json() if answer.content else None

    @pytest.fixture
    def runs(self) -> Iterator[dict[str, str]]:
        """One that is silent, one that lives, one that waits for a person, all a while old."""
        flow = self.post("/flows/", name=f"watched-{uuid4().hex[:8]}")["id"]
        states = {
            "silent": {"type": "RUNNING", "name": "Running"},
            "alive": {"type": "RUNNING", "name": "Running"},
            "waiting": {"type": "PAUSED", "name": "Suspended"},
        }
        made = {
            name: self.post("/flow_runs/", flow_id=flow, name=name, state=state)["id"]
            for name, state in states.items()
        }
        yield made
        for run in made.values():
            state = {"type": "CANCELLED", "name": "Cancelled"}
            self.post(f"/flow_runs/{run}/set_state", state=state, force=True)

    def state(self, run: str) -> tuple[str, str]:
        url = f"{os.environ['PREFECT_API_URL']}/flow_runs/{run}"
        found = httpx.get(url, trust_env=False, timeout=30).raise_for_status().json()["state"]
        return found["name"], found["message"] or ""

    def heartbeat(self, run: str, at: datetime) -> None:
        event = {
            "id": str(uuid4()),
            "occurred": at.isoformat(),
            "event": "prefect.flow-run.heartbeat",
            "resource": {"prefect.resource.id": f"prefect.flow-run.{run}"},
        }
        url = f"{os.environ['PREFECT_API_URL']}/events"
        httpx.post(url, json=[event], trust_env=False, timeout=30).raise_for_status()

    def wait_for_event(self, run: str) -> None:
        wanted = {"resource": {"id": [f"prefect.flow-run.{run}"]}}
        wanted["event"] = {"name": ["prefect.flow-run.heartbeat"]}
        wanted["occurred"] = {"since": datetime.now(UTC).isoformat()}
        for _ in range(300):
            if self.post("/events/filter", filter=wanted, limit=1)["events"]:
                return
            time.sleep(0.1)
        pytest.fail("the heartbeat did not arrive")

    def test_the_silent_one_alone_is_marked(self, runs: dict[str, str]) -> None:
        now = datetime.now(UTC)
        looking = Watch(os.environ["PREFECT_API_URL"], SILENCE)
        assert looking.look(now) == [], "what was before it looked is nobody's silence"
        later = now + timedelta(minutes=20)
        self.heartbeat(runs["alive"], later - timedelta(minutes=1))
        self.wait_for_event(runs["alive"])
        assert looking.look(later) == ["silent"]
        assert self.state(runs["silent"]) == (
            "Crashed",
            "The run gave no sign of life for 0:15:00: its machine may be gone.",
        )
        assert self.state(runs["alive"])[0] == "Running"
        assert self.state(runs["waiting"])[0] == "Suspended"
        assert looking.look(later) == []

    def test_a_server_that_was_away_makes_no_run_silent(self, runs: dict[str, str]) -> None:
        looking = Watch(os.environ["PREFECT_API_URL"], SILENCE)
        now = datetime.now(UTC)
        looking.look(now)
        there, looking._client = looking._client, httpx.Client(base_url="http://127.0.0.1:9")
        with pytest.raises(httpx.HTTPError):
            looking.look(now + timedelta(minutes=10))
        looking._client = there
        assert looking.look(now + timedelta(minutes=20)) == []
        assert looking.look(now + timedelta(minutes=34)) == []
        assert "silent" in looking.look(now + timedelta(minutes=36))
