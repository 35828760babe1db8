"""Choose the few answers that a person reads: some better, some worse, some unchanged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain, islice, zip_longest

from tasks.artifacts import Role
from tasks.report.story import VERDICTS, AnswerRow, Verdict


@dataclass(frozen=True, slots=True)
class ScoredAnswer:
    """One golden row with both answers and what each scored; higher is better."""

    id: str
    prompt: str
    expected: str
    baseline_role: Role
    baseline: str
    candidate: str
    baseline_score: float
    candidate_score: float

    @property
    def verdict(self) -> Verdict:
        if self.candidate_score == self.baseline_score:
            return "unchanged"
        return "better" if self.candidate_score > self.baseline_score else "worse"


def choose(rows: Sequence[ScoredAnswer], limit: int = 10) -> list[AnswerRow]:
    """Up to ``limit`` rows, as evenly over the verdicts as they allow, in the order of VERDICTS.

    Within a verdict the largest change comes first; among equals the hash of the id decides, so
    that the choice neither depends on the rows' order nor favours the first of the file.
    """
    ranked = sorted(rows, key=_rank)
    groups = [[row for row in ranked if row.verdict == verdict] for verdict in VERDICTS]
    in_turn = (row for row in chain.from_iterable(zip_longest(*groups)) if row is not None)
    chosen = sorted(islice(in_turn, limit), key=lambda row: VERDICTS.index(row.verdict))
    return [_shown(row) for row in chosen]


def count_verdicts(rows: Sequence[ScoredAnswer]) -> dict[Verdict, int]:
    """How many of all the rows are better, worse and unchanged."""
    counts = Counter(row.verdict for row in rows)
    return {verdict: counts[verdict] for verdict in VERDICTS}


def _rank(row: ScoredAnswer) -> tuple[float, str]:
    change = abs(row.candidate_score - row.baseline_score)
    return -change, sha256(row.id.encode("utf-8", "surrogatepass")).hexdigest()


def _shown(row: ScoredAnswer) -> AnswerRow:
    return AnswerRow(
        id=row.id,
        prompt=row.prompt,
        expected=row.expected,
        baseline_role=row.baseline_role,
        baseline=row.baseline,
        candidate=row.candidate,
        verdict=row.verdict,
    )
