"""What people are told of a run: one message, one sentence of why, one link."""

from __future__ import annotations

from typing import NamedTuple

from tasks.evidence import Rollback, RunSummary
from tasks.report.config import Occasion
from tasks.trial import Verdict

_HEADS: dict[Occasion, str] = {
    "promoted": "promoted",
    "blocked": "blocked, production stays as it is",
    "inconclusive": "inconclusive, production stays as it is",
    "no_change": "nothing changed",
    "awaiting_approval": "waits for a person's approval",
    "failed": "failed",
    "rolled_back": "rolled back",
}


class Notice(NamedTuple):
    """A message, and what it is about."""

    occasion: Occasion
    subject: str
    body: str


def notice_of(summary: RunSummary, address: str) -> Notice:
    """What to say of a run; ``address`` is that of its page."""
    occasion = _occasion(summary)
    why = summary.sentence or next(iter(summary.reasons), "")
    head = "on trial on live traffic" if summary.decision == "canary" else _HEADS[occasion]
    subject = f"{summary.name}: {head}"
    return Notice(occasion, subject, f"{why}\n{address}".strip())


def notice_of_rollback(done: Rollback, address: str) -> Notice:
    """What to say of a rollback; ``address`` is that of the version."""
    body = f"{done.sentence}\n{address}".strip()
    return Notice("rolled_back", f"{done.model}: {_HEADS['rolled_back']}", body)


def notice_of_trial(verdict: Verdict, address: str) -> Notice:
    """What to say of a trial that ended; ``address`` is that of the challenger."""
    occasions: dict[str, Occasion] = {"promote": "promoted", "roll_back": "rolled_back"}
    occasion = occasions.get(verdict.outcome, "inconclusive")
    subject = f"{verdict.trial.model}, on live traffic: {_HEADS[occasion]}"
    return Notice(occasion, subject, f"{verdict.sentence}\n{address}".strip())


def _occasion(summary: RunSummary) -> Occasion:
    if summary.status != "completed" or summary.decision is None:
        return "failed"
    if summary.approval is not None and summary.approval.is_pending:
        return "awaiting_approval"
    # Who wants to know of promotions wants to know that one is on its way.
    return "promoted" if summary.decision == "canary" else summary.decision
