"""Which classes are taken for which: the candidate's answers against the right labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tasks.report.answers import ScoredAnswer
from tasks.report.story import Confusion

NO_CLASS = "none of them"
_MOST_CLASSES = 20  # more do not fit a page: then the pairs that are confused most, alone
_MOST_PAIRS = 10


def confusion(rows: Sequence[ScoredAnswer]) -> Confusion:
    """The candidate's confusion of the classes that the golden answers name."""
    labels = sorted({row.expected.strip() for row in rows})
    known = set(labels)
    counted = Counter(
        (row.expected.strip(), said if (said := row.candidate.strip()) in known else NO_CLASS)
        for row in rows
    )
    columns = [*labels, *([NO_CLASS] if any(said == NO_CLASS for _, said in counted) else [])]
    wrong = [(right, said, n) for (right, said), n in counted.items() if right != said]
    fits = len(labels) <= _MOST_CLASSES
    return Confusion(
        labels=labels,
        columns=columns,
        counts=[[counted[right, said] for said in columns] for right in labels] if fits else [],
        pairs=sorted(wrong, key=lambda pair: (-pair[2], pair[:2]))[:_MOST_PAIRS],
    )
