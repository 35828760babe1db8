"""When a person is asked, and what follows from the answer."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tasks.evidence import Approval, GateDecision, Outcome
from tasks.gate.approval import answered, form, is_asked, unanswered
from tasks.gate.config import ApprovalConfig

UNTIL = datetime(2026, 3, 4, 5, 6, tzinfo=UTC)


def decision(outcome: Outcome) -> GateDecision:
    return GateDecision(
        uri="u",
        digest="d",
        outcome=outcome,
        sentence="The candidate is not worse.",
        reasons=["accuracy improved."],
        settling=["More rows."],
        differences=[],
        baseline="base",
        baseline_adapter_digest=None,
        adapter_digest="c",
    )


@pytest.mark.parametrize(
    ("mode", "asked"),
    [
        ("always", ["promoted", "inconclusive"]),
        ("on_inconclusive", ["inconclusive"]),
        ("never", []),
    ],
)
def test_who_is_asked_about_what(mode: str, asked: list[str]) -> None:
    config = ApprovalConfig.model_validate({"mode": mode})
    outcomes: list[Outcome] = ["promoted", "blocked", "inconclusive", "no_change"]
    assert [o for o in outcomes if is_asked(decision(o), config)] == asked


@pytest.mark.parametrize(("verdict", "outcome"), [("approve", "promoted"), ("reject", "blocked")])
def test_the_answer_decides_and_stands_first(verdict: str, outcome: str) -> None:
    word = Approval.model_validate(
        {"verdict": verdict, "name": "Ada", "reason": "Seen it.", "date": UNTIL}
    )
    found = answered(decision("inconclusive"), word)
    assert (found.outcome, found.promotes) == (outcome, verdict == "approve")
    assert found.reasons == [
        "accuracy improved.",
        f"{'Approved' if verdict == 'approve' else 'Rejected'} by Ada: Seen it.",
    ]
    assert found.approval == word
    assert "the evidence: inconclusive" in found.sentence


def test_nobody_rejects() -> None:
    found = unanswered(decision("promoted"), UNTIL)
    assert found.outcome == "blocked"
    assert found.reasons[-1] == "Rejected by nobody: no answer was given by 2026-03-04 05:06 UTC"


def test_the_form_shows_the_decision_its_reasons_and_the_deadline() -> None:
    text = form(decision("inconclusive"), UNTIL)
    assert text.startswith("## inconclusive\nThe candidate is not worse.\n\n- accuracy improved.")
    assert "- More rows." in text
    assert text.endswith("No answer by 2026-03-04 05:06 UTC is a rejection.")
