"""Which rows should decide: spread over label, source and length, and unlike each other.

Strata are label x source x length. Each gets a share by the square root of its size (power
allocation, Bankier 1988), so that rare labels can be told apart at all and frequent ones still
count most. Within a stratum rows are chosen as the medoids of its candidates' embeddings, greedily
(the BUILD step of PAM, Kaufman and Rousseeuw 1990): each next row is the one that brings all
candidates nearest to a chosen one. Unlike farthest-point sampling that does not pick the oddest.
"""

from __future__ import annotations

import hashlib
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from tasks.example import Example, normalise
from tasks.golden.config import ProposalConfig

Length = Literal["short", "medium", "long"]
Vectors = npt.NDArray[np.float32]
logger = logging.getLogger(__name__)

_DECIMALS = 4  # of a gain; embeddings are not the same to the last bit everywhere


class Stratum(NamedTuple):
    """Rows of one label and source and about one length."""

    label: str
    source: str
    length: Length


@dataclass(frozen=True, slots=True)
class Proposed:
    """A row for a person to review, and the stratum that it stands for."""

    example: Example
    stratum: Stratum


def propose(
    examples: Sequence[Example],
    labels: Sequence[str | None],
    config: ProposalConfig,
    embed: Callable[[Sequence[str]], Vectors],
) -> list[Proposed]:
    """At most ``num_rows`` rows, one a group, no two alike, whatever the order of the examples.

    ``labels``: of each example, None where the task has none.
    """
    pool = _strata(examples, labels, config)
    wanted = min(config.num_rows, int(config.max_share * len(examples)))
    if wanted < config.num_rows:
        logger.warning(
            "golden: %d rows wanted, %d may be proposed: not more than %g of all %d rows",
            config.num_rows, wanted, config.max_share, len(examples),
        )  # fmt: skip
    quotas = allocate({stratum: len(rows) for stratum, rows in pool.items()}, wanted)
    candidates = {
        stratum: _by_hash(examples, rows)[: config.candidates_per_row * quotas[stratum]]
        for stratum, rows in pool.items()
        if quotas[stratum]
    }
    flat = [index for rows in candidates.values() for index in rows]
    choice = _Choice(examples, flat, embed([examples[i].prompt for i in flat]), config.cosine)
    # The smallest stratum first: it has the fewest others to turn to when a group is taken.
    for stratum in sorted(candidates, key=lambda s: (len(candidates[s]), s)):
        choice.add(candidates[stratum], quotas[stratum])
    choice.add(flat, wanted - len(choice.chosen))  # what some strata could not give
    if len(choice.chosen) < wanted:
        logger.warning("golden: only %d rows are unlike each other", len(choice.chosen))
    stratum_of = {index: stratum for stratum, rows in candidates.items() for index in rows}
    proposed = [Proposed(examples[i], stratum_of[i]) for i in choice.chosen]
    return sorted(proposed, key=lambda p: (p.stratum, p.example.id))


def allocate(sizes: Mapping[Stratum, int], wanted: int) -> dict[Stratum, int]:
    """``wanted`` rows over the strata by the square root of their sizes, none more than it has.

    Rounded by largest remainder; sums to ``wanted`` where there are so many rows.
    """
    quotas = dict.fromkeys(sizes, 0)
    left = min(wanted, sum(sizes.values()))
    while left:
        roots = {s: sizes[s] ** 0.5 for s in sizes if quotas[s] < sizes[s]}
        shares = {s: left * root / sum(roots.values()) for s, root in roots.items()}
        for stratum, share in shares.items():
            quotas[stratum] += min(int(share), sizes[stratum] - quotas[stratum])
        rest = min(wanted, sum(sizes.values())) - sum(quotas.values())
        if rest == left:  # all shares are below one
            order = sorted(shares, key=lambda s: (-shares[s], s))
            for stratum in order[:left]:
                quotas[stratum] += 1
            return quotas
        left = rest
    return quotas


def _strata(
    examples: Sequence[Example], labels: Sequence[str | None], config: ProposalConfig
) -> dict[Stratum, list[int]]:
    """The rows that may decide, by stratum; of equal prompts one, the least by hash."""
    distinct: dict[str, int] = {}
    allowed = [
        i
        for i, e in enumerate(examples)
        if e.source in config.sources and e.prompt.strip()
        if e.messages[-1].role == "assistant" and (e.answer.strip() or e.messages[-1].tool_calls)
    ]
    for index in _by_hash(examples, allowed):
        distinct.setdefault(normalise(examples[index].prompt), index)
    kept = sorted(distinct.values())
    sizes = [len(examples[i].prompt) for i in kept]
    low, high = np.quantile(sizes, [1 / 3, 2 / 3]) if sizes else (0, 0)
    strata: dict[Stratum, list[int]] = defaultdict(list)
    for index, size in zip(kept, sizes, strict=True):
        length: Length = "short" if size <= low else "medium" if size <= high else "long"
        strata[Stratum(labels[index] or "", examples[index].source, length)].append(index)
    return dict(sorted(strata.items()))


def _by_hash(examples: Sequence[Example], rows: Sequence[int]) -> list[int]:
    """In an order that depends on the content alone, and is as good as random."""

    def key(index: int) -> tuple[str, str, str]:
        example = examples[index]
        digest = hashlib.sha256(f"golden {example.id}".encode()).hexdigest()
        return digest, example.source, example.group

    return sorted(rows, key=key)


@dataclass
class _Choice:
    """The rows chosen so far, and what that forbids."""

    examples: Sequence[Example]
    candidates: Sequence[int]
    vectors: Vectors
    cosine: float
    chosen: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._place = {index: place for place, index in enumerate(self.candidates)}
        groups = [self.examples[i].group for i in self.candidates]
        self._group = np.unique(np.array(groups, dtype=object).astype(str), return_inverse=True)[1]
        self._open = np.ones(len(self.candidates), dtype=bool)

    def add(self, rows: Sequence[int], count: int) -> None:
        """Choose up to ``count`` more of ``rows``, the best medoid first."""
        places = np.array([self._place[i] for i in rows], dtype=np.int64)
        if count <= 0 or not len(places):
            return
        similarity = np.clip(self.vectors[places] @ self.vectors[places].T, 0, 1)
        covered = np.zeros(len(places), dtype=np.float32)
        for index in self.chosen:
            np.maximum(
                covered, self.vectors[places] @ self.vectors[self._place[index]], out=covered
            )
        for _ in range(count):
            gains = np.maximum(similarity - covered[:, None], 0).sum(axis=0).round(_DECIMALS)
            gains[~self._open[places]] = -1
            best = int(gains.argmax())
            if gains[best] < 0:
                return
            self._take(int(places[best]))
            np.maximum(covered, similarity[:, best], out=covered)

    def _take(self, place: int) -> None:
        self.chosen.append(self.candidates[place])
        self._open &= self._group != self._group[place]
        self._open &= self.vectors @ self.vectors[place] < self.cosine
        self._open[place] = False
