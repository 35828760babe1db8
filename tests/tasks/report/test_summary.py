"""The run's stages as the summary tells them."""

from __future__ import annotations

import pytest

from tasks.artifacts import StageRun, StageState
from tasks.report.summary import RunInfo, merge_stages, summarise_failure


def call(name: str, state: StageState, subject: str | None = None, **more: object) -> StageRun:
    values = {"seconds": 2.0, "work_seconds": 1.5, "num_in": 10, "num_out": 9, **more}
    return StageRun(name=name, state=state, subject=subject, **values)  # type: ignore[arg-type]


def test_each_stage_stands_once_in_order_with_its_calls() -> None:
    runs = [
        call("ingest", "cached"),
        call("generate", "cached", "base"),
        call("evaluate", "cached", "base"),
        call("generate", "completed", "candidate"),
        call("evaluate", "cached", "candidate"),
        call("gate", "completed"),
    ]
    merged = merge_stages(runs)
    assert [s["name"] for s in merged] == ["ingest", "generate", "evaluate", "gate"]
    generate = merged[1]
    assert (generate["state"], generate["seconds"]) == ("completed", 4.0)
    assert [part["subject"] for part in generate["parts"]] == ["base", "candidate"]
    assert merged[2]["state"] == "cached"
    assert "parts" not in merged[0]


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        (["cached", "cached"], "cached"),
        (["cached", "completed"], "completed"),
        (["completed", "failed"], "failed"),
    ],
)
def test_a_stage_is_as_good_as_its_worst_call(states: list[StageState], expected: str) -> None:
    merged = merge_stages([call("evaluate", state, str(i)) for i, state in enumerate(states)])
    assert merged[0]["state"] == expected


def test_a_failed_run_keeps_what_it_did_and_why_it_stopped() -> None:
    runs = [call("ingest", "completed"), call("clean", "failed", error="DataError: row 3")]
    info = RunInfo(
        flow_run_id="f", flow_run_name="n", name="m", seconds=10.0, stages=runs, hardware="cpu"
    )
    summary = summarise_failure(info, "clean: DataError: row 3")
    assert (summary.status, summary.decision) == ("failed", None)
    assert summary.stages[1]["error"] == "DataError: row 3"
    assert summary.overhead_seconds == 7.0
