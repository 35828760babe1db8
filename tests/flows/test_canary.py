"""Challengers on live traffic, through the real gateway, registry and storage, by the flow."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from mlflow.tracking import MlflowClient
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowFilter, FlowFilterName

from deployments.services.gateway import Gateway, make_app
from flows.canary import canary
from flows.config import WatchConfig
from flows.retrain import retrain
from tasks.objects import open_store
from tasks.registry.trials import begin, settle
from tasks.serve.aliases import CHALLENGER, Registry, models
from tasks.serve.canary.config import CanaryConfig
from tasks.serve.config import GatewayConfig, TrafficConfig
from tasks.serve.request_ids import RequestIds
from tasks.trial import TRIAL, Trial, Verdict
from tests.asgi import serving
from tests.flows.conftest import Tiny
from tests.flows.test_notify import told
from tests.flows.test_resilience import finished, wait_for
from tests.replica import StubReplica, running
from tests.tasks.registry.makers import LINEAGE, adapter, aliases, decision, promote, verdict

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("stack")]

__all__ = ["told"]

CONFIG = CanaryConfig(enabled=True, share=0.5, min_answers=50, look_seconds=1)


class Live:
    """A model with a champion and a challenger on trial, each on a replica of its own."""

    def __init__(self, name: str, folder: Path, exits: ExitStack) -> None:
        self.name = name
        self.folder = folder
        registry = MlflowClient()
        promote(registry, name, f"{name}-one", None)
        terms = CONFIG.terms()
        assert terms is not None
        begin(
            registry,
            name,
            adapter(f"{name}-two"),
            decision(f"{name}-two", f"{name}-one"),
            LINEAGE,
            None,
            terms,
            datetime.now(UTC),
        )
        served = [f"{name}@{name}-{which}"[: len(name) + 13] for which in ("one", "two")]
        self.replicas = [exits.enter_context(running(StubReplica({one}))) for one in served]
        config = GatewayConfig(
            replicas=tuple(replica.url for replica in self.replicas),
            traffic=TrafficConfig(flush_seconds=0.5, sampled=0.0),
        )
        gateway = Gateway(config, Registry(registry, 0.1), folder, RequestIds("secret"))
        self.client = exits.enter_context(serving(make_app(gateway)))

    def ask(self, user: str) -> httpx.Response:
        body = {"model": self.name, "messages": [{"role": "user", "content": "hello"}]}
        return self.client.post("/v1/chat/completions", json={**body, "user": user})

    def tell(self, answer: httpx.Response, *, accepted: bool) -> None:
        said = {"request_id": answer.headers["x-request-id"], "accepted": accepted}
        assert self.client.post("/v1/feedback", json=said).status_code == 201


@pytest.fixture(scope="module", autouse=True)
def _unscheduled(stack: Path) -> Iterator[None]:
    """Nobody else watches what a test has on trial, and nothing else is."""
    registry = MlflowClient()
    # A watch lasts a quarter of an hour where a test before these has left something on trial.
    for model in models(registry):
        if CHALLENGER in model.aliases:
            registry.delete_registered_model_alias(model.name, CHALLENGER)
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name("canary/canary-watch")
        (schedule,) = deployment.schedules
        client.update_deployment_schedule(deployment.id, schedule.id, active=False)
        deadline = time.monotonic() + 300
        while any(run.state_name in ("Pending", "Running") for run in _watches()):
            assert time.monotonic() < deadline
            time.sleep(0.5)
        yield
        client.update_deployment_schedule(deployment.id, schedule.id, active=True)


@pytest.fixture
def live(request: pytest.FixtureRequest, stack: Path, tmp_path: Path) -> Iterator[Live]:
    # Digests are told apart within twelve characters of the served name.
    name = f"c{abs(hash(request.node.nodeid)) % 10**6}"
    with ExitStack() as exits:
        yield Live(name, tmp_path, exits)


def page(stack: Path, name: str) -> Path:
    (found,) = (stack / "runs").glob(f"*/canary/{name}/2/report.html")
    return found


def test_one_that_users_prefer_is_promoted(
    live: Live, stack: Path, told: list[dict[str, Any]]
) -> None:
    versions: Counter[str] = Counter()
    for number in range(240):
        answer = live.ask(f"u{number}")
        version = answer.headers["x-model-version"]
        versions[version] += 1
        live.tell(answer, accepted=version == "2" or number % 3 == 0)
    assert 80 < versions["2"] < 160
    # Each user stays with one version.
    again = {live.ask(f"u{n}").headers["x-model-version"] for n in [5] * 5}
    assert len(again) == 1

    (found,) = canary(WatchConfig(minutes=0.5, notify={"blocks": ["custom-webhook/team"]}))
    assert found.outcome == "promote", found.reasons
    assert found.success.num_challenger == versions["2"]
    assert found.num_requests == 245
    assert aliases(live.name) == {"champion": "2", "previous": "1"}
    assert told[-1]["text"].startswith(f"{live.name}, on live traffic: promoted\n")
    text = page(stack, live.name).read_text()
    assert "Shown to be better." in text
    kept = [k for k in open_store().keys_under("runs/") if f"canary/{live.name}/2/" in k]
    assert {key.rpartition("/")[2] for key in kept} == {"report.html", "canary.json"}
    (record,) = [json.loads(open_store().get_bytes(k)) for k in kept if k.endswith(".json")]
    assert Verdict.model_validate(record) == found
    time.sleep(1)
    assert {live.ask(f"u{n}").headers["x-model-version"] for n in range(20)} == {"2"}


def test_one_that_fails_is_out_within_a_minute_and_nobody_notices(live: Live, stack: Path) -> None:
    live.replicas[1].status = 500
    statuses: Counter[int] = Counter()
    stop = threading.Event()

    def load() -> None:
        number = 0
        while not stop.is_set():
            statuses[live.ask(f"u{number}").status_code] += 1
            number += 1
            time.sleep(0.02)

    thread = threading.Thread(target=load)
    thread.start()
    began = time.monotonic()
    (found,) = canary(WatchConfig(minutes=1))
    seconds = time.monotonic() - began
    stop.set()
    thread.join()
    print(f"out after {seconds:.1f} s and {found.guards[0].num_challenger} requests")
    assert found.outcome == "roll_back"
    assert found.reasons[0].startswith("Errors: the challenger's 100.0% of")
    assert seconds < 60
    assert set(statuses) == {200}
    assert aliases(live.name) == {"champion": "1"}
    version = MlflowClient().get_model_version(live.name, "2")
    assert version.tags["rolled_back_by"] == "canary"


def test_a_watch_that_ends_says_so_and_the_next_goes_on(live: Live, stack: Path) -> None:
    for number in range(40):
        live.tell(live.ask(f"u{number}"), accepted=True)
    time.sleep(1.5)
    (first,) = canary(WatchConfig(minutes=0.02))
    assert first.outcome == "watch"
    assert "was judged" not in page(stack, live.name).read_text()
    (second,) = canary(WatchConfig(minutes=0.02))
    assert second.success == first.success
    assert second.success.num_challenger + second.success.num_champion == 40
    assert aliases(live.name) == {"champion": "1", "challenger": "2"}
    _end(live.name)


def test_a_candidate_of_a_run_goes_on_trial_and_is_watched_at_once(tiny: Tiny) -> None:
    trying = {"enabled": True, "share": 0.2, "look_seconds": 1}
    first = retrain(tiny(canary=trying))
    assert first.decision == "promoted", "there was nothing in production to be tried against"
    as_good = {"rules": [{"metric": "exact_match", "kind": "non_inferiority", "margin": 0.5}]}
    config = tiny(train={"seed": 1}, gate=as_good, canary=trying)
    before = _watches()
    second = retrain(config)
    assert second.decision == "canary", second.reasons
    name = first.name
    assert (second.model["version"], second.model["alias"]) == ("2", "challenger")
    assert aliases(name) == {"champion": "1", "challenger": "2"}
    trial = Trial.model_validate_json(MlflowClient().get_model_version(name, "2").tags[TRIAL])
    assert trial.champion == "1"
    assert CanaryConfig.model_validate(trial.settings) == config.canary
    started = [run for run in _watches() if run.id not in {r.id for r in before}]
    (run,) = [run for run in started if not run.auto_scheduled]
    # The same run again, as after a crash: nothing begins anew.
    assert retrain(config).decision == "canary"
    assert aliases(name) == {"champion": "1", "challenger": "2"}
    _end(name)
    ended = wait_for(run.id, finished, 180)
    assert ended.state is not None
    assert ended.state.name == "Completed", ended.state.message


def _watches() -> list[Any]:
    with get_client(sync_client=True) as client:
        return client.read_flow_runs(flow_filter=FlowFilter(name=FlowFilterName(any_=["canary"])))


def _end(name: str) -> None:
    """As when a trial stays undecided, so that nobody watches it on."""
    now = datetime.now(UTC)
    settle(MlflowClient(), verdict(name, "inconclusive", now), now)
