"""Runs whose machine is gone are marked; those that live, wait or are only unheard are not."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.client.orchestration import get_client

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


def post(path: str, **body: Any) -> Any:
    """By Prefect's own client, which is patient with a busy server."""
    with get_client(sync_client=True) as client:
        answer = client._client.post(path, json=body.get("events", body))
        return answer.raise_for_status().json() if answer.content else None


@pytest.fixture
def runs(stack: Path) -> Iterator[dict[str, str]]:
    """One that is silent, one that lives, one that waits for a person; nobody executes them."""
    flow = post("/flows/", name=f"watched-{uuid4().hex[:8]}")["id"]
    states = {
        "silent": {"type": "RUNNING", "name": "Running"},
        "alive": {"type": "RUNNING", "name": "Running"},
        "waiting": {"type": "PAUSED", "name": "Suspended"},
    }
    made = {
        name: post("/flow_runs/", flow_id=flow, name=name, state=state)["id"]
        for name, state in states.items()
    }
    yield made
    for run in made.values():
        state = {"type": "CANCELLED", "name": "Cancelled"}
        post(f"/flow_runs/{run}/set_state", state=state, force=True)


def state(run: str) -> tuple[str | None, str | None]:
    with get_client(sync_client=True) as client:
        found = client.read_flow_run(UUID(run)).state
    return (found.name, found.message) if found is not None else (None, None)


def heartbeat(run: str, at: datetime) -> None:
    """As its engine sends it; returns when the server tells of it."""
    resource = f"prefect.flow-run.{run}"
    event = {
        "id": str(uuid4()),
        "occurred": at.isoformat(),
        "event": "prefect.flow-run.heartbeat",
        "resource": {"prefect.resource.id": resource},
    }
    post("/events", events=[event])
    wanted = {
        "resource": {"id": [resource]},
        "event": {"name": ["prefect.flow-run.heartbeat"]},
        "occurred": {
            "since": (at - minutes(1)).isoformat(),
            "until": (at + minutes(1)).isoformat(),
        },
    }
    deadline = time.monotonic() + 60
    while not post("/events/filter", filter=wanted, limit=1)["events"]:
        assert time.monotonic() < deadline, "the heartbeat did not arrive"
        time.sleep(0.2)


def minutes(number: float) -> timedelta:
    return timedelta(minutes=number)


@pytest.mark.integration
def test_the_silent_one_alone_is_marked(runs: dict[str, str]) -> None:
    looking, now = Watch(os.environ["PREFECT_API_URL"], SILENCE), datetime.now(UTC)
    heartbeat(runs["alive"], now + minutes(15))
    for passed in range(0, 15, 4):
        assert looking.look(now + minutes(passed)) == [], "what was before is nobody's silence"
    assert looking.look(now + minutes(16)) == ["silent"]
    told = "The run gave no sign of life for 0:15:00: its machine may be gone."
    assert state(runs["silent"]) == ("Crashed", told)
    assert state(runs["alive"])[0] == "Running"
    assert state(runs["waiting"])[0] == "Suspended", "who waits for a person has no process"
    assert looking.look(now + minutes(17)) == []


@pytest.mark.integration
def test_a_server_that_was_away_makes_no_run_silent(runs: dict[str, str]) -> None:
    looking, now = Watch(os.environ["PREFECT_API_URL"], SILENCE), datetime.now(UTC)
    for passed in (0, 4, 8, 28, 32, 36, 40):  # away for 20 minutes
        assert looking.look(now + minutes(passed)) == []
    assert sorted(looking.look(now + minutes(44))) == ["alive", "silent"]
