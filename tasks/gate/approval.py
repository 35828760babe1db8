"""A person's word on a decision: when it is asked for, and what follows from it.

The evidence still decides what may be asked: nobody can approve what is blocked. Nobody's answer is
a rejection.
"""

from __future__ import annotations

from datetime import UTC, datetime

from tasks.evidence import NOBODY, Approval, GateDecision
from tasks.gate.config import ApprovalConfig


def is_asked(decision: GateDecision, config: ApprovalConfig) -> bool:
    """Whether a person is to be asked about this decision."""
    asked = {"always": {"promoted", "inconclusive"}, "on_inconclusive": {"inconclusive"}}
    return decision.outcome in asked.get(config.mode, set())


def answered(decision: GateDecision, approval: Approval) -> GateDecision:
    """The decision after a person's answer: promoted where approved, else blocked."""
    word = "Approved" if approval.verdict == "approve" else "Rejected"
    said = f"{word} by {approval.name}: {approval.reason}"
    return decision.model_copy(
        update={
            "outcome": "promoted" if approval.verdict == "approve" else "blocked",
            "sentence": f"{said} (the evidence: {decision.outcome}) {decision.sentence}",
            # The page pairs reasons with differences by their order; what is no rule's comes last.
            "reasons": [*decision.reasons, said],
            "settling": [] if approval.verdict == "approve" else decision.settling,
            "approval": approval,
        }
    )


def unanswered(decision: GateDecision, until: datetime) -> GateDecision:
    """The decision as long as nobody answers."""
    reason = f"no answer was given by {until.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    return answered(decision, Approval(verdict="reject", name=NOBODY, reason=reason, date=until))


def form(decision: GateDecision, until: datetime) -> str:
    """What the form shows, as Markdown."""
    lines = [
        f"## {decision.outcome}",
        decision.sentence,
        "",
        *(f"- {reason}" for reason in decision.reasons),
    ]
    if decision.settling:
        lines += ["", "What would settle it:", *(f"- {text}" for text in decision.settling)]
    lines += ["", f"No answer by {until.astimezone(UTC):%Y-%m-%d %H:%M} UTC is a rejection."]
    return "\n".join(lines)
