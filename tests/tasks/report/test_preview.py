"""A dry run in words."""

from __future__ import annotations

from typing import Any

from tasks.evidence import Foreseen, RunSummary
from tasks.report import preview

TRAIN = Foreseen(stage="train", cached=False, seconds=1200, usd=1.5)
CACHED = Foreseen(stage="generate", subject="base", cached=True)
ANSWERS = Foreseen(stage="generate", subject="candidate", cached=False, num_in=200, usd=None)


def run(*parts: dict[str, Any], **fields: Any) -> RunSummary:
    stages = [{"name": "generate", "state": "completed", "seconds": 1.0, "parts": list(parts)}]
    values: dict[str, Any] = {"flow_run_id": "a", "name": "m", "status": "completed"}
    return RunSummary.model_validate(
        {**values, "decision": "promoted", "reasons": [], "stages": stages, **fields}
    )


def part(subject: str, state: str, seconds: float, num_in: int) -> dict[str, Any]:
    timed = {"seconds": seconds + 1, "work_seconds": seconds}
    return {"name": "generate", "subject": subject, "state": state, "num_in": num_in, **timed}


def test_a_call_takes_what_it_last_took_by_its_rows() -> None:
    cached = run(part("candidate", "cached", 0.1, 100))
    past = [cached, run(part("candidate", "completed", 30.0, 100), part("base", "completed", 9, 9))]
    (call,) = preview.timed([ANSWERS], past)
    assert call.seconds == 60.0
    assert preview.timed([ANSWERS], [cached]) == [ANSWERS]
    assert preview.timed([TRAIN, CACHED], past) == [TRAIN, CACHED]


def test_a_stage_that_is_called_once_is_found_too() -> None:
    stages = [{"name": "train", "state": "completed", "seconds": 61.0, "work_seconds": 60.0}]
    call = Foreseen(stage="train", cached=False)
    assert preview.timed([call], [run(stages=stages)])[0].seconds == 60.0


def test_the_sentence_adds_up_and_tells_what_is_not_known() -> None:
    assert preview.sentence([CACHED]).startswith("Everything is kept")
    told = preview.sentence([TRAIN, CACHED, ANSWERS])
    assert "about 20 min 0 s beside generate, which no run of this machine timed" in told
    assert "cost up to $1.50" in told
    assert "1 of 3 steps are kept" in told
    free = TRAIN.model_copy(update={"usd": 0.0})
    assert "cost no money" in preview.sentence([free])


def test_a_hosted_model_takes_what_is_not_known_here() -> None:
    hosted = Foreseen(stage="generate", subject="reference", cached=False, seconds=9, pays="big-1")
    free = TRAIN.model_copy(update={"usd": 0.0})
    assert "and cost what big-1 takes;" in preview.sentence([free, hosted])
    assert "and cost up to $1.50 beside what big-1 takes;" in preview.sentence([TRAIN, hosted])
    kept = hosted.model_copy(update={"cached": True})
    assert "and cost no money;" in preview.sentence([free, kept])
    assert ("generate (reference)", "runs", "9.0 s", "not known") in preview.rows([hosted])


def test_the_page_names_each_step() -> None:
    detailed = TRAIN.model_copy(update={"detail": "157 steps"})
    page = preview.markdown("tickets", "A sentence.", [detailed, CACHED, ANSWERS])
    assert page.startswith("# tickets: dry run\nA sentence.")
    assert "| train | runs | 20 min 0 s | 1.50 |" in page
    assert "| generate (base) | cached |  |  |" in page
    assert "| generate (candidate) | runs | not known |  |" in page
    assert "- train: 157 steps" in page
