"""What the retrain flow survives: wrong keys, a killed process, two runs at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment

from flows.config import RetrainConfig
from tasks.errors import StorageError
from tasks.evidence import RunSummary
from tasks.objects import open_store
from tasks.storage import MANIFEST
from tests.conftest import free_port
from tests.flows.conftest import Tiny
from tests.flows.test_retrain import champion, states

pytestmark = pytest.mark.integration

DEPLOYMENT = "retrain/retrain-manual"


def test_s3_down_from_the_start_is_named(stack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dead = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", dead)
    with pytest.raises(StorageError, match=rf"{dead}.*Is it running\?"):
        open_store().get_bytes("anything")


RUN = """
import sys
from flows.config import RetrainConfig
from flows.retrain import retrain

retrain(RetrainConfig.model_validate_json(sys.argv[1]))
"""


def test_wrong_credentials_fail_at_once(tiny: Tiny) -> None:
    """In a process of its own: Prefect's S3 client keeps the credentials it was made with."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, tiny().model_dump_json()],
        env={**os.environ, "AWS_SECRET_ACCESS_KEY": "wrong"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode != 0
    assert "SignatureDoesNotMatch. Check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY" in done.stderr
    assert "Retry" not in done.stderr, "a wrong key was retried"


def submit(config: RetrainConfig) -> FlowRun:
    return run_deployment(
        DEPLOYMENT,
        parameters={"config": config.model_dump(mode="json")},
        timeout=0,
        as_subflow=False,
    )


def wait_for(run_id: UUID, holds: Callable[[FlowRun], bool], seconds: float) -> FlowRun:
    deadline = time.monotonic() + seconds
    with get_client(sync_client=True) as client:
        while time.monotonic() < deadline:
            run = client.read_flow_run(run_id)
            if holds(run):
                return run
            time.sleep(0.3)
    pytest.fail(f"{run.name}: still {run.state and run.state.name} after {seconds} s")


def engine_of(run_id: UUID) -> psutil.Process:
    """The process that executes a flow run."""
    for process in psutil.process_iter():
        try:
            if process.environ().get("PREFECT__FLOW_RUN_ID") == str(run_id):
                return process
        except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    pytest.fail(f"no process executes {run_id}")


def task_state(run_id: UUID, name: str) -> str | None:
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    with get_client(sync_client=True) as client:
        tasks = client.read_task_runs(
            flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run_id]))
        )
    return next((t.state.name for t in tasks if t.name == name and t.state), None)


def summary_of(run_id: UUID, stack: Path) -> RunSummary:
    text = (stack / "runs" / str(run_id) / "summary.json").read_text()
    return RunSummary.model_validate_json(text)


def finished(run: FlowRun) -> bool:
    return run.state is not None and run.state.is_final()


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGTERM], ids=lambda s: s.name)
def test_ended_in_training_the_next_run_goes_on_from_the_checkpoint(
    tiny: Tiny, stack: Path, signal_number: signal.Signals
) -> None:
    """SIGTERM is what a spot machine gets: it may save, but the run ends all the same."""
    config = tiny(train={"epochs": 40, "early_stopping_patience": 100})
    store = open_store()
    before = set(store.keys_under("checkpoints/"))

    def is_stored(_: FlowRun) -> bool:
        new = set(store.keys_under("checkpoints/")) - before
        return any(key.endswith(f"/{MANIFEST}") for key in new)

    run = submit(config)
    wait_for(run.id, is_stored, 180)
    assert task_state(run.id, "train") == "Running"
    engine_of(run.id).send_signal(signal_number)
    dead = wait_for(run.id, finished, 60)
    assert dead.state is not None
    assert dead.state.name == "Crashed"
    next_run = submit(config)
    wait_for(next_run.id, finished, 240)
    summary = summary_of(next_run.id, stack)
    assert summary.decision == "promoted"
    found = states(summary)
    assert {name: found[name] for name in ("ingest", "clean", "format")} == dict.fromkeys(
        ("ingest", "clean", "format"), "cached"
    )
    assert found["train"] == "completed"
    notes = " ".join(summary.training["notes"])
    assert "Resumed from the checkpoint of step" in notes
    assert set(store.keys_under("checkpoints/")) == before, "what succeeded needs no checkpoint"
    assert champion(config.name).tags["flow_run_id"] == str(next_run.id)


def test_of_two_runs_at_once_one_waits(tiny: Tiny, stack: Path) -> None:
    config = tiny(train={"epochs": 20})
    first, second = submit(config), submit(config)
    seen: set[tuple[Any, Any]] = set()

    def both_done(_: FlowRun) -> bool:
        with get_client(sync_client=True) as client:
            pair = [client.read_flow_run(run.id) for run in (first, second)]
        seen.add(tuple(run.state.name if run.state else None for run in pair))  # type: ignore[arg-type]
        return all(map(finished, pair))

    wait_for(first.id, both_done, 300)
    assert ("Running", "Running") not in seen
    decisions = sorted(str(summary_of(run.id, stack).decision) for run in (first, second))
    assert decisions == ["no_change", "promoted"]
