"""What the sealed rows say to a decision to promote: its gains must show there too.

The open rows have seen every earlier candidate, and the one that looks best on them is partly the
one that fits them by chance. Pure.
"""

from __future__ import annotations

from tasks.evidence import GateDecision
from tasks.gate import wording
from tasks.gate.decide import Verdict


def on_sealed_rows(verdict: Verdict) -> Verdict:
    """The same verdict, saying of each figure on which rows it was found."""
    found = [d.model_copy(update={"rows": "sealed"}) for d in verdict.differences]
    others = verdict.reasons[len(found) :]
    undecided = [d for d in found if d.verdict == "inconclusive"]
    return Verdict(
        outcome=verdict.outcome,
        sentence=verdict.sentence,
        reasons=[*map(wording.reason, found), *others],
        settling=[*map(wording.settling, undecided), *verdict.settling[len(undecided) :]],
        differences=found,
    )


def held_against(decision: GateDecision, sealed: Verdict, num_sealed: int) -> dict[str, object]:
    """The fields of the decision that change: promoted only where the sealed rows confirm it.

    Reasons stay in the order of the differences, and what is no rule's comes last.
    """
    at = len(decision.differences)
    return {
        "outcome": sealed.outcome,
        "sentence": wording.confirmation(
            decision.sentence, sealed.sentence, num_sealed, holds=sealed.outcome == "promoted"
        ),
        "reasons": [*decision.reasons[:at], *sealed.reasons, *decision.reasons[at:]],
        "settling": [*decision.settling, *sealed.settling],
        "differences": [*decision.differences, *sealed.differences],
    }
