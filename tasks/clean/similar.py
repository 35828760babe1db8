"""Word shingles, near-duplicates among examples, and overlap with the golden set."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from datasketch import MinHash, MinHashLSH

from tasks.clean.config import DuplicateConfig, GoldenOverlapConfig
from tasks.example import Example, normalise

_SEED = 1
_RECALL = 0.99  # of pairs exactly at the threshold; the bands are chosen for it
# Who is believed first when two rows say the same.
_RANK = {"human": 0, "annotation": 1, "production": 2, "hub": 3, "synthetic": 4}
_LATEST = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Match:
    """A row that goes, the row it resembles, and how much."""

    index: int
    kept_id: str
    similarity: float


def shingles(text: str, words: int) -> frozenset[str]:
    """The runs of ``words`` words of the normalised text; a shorter text is one shingle."""
    tokens = [t for t in (w.strip(".,;:!?()\"'") for w in normalise(text).split()) if t]
    runs = [" ".join(tokens[i : i + words]) for i in range(max(1, len(tokens) - words + 1))]
    return frozenset(runs)


def jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    """Size of the intersection over size of the union; 1 for two empty sets."""
    union = len(a | b)
    return len(a & b) / union if union else 1.0


def exact_duplicates(examples: Sequence[Example]) -> list[Match]:
    """Rows with the same normalised content as a better-ranked or earlier one."""
    best: dict[str, int] = {}
    for index in _by_rank(examples):
        best.setdefault(examples[index].id, index)
    return [
        Match(index, example.id, 1.0)
        for index, example in enumerate(examples)
        if best[example.id] != index
    ]


def near_duplicates(examples: Sequence[Example], config: DuplicateConfig) -> list[Match]:
    """Rows whose prompt is nearly that of a better-ranked row that stays.

    Candidates come from MinHash-LSH (Broder 1997; banding as in Leskovec et al., Mining of Massive
    Datasets, 3.4) and are verified by the exact Jaccard similarity, so that precision is 1. A row
    is only ever compared with rows that stay: what goes is close to something that is kept.
    """
    sets = [shingles(e.prompt, config.shingle_words) for e in examples]
    minhashes = _minhashes(sets, config.num_permutations)
    bands = choose_bands(config.threshold, config.num_permutations)
    lsh = MinHashLSH(num_perm=config.num_permutations, params=bands)
    matches: list[Match] = []
    for index in _by_rank(examples):
        near = (
            (jaccard(sets[index], sets[k]), examples[k].id) for k in lsh.query(minhashes[index])
        )
        similarity, kept_id = max(near, default=(0.0, ""))
        if similarity >= config.threshold:
            matches.append(Match(index, kept_id, similarity))
        else:
            lsh.insert(index, minhashes[index])
    return matches


def golden_overlaps(
    examples: Sequence[Example],
    golden: Iterable[Example],
    config: GoldenOverlapConfig,
    shingle_words: int,
) -> list[Match]:
    """Rows whose prompt resembles a golden prompt, or holds most of one. Exact: no sampling."""
    sets = [(g.id, shingles(g.prompt, shingle_words)) for g in golden]
    holders: dict[str, list[int]] = defaultdict(list)
    for number, (_, parts) in enumerate(sets):
        for part in parts:
            holders[part].append(number)
    matches = []
    for index, example in enumerate(examples):
        own = shingles(example.prompt, shingle_words)
        shared = Counter(number for part in own for number in holders.get(part, ()))
        near = [
            (similarity, identity)
            for number, count in shared.items()
            for identity, parts in [sets[number]]
            for similarity in [count / (len(own) + len(parts) - count)]
            if similarity >= config.jaccard or count / len(parts) >= config.containment
        ]
        if near:
            similarity, identity = max(near)
            matches.append(Match(index, identity, similarity))
    return matches


def choose_bands(threshold: float, num_permutations: int) -> tuple[int, int]:
    """(bands, rows): the most selective banding that still finds 99 % of pairs at the threshold.

    A pair of similarity s shares a band with probability 1 - (1 - s^rows)^bands. datasketch's own
    choice weighs both errors equally and loses a third of the pairs; here a false candidate only
    costs one exact comparison.
    """
    for rows in range(num_permutations, 1, -1):
        bands = num_permutations // rows
        if 1 - (1 - threshold**rows) ** bands >= _RECALL:
            return bands, rows
    return num_permutations, 1


def _minhashes(sets: Sequence[frozenset[str]], num_permutations: int) -> list[MinHash]:
    made = MinHash.bulk(
        [[part.encode() for part in sorted(parts)] for parts in sets],
        num_perm=num_permutations,
        seed=_SEED,
    )
    return list(made)


def _by_rank(examples: Sequence[Example]) -> list[int]:
    """Best first: by source, then the older row, whatever the order of the files.

    The older one, because it may already stand in a split: next week's copy must not replace it.
    """

    def key(index: int) -> tuple[int, datetime, str, list[str], str, int]:
        example = examples[index]
        rank = _RANK.get(example.source, len(_RANK))
        written = [m.content for m in example.messages]
        created = example.created_at or _LATEST
        return rank, created, example.id, written, example.group, index

    return sorted(range(len(examples)), key=key)
