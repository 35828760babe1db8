"""Which human rows are shown in which request: few at a time, unlike each other, all in turn.

Seeds come from the training split of the cleaned dataset alone, so they are redacted, free of the
golden rows and never held out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from tasks.errors import DataError
from tasks.example import Example
from tasks.synthesize.config import GenerationConfig

_SOURCES = ("human", "annotation")
_FEATURES = 2**18


def seeds_of(examples: Sequence[Example], splits: Sequence[str], limit: int) -> list[Example]:
    """The human rows of the training split with one question and one worded answer, by their hash.

    Raises:
        DataError: there is none.
    """
    found = [
        e
        for e, split in zip(examples, splits, strict=True)
        if split == "train" and e.source in _SOURCES and _is_one_exchange(e)
    ]
    if not found:
        raise DataError(
            f"None of {len(examples)} clean rows can be a seed: expected rows of source human or "
            "annotation in the training split, with one user turn and one answer. Add some to "
            "`ingest.sources`."
        )
    return sorted(found, key=lambda e: hashlib.sha256(e.id.encode()).digest())[:limit]


def draw(seeds: Sequence[Example], config: GenerationConfig) -> list[list[Example]]:
    """The seeds of each request.

    Each request starts from the next row of a shuffled round, so that every seed has its turn; the
    others are drawn like the centres of k-means++ (Arthur and Vassilvitskii 2007), with a
    probability in proportion to the squared distance from what is in the request already.
    """
    rng = np.random.default_rng(config.seed)
    vectors = _vectors([seed.prompt for seed in seeds])
    size = min(config.seeds_per_call, len(seeds))
    order: list[int] = []
    drawn = []
    for _ in range(config.num_calls):
        order = order or [int(i) for i in rng.permutation(len(seeds))]
        chosen = _spread(vectors, order.pop(), size, rng)
        drawn.append([seeds[i] for i in chosen])
    return drawn


def _spread(vectors: Any, first: int, size: int, rng: np.random.Generator) -> list[int]:
    chosen = [first]
    distances = np.full(vectors.shape[0], np.inf)
    while len(chosen) < size:
        cosines = (vectors @ vectors[chosen[-1]].T).toarray().ravel()
        distances = np.minimum(distances, np.maximum(1 - cosines, 0))
        distances[chosen] = 0
        weights = distances**2
        if not weights.sum():  # the rest are copies of what is chosen
            break
        chosen.append(int(rng.choice(len(weights), p=weights / weights.sum())))
    return chosen


def _vectors(texts: Sequence[str]) -> Any:
    """Unit TF-IDF vectors of hashed words, sparse."""
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

    counts = HashingVectorizer(n_features=_FEATURES, alternate_sign=False, norm=None)
    return TfidfTransformer().fit_transform(counts.transform(texts))


def _is_one_exchange(example: Example) -> bool:
    """Rows with tools are none: what is generated has a question and an answer, and no calls."""
    if example.tools is not None or any(m.tool_calls for m in example.messages):
        return False
    roles = [m.role for m in example.messages if m.role != "system"]
    return roles == ["user", "assistant"]
