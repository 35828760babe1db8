"""Could chance alone have made the candidate look this much better? One-sided p-values.

Where both models are equally good, it is chance which of the two gave which of a row's two answers:
the p-value is the share of all exchanges within rows that favour the candidate at least as much.
Of right and wrong answers that is McNemar's exact test, which only counts the rows that differ;
otherwise a permutation test, exact where all exchanges can be listed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from tasks.scores import MetricScores, value_over

Test = Literal["mcnemar", "permutation", "bootstrap"]
Claim = TypeVar("Claim")
_BATCH_CELLS = 2_000_000


class Precision(NamedTuple):
    """How sure to be: level of the intervals, chance to show a gain, claims sharing the level."""

    confidence: float
    power: float
    num_claims: int = 1


class PValue(NamedTuple):
    """The chance of a gain at least this large from equally good models, and whose test says so."""

    value: float
    test: Test


def exchange_test(
    candidate: MetricScores, baseline: MetricScores, *, permutations: int, seed: int
) -> PValue:
    """The one-sided test that the candidate is better, of scores on the same rows in one order.

    McNemar (1947) for proportions; otherwise all 2^d exchanges of the d rows that differ, or
    ``permutations`` random ones and the observed, as Phipson and Smyth (2010) count them.
    """
    differing = np.flatnonzero((candidate.stats != baseline.stats).any(axis=1))
    if candidate.reducer == "proportion":
        return PValue(_mcnemar(candidate, baseline), "mcnemar")
    n, sign = len(candidate.stats), 1 if candidate.higher_is_better else -1
    if differing.size < 2:  # one exchange or none: nothing to list
        is_better = sign * (candidate.value - baseline.value) > 0
        return PValue(0.5 if is_better else 1.0, "permutation")
    pooled = np.concatenate([candidate.stats, baseline.stats])
    alike = np.setdiff1d(np.arange(n), differing)

    def advantage(ours: NDArray[Any], theirs: NDArray[Any], axis: int = -1) -> NDArray[Any]:
        values = []
        for rows in (np.moveaxis(ours, axis, -1), np.moveaxis(theirs, axis, -1)):
            same = np.broadcast_to(alike, (*rows.shape[:-1], alike.size))
            values.append(
                value_over(candidate.reducer, pooled, np.concatenate([rows, same], axis=-1))
            )
        return np.asarray(sign * (values[0] - values[1]))

    result = stats.permutation_test(
        (differing, differing + n),
        advantage,
        permutation_type="samples",
        vectorized=True,
        n_resamples=permutations,
        batch=max(1, _BATCH_CELLS // n),
        alternative="greater",
        rng=np.random.default_rng(seed),
    )
    return PValue(float(result.pvalue), "permutation")


def _mcnemar(candidate: MetricScores, baseline: MetricScores) -> float:
    gain = (candidate.stats - baseline.stats)[:, 0] * (1 if candidate.higher_is_better else -1)
    better, worse = int((gain > 0).sum()), int((gain < 0).sum())
    if better + worse == 0:
        return 1.0
    return float(stats.binomtest(better, better + worse, alternative="greater").pvalue)


def beyond_margin(difference: float, standard_error: float, margin: float) -> PValue:
    """The one-sided p-value of a gain above a margin, where exchanging answers says nothing of it.

    Normal, with the bootstrap's standard error.
    """
    if standard_error == 0:
        return PValue(0.0 if difference > margin else 1.0, "bootstrap")
    return PValue(float(stats.norm.sf((difference - margin) / standard_error)), "bootstrap")


def holm(p_values: Mapping[Claim, float]) -> dict[Claim, float]:
    """Holm's (1979) adjusted p-values: each can be held against the level of all claims together.

    The i-th smallest of m is multiplied by m - i + 1, and is at least the one before it.
    """
    adjusted: dict[Claim, float] = {}
    so_far = 0.0
    for rank, (claim, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        so_far = max(so_far, min(1.0, p * (len(p_values) - rank)))
        adjusted[claim] = so_far
    return adjusted


def detectable(standard_error: float, n: int, precision: Precision) -> float | None:
    """The true gain that would be shown with the power asked for: what is less is likely missed.

    (t[1 - alpha / 2m] + t[power]) times the standard error of the paired difference, for m claims
    tested together (Lachin 1981, with Student's t for few rows). None where no answer differs.
    """
    if standard_error <= 0 or n < 2:
        return None
    return _quantiles(n, precision) * standard_error


def rows_needed(gain: float, standard_error: float, n: int, precision: Precision) -> int | None:
    """How many rows would show this distance from the margin with the power asked for.

    None where the distance is not a gain, or no answer differs.
    """
    if gain <= 0 or standard_error <= 0 or n < 2:
        return None
    return math.ceil(n * (_quantiles(n, precision) * standard_error / gain) ** 2)


def _quantiles(n: int, precision: Precision) -> float:
    risked = (1 - precision.confidence) / 2 / precision.num_claims
    return float(stats.t.isf(risked, n - 1) + stats.t.isf(1 - precision.power, n - 1))
