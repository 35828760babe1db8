"""What cleaning did, step by step: nothing disappears, everything is counted and can be shown."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tasks.clean.review import ReviewItem
from tasks.clean.rows import Finding, Rows

logger = logging.getLogger(__name__)
_BINS = 20


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts between edges, and the limit that decided; for a figure of the report."""

    title: str
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    limit: float | None = None

    @classmethod
    def of(
        cls, title: str, values: npt.NDArray[Any], limit: float | None = None
    ) -> Histogram | None:
        """Twenty bins from the least to the greatest value; None of no values."""
        if len(values) == 0:
            return None
        counts, edges = np.histogram(values, bins=_BINS)
        return cls(title, tuple(np.round(edges, 4).tolist()), tuple(counts.tolist()), limit)


@dataclass(frozen=True, slots=True)
class Step:
    """One check: the rows before and after, its rejections by reason, and what its figure shows.

    ``bars`` are counts under their names; ``notes`` are sentences for the reader.
    """

    name: str
    num_in: int
    num_out: int
    num_rejected: Mapping[str, int] = field(default_factory=dict)
    bars: Mapping[str, int] = field(default_factory=dict)
    histogram: Histogram | None = None
    notes: Sequence[str] = ()


@dataclass
class Account:
    """The rows that are left, those that went with their reasons, and the story of the steps."""

    rows: Rows
    steps: list[Step] = field(default_factory=list)
    rejected: list[pa.Table] = field(default_factory=list)
    review: list[ReviewItem] = field(default_factory=list)
    cautions: dict[str, str] = field(default_factory=dict)

    def reject(
        self,
        name: str,
        findings: Sequence[Finding],
        *,
        bars: Mapping[str, int] | None = None,
        histogram: Histogram | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        """Take the rows out that a check spoke against; of several findings the first counts."""
        first = {f.index: f for f in reversed(findings)}
        found = [first[index] for index in sorted(first)]
        num_in = len(self.rows)
        if found:
            indices = np.array([f.index for f in found], dtype=np.int64)
            self.rejected.append(_with_reasons(self.rows.select(indices), name, found))
            self.rows = self.rows.without(indices)
        reasons = dict(Counter(f.reason for f in found).most_common())
        self.steps.append(
            Step(name, num_in, len(self.rows), reasons, bars or {}, histogram, tuple(notes))
        )
        logger.info("clean %s: %d rejected, %d left", name, len(found), len(self.rows))

    @property
    def num_rejected(self) -> dict[str, int]:
        """Rejected rows by reason, in the order of the checks."""
        total: Counter[str] = Counter()
        for step in self.steps:
            total.update(step.num_rejected)
        return dict(total)


def _with_reasons(rows: Rows, check: str, findings: Sequence[Finding]) -> pa.Table:
    table = rows.table
    for name, values in (
        ("check", [check] * len(findings)),
        ("reason", [f.reason for f in findings]),
        ("detail", [f.detail for f in findings]),
    ):
        table = table.append_column(name, pa.array(values, pa.string()))
    return table
