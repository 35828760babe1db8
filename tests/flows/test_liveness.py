"""A run whose machine is gone is marked, gives its place back, and the next one goes on."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
import pytest
from prefect.automations import Automation
from prefect.client.orchestration import get_client

from deployments import liveness
from flows.config import RetrainConfig
from tasks.objects import open_store
from tests.flows.conftest import Tiny
from tests.flows.test_approval import suspended
from tests.flows.test_resilience import (
    finished,
    submit,
    summary_of,
    task_state,
    wait_for,
)
from tests.flows.test_retrain import states

pytestmark = pytest.mark.integration
HEARTBEAT = 30  # the least that Prefect takes


@pytest.fixture
def watched(stack: Path) -> Iterator[None]:
    """An automation that waits less long than the stack's own, which is there too."""
    name = "test-silent-runs"
    liveness.watch(timedelta(seconds=2 * HEARTBEAT + 15), name)
    yield
    with get_client(sync_client=True) as client:
        for automation in client.read_automations_by_name(name):
            client.delete_automation(automation.id)


@contextlib.contextmanager
def executed_without_a_worker(config: RetrainConfig) -> Iterator[tuple[UUID, psutil.Process]]:
    """A run that nobody looks after, and the process that started it."""
    with get_client(sync_client=True) as client:
        queue = client.read_work_queue_by_name("retrain", work_pool_name="cpu")
        client.update_work_queue(queue.id, is_paused=True)  # the worker's hands off it
        run = submit(config)
    process = psutil.Popen(
        [sys.executable, "-m", "prefect", "flow-run", "execute", str(run.id)],
        env={**os.environ, "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT)},
    )
    try:
        wait_for(run.id, lambda r: r.state_name == "Running", 240)
        with get_client(sync_client=True) as client:
            client.update_work_queue(queue.id, is_paused=False)
        yield run.id, process
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            lose(process)


def lose(process: psutil.Process) -> None:
    """End a process and all that it started as their machine's end would: nobody says anything."""
    process.suspend()  # or it would see its child die, and tell
    for one in [*process.children(recursive=True), process]:
        one.kill()
    process.wait()


def test_a_run_that_fell_silent_is_marked_and_one_that_waits_is_not(
    tiny: Tiny, stack: Path, watched: None
) -> None:
    waiting = suspended(tiny(gate={"approval": {"mode": "always"}}))
    config = tiny(train={"epochs": 40, "early_stopping_patience": 100})
    store, before = open_store(), set(open_store().keys_under("checkpoints/"))
    with executed_without_a_worker(config) as (run_id, process):
        wait_for(run_id, lambda _: set(store.keys_under("checkpoints/")) > before, 240)
        assert task_state(run_id, "train") == "Running"
        lose(process)
        dead: Any = wait_for(run_id, finished, 240)
    assert dead.state.name == "Crashed"
    assert dead.state.message.startswith("The run gave no sign of life for 0:01:15")
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(waiting.id).state
    assert state is not None
    assert state.name == "Suspended", "a run that waits for a person has no process"

    next_run = submit(config)  # its place in the queue is free again
    wait_for(next_run.id, finished, 240)
    found = states(summary_of(next_run.id, stack))
    assert (found["format"], found["train"]) == ("cached", "completed")


def test_the_stack_watches_and_a_second_bootstrap_makes_no_second_automation(stack: Path) -> None:
    name = "crash-silent-runs"
    made = Automation.read(name=name)
    assert made.trigger.within == liveness.silence() == timedelta(minutes=15)
    made.disable()
    liveness.watch(timedelta(minutes=15))
    with get_client(sync_client=True) as client:
        assert len(client.read_automations_by_name(name)) == 1
    again = Automation.read(name=name)
    assert (again.id, again.enabled) == (made.id, False), "a person's choice was overruled"
    again.enable()
