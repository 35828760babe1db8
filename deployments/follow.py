"""Follow a flow run from the outside: its state, its stages and its log, as lines on stdout.

In: the id of a flow run, and the Prefect API of the environment. Out: ``Ended``. Polling rather
than a subscription: it survives a restart of the server, and costs a few milliseconds a second.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    LogFilter,
    LogFilterFlowRunId,
    LogFilterLevel,
    LogFilterTimestamp,
)
from prefect.client.schemas.objects import FlowRun, Log, TaskRun
from prefect.client.schemas.sorting import LogSort, TaskRunSort

from tasks.errors import RetuneError

_INFO = 20
_PAGE = 200
_POLL_SECONDS = 1.0
# Logs and task states reach the API in batches, up to this long after the flow has ended.
_SETTLE_SECONDS = 3.0
_PATIENCE_SECONDS = 120
_LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
Line = tuple[datetime, str]
_WAITING = {
    "AwaitingConcurrencySlot": "waits for its slot: another run of this deployment is on",
    "Suspended": "waits for a person: approve or reject it in the Prefect UI, with Resume",
    "Late": "waits: runs are taken one at a time, and another may be on",
}
_VERBS = {"Running": "started", "AwaitingRetry": "will be tried again"}


class ApiLostError(RetuneError):
    """The Prefect API stopped answering while a run was followed."""


@dataclass(frozen=True)
class Ended:
    """How a flow run ended, and the errors of the stages that failed."""

    completed: bool
    state: str
    errors: list[str]


@dataclass
class _Seen:
    """What was printed already."""

    flow_state: str = ""
    task_states: dict[UUID, str] = field(default_factory=dict)
    logs: set[UUID] = field(default_factory=set)
    last_log: datetime = _LONG_AGO


def follow(flow_run_id: UUID) -> Ended:
    """Print what happens until the run has ended."""
    seen = _Seen()
    with get_client(sync_client=True) as client:
        flow_run = _poll(client, flow_run_id, seen)
        while flow_run.state is None or not flow_run.state.is_final():
            time.sleep(_POLL_SECONDS)
            flow_run = _poll(client, flow_run_id, seen)
        time.sleep(_SETTLE_SECONDS)
        flow_run = _poll(client, flow_run_id, seen)
        failed = [run for run in _task_runs(client, flow_run_id) if _failed(run)]
    state = flow_run.state
    message = f"{state.name}: {state.message}" if state and state.message else flow_run.state_name
    return Ended(
        completed=state is not None and state.is_completed(),
        state=message or "unknown",
        errors=[f"{run.name}: {run.state.message}" for run in failed if run.state],
    )


def _poll(client: SyncPrefectClient, flow_run_id: UUID, seen: _Seen) -> FlowRun:
    """Print the news and return the flow run; bridges a server that is away for a while."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            return _print_news(client, flow_run_id, seen)
        except (httpx.TransportError, httpx.HTTPStatusError) as error:
            if time.monotonic() > deadline:
                raise ApiLostError(
                    f"The Prefect API has not answered for {_PATIENCE_SECONDS} s ({error}). The "
                    "run may go on: see `python -m deployments.stack status`."
                ) from error
            time.sleep(_POLL_SECONDS)


def _print_news(client: SyncPrefectClient, flow_run_id: UUID, seen: _Seen) -> FlowRun:
    # The flow run is read first: whatever it did before its last state is then in the rest.
    flow_run = client.read_flow_run(flow_run_id)
    news = [
        *_stage_news(_task_runs(client, flow_run_id), seen),
        *_log_news(_new_logs(client, flow_run_id, seen), flow_run),
        *_state_news(flow_run, seen),
    ]
    for when, text in sorted(news, key=lambda line: line[0]):
        print(f"{when.astimezone():%H:%M:%S} {text}", flush=True)
    return flow_run


def _task_runs(client: SyncPrefectClient, flow_run_id: UUID) -> list[TaskRun]:
    runs = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id]))
    return client.read_task_runs(flow_run_filter=runs, sort=TaskRunSort.EXPECTED_START_TIME_DESC)


def _new_logs(client: SyncPrefectClient, flow_run_id: UUID, seen: _Seen) -> list[Log]:
    logs = LogFilter(
        flow_run_id=LogFilterFlowRunId(any_=[flow_run_id]),
        level=LogFilterLevel(ge_=_INFO),
        timestamp=LogFilterTimestamp(after_=seen.last_log),
    )
    found: list[Log] = []
    while True:
        page = client.read_logs(logs, _PAGE, len(found), LogSort.TIMESTAMP_ASC)
        found.extend(page)
        if len(page) < _PAGE:
            break
    new = [log for log in found if log.id not in seen.logs]
    seen.logs.update(log.id for log in new)
    seen.last_log = max([seen.last_log, *(log.timestamp for log in new)])
    return new


def _state_news(flow_run: FlowRun, seen: _Seen) -> Iterator[Line]:
    state = flow_run.state
    if state is not None and state.name != seen.flow_state:
        seen.flow_state = state.name or ""
        yield state.timestamp, f"run: {_WAITING.get(seen.flow_state, seen.flow_state)}"


def _stage_news(task_runs: list[TaskRun], seen: _Seen) -> Iterator[Line]:
    for run in task_runs:
        state, name = run.state, run.state_name or ""
        if state is None or name == seen.task_states.get(run.id):
            continue
        if run.id not in seen.task_states and run.start_time and state.is_final():
            yield run.start_time, f"{run.name}: started"
        seen.task_states[run.id] = name
        if state.is_final():
            seconds = run.total_run_time.total_seconds()
            yield state.timestamp, f"{run.name}: {name.lower()} after {seconds:.1f} s"
        elif name in _VERBS:
            yield state.timestamp, f"{run.name}: {_VERBS[name]}"


def _log_news(logs: list[Log], flow_run: FlowRun) -> Iterator[Line]:
    """The stages' own lines, and the flow's from its start on: before, Prefect talks to itself.

    Tracebacks stay in the UI and in the worker's log; the last word on an error comes at the end.
    """
    for log in logs:
        of_flow = log.name == "prefect.flow_runs" and (
            log.level > _INFO
            or (flow_run.start_time is not None and log.timestamp >= flow_run.start_time)
        )
        if of_flow or log.name.startswith("tasks."):
            yield log.timestamp, "  " + log.message.partition("\nTraceback")[0]


def _failed(run: TaskRun) -> bool:
    return run.state is not None and (run.state.is_failed() or run.state.is_crashed())
