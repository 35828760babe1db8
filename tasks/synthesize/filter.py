"""What a candidate must not be: a copy of another, of a row that is there, or of one held out.

Prompts are compared by the exact Jaccard similarity of their word shingles, as products of sparse
matrices: nothing is sampled, and only what shares a shingle is ever compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.example import Example, normalise
from tasks.synthesize.config import FilterConfig

# Stable reasons. The first two are leaks: what decides must not be trained on.
GOLDEN, HELD_OUT = "golden_overlap", "heldout_overlap"
LEAKS = (GOLDEN, HELD_OUT)
OF_ROW, OF_CANDIDATE = "duplicate_of_row", "duplicate"
_FEATURES = 2**24  # hashed shingles: two of a text's few dozen hardly ever meet
_CHUNK = 2000
_EDGES = ".,;:!?()[]\"'"


@dataclass(frozen=True, slots=True)
class Overlap:
    """A candidate that goes, by its index, the reason and the similarity."""

    index: int
    reason: str
    similarity: float


def overlaps(
    candidates: Sequence[Example],
    rows: Sequence[Example],
    splits: Sequence[str],
    golden: Sequence[Example],
    config: FilterConfig,
) -> list[Overlap]:
    """The candidates too close to golden, held-out or training rows, or to an earlier candidate.

    In this order, so that a leak is counted as a leak.
    """
    if not candidates:
        return []
    held_out = [r for r, split in zip(rows, splits, strict=True) if split != "train"]
    training = [r for r, split in zip(rows, splits, strict=True) if split == "train"]
    own = _shingle_matrix(candidates, config)
    gone: dict[int, Overlap] = {}
    for reason, others, threshold in (
        (GOLDEN, golden, config.leak_jaccard),
        (HELD_OUT, held_out, config.leak_jaccard),
        (OF_ROW, training, config.duplicate_jaccard),
    ):
        for index, similarity in enumerate(_most_similar(own, others, config)):
            if similarity >= threshold:
                gone.setdefault(index, Overlap(index, reason, float(similarity)))
    for overlap in _among_themselves(own, gone.keys(), config.duplicate_jaccard):
        gone[overlap.index] = overlap
    return [gone[index] for index in sorted(gone)]


def shingles(text: str, words: int) -> list[str]:
    """The runs of ``words`` words of the normalised text; a shorter text is one shingle."""
    tokens = [t for t in (word.strip(_EDGES) for word in normalise(text).split()) if t]
    return [" ".join(tokens[i : i + words]) for i in range(max(1, len(tokens) - words + 1))]


def _most_similar(
    own: Any, others: Sequence[Example], config: FilterConfig
) -> npt.NDArray[np.float64]:
    """For each candidate the greatest Jaccard similarity to any of the others."""
    best = np.zeros(own.shape[0])
    for start in range(0, len(others), _CHUNK):
        near = _jaccard(own, _shingle_matrix(others[start : start + _CHUNK], config))
        np.maximum.at(best, near.row, near.data)
    return best


def _among_themselves(own: Any, gone: Any, threshold: float) -> list[Overlap]:
    """Candidates like an earlier one that stays."""
    near = _jaccard(own, own)
    is_pair = (near.data >= threshold) & (near.col < near.row)
    order = np.lexsort((near.col[is_pair], near.row[is_pair]))
    rows, columns, similarities = (
        part[is_pair][order].tolist() for part in (near.row, near.col, near.data)
    )
    dropped, found = set(gone), []
    for row, column, similarity in zip(rows, columns, similarities, strict=True):
        if row not in dropped and column not in dropped:
            dropped.add(row)
            found.append(Overlap(row, OF_CANDIDATE, similarity))
    return found


def _jaccard(a: Any, b: Any) -> Any:
    """The similarities of all pairs that share a shingle, sparse."""
    shared = (a @ b.T).tocoo()
    sizes_a, sizes_b = np.asarray(a.sum(axis=1)).ravel(), np.asarray(b.sum(axis=1)).ravel()
    shared.data = shared.data / (sizes_a[shared.row] + sizes_b[shared.col] - shared.data)
    return shared


def _shingle_matrix(examples: Sequence[Example], config: FilterConfig) -> Any:
    from sklearn.feature_extraction.text import HashingVectorizer

    vectorizer = HashingVectorizer(
        analyzer=lambda text: shingles(text, config.shingle_words),
        n_features=_FEATURES,
        alternate_sign=False,
        binary=True,
        norm=None,
    )
    return vectorizer.transform([example.prompt for example in examples])
