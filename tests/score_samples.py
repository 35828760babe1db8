"""Plausible statistics of answers, for the tests of scores and of their intervals."""

from __future__ import annotations

import numpy as np

from tasks.scores import Floats, MetricScores, Reducer

N = 200
REDUCERS: list[Reducer] = [
    *("mean", "proportion", "f1", "precision", "recall", "macro_f1", "bleu", "chrf", "median"),
]


def sample(reducer: Reducer, n: int = N, seed: int = 0) -> Floats:
    """Plausible statistics of n answers."""
    rng = np.random.default_rng(seed)
    if reducer == "proportion":
        return rng.integers(0, 2, (n, 1)).astype(float)
    if reducer in {"f1", "precision", "recall"}:
        return rng.integers(0, 5, (n, 3)).astype(float)
    if reducer == "macro_f1":
        right, answer = rng.integers(0, 7, (2, n, 1)) == np.arange(7)[:, None, None].T
        blocks = [answer & right, answer & ~right, right & ~answer]
        return np.concatenate(blocks, axis=1).astype(float)
    if reducer == "chrf":
        length = rng.integers(10, 40, (n, 1)) - np.arange(6)
        common = np.sort(rng.integers(0, 9, (n, 6)), axis=1)[:, ::-1]
        return np.stack([length, length + 2, common], axis=-1).reshape(n, 18).astype(float)
    if reducer == "bleu":
        total = rng.integers(8, 20, (n, 1)) - np.arange(4)
        correct = np.minimum(total, np.sort(rng.integers(0, 12, (n, 4)), axis=1)[:, ::-1])
        return np.concatenate([total[:, :1], total[:, :1] + 1, correct, total], axis=1).astype(
            float
        )
    return rng.gamma(2.0, size=(n, 1))


def scores(reducer: Reducer, stats: Floats, *, higher_is_better: bool = True) -> MetricScores:
    return MetricScores("metric", reducer, higher_is_better, stats)
