"""The flows of the benchmark "orchestration": imported when the servers are up."""

from __future__ import annotations

import time
from collections.abc import Callable

from prefect import flow, task
from prefect.cache_policies import INPUTS

from tasks.artifacts import DriftReport, Record
from tasks.objects import open_store
from tasks.stage import stage
from tasks.storage import commit, scratch


class Knob(Record):
    """What tells one call from the next."""

    number: int


def artifact(knob: Knob) -> DriftReport:
    """Names an artifact that is there; the first call puts it there."""
    with scratch() as folder:
        (folder / "nothing").write_text("nothing")
        uri, digest = commit(open_store(), "noop", folder)
    return DriftReport(uri=uri, digest=digest)


@stage("noop", timeout_seconds=60)
def noop(knob: Knob) -> DriftReport:
    return artifact(knob)


@task(
    cache_policy=INPUTS,
    persist_result=True,
    result_serializer="json",
    retries=4,
    timeout_seconds=60,
)
def plain(knob: Knob) -> DriftReport:
    return artifact(knob)


@flow(result_storage="s3-bucket/retune", result_serializer="json", persist_result=True)
def _flow(calls: int, first: int, *, of_stage: bool) -> float:
    call: Callable[[Knob], DriftReport] = noop if of_stage else plain
    started = time.monotonic()
    for number in range(first, first + calls):
        call(Knob(number=number))
    return time.monotonic() - started


def round_of(calls: int, number: int) -> dict[str, float]:
    """Seconds of calls that are made, and then cached, by the stage and by the plain task."""
    first = number * calls
    started = time.monotonic()
    for one in range(first, first + calls):
        artifact(Knob(number=one))
    return {
        "work itself": time.monotonic() - started,
        "stage": _flow(calls, first, of_stage=True),
        "plain": _flow(calls, first, of_stage=False),
        "stage, cached": _flow(calls, first, of_stage=True),
        "plain, cached": _flow(calls, first, of_stage=False),
    }


def many(calls: int) -> float:
    """A run of stages whose results are kept."""
    return _flow(calls, 0, of_stage=True)
