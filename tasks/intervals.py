"""How sure a score is, and a difference between two: confidence intervals over the answers.

Metrics with a least and a greatest value have intervals that were chosen by their measured coverage
(tests/tasks/test_intervals.py), few answers and scores near the ends included, where a bootstrap
covers far too little: what no answer showed, no resample can show. Each answer counts by its
influence on the metric (the infinitesimal jackknife; Jaeckel 1972), which for a mean is its
distance from it, so that whole-corpus metrics are treated alike.

Other metrics, such as a median of seconds, have BCa bootstrap intervals (Efron 1987).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats as scipy_stats

from tasks.errors import DataError
from tasks.evidence import Score
from tasks.scores import Floats, MetricScores, value_of_sums, value_over

_BATCH_CELLS = 2_000_000  # resampled rows held at once: about 16 MB an array
_WEIGHT = 1e-6  # by which a row is made heavier to see its influence
# Answers as far apart as the metric allows that are thought to be beside those seen: of a score,
# and of a difference, in rows. Few enough to vanish among hundreds.
_UNSEEN_OF_SCORE, _UNSEEN_OF_DIFFERENCE = 2.0, 0.1


class Difference(NamedTuple):
    """How much better one model is than another on the same ``n`` rows; positive is better.

    ``standard_error`` is that of the rows seen; 0 where none differs.
    """

    value: float
    ci_low: float
    ci_high: float
    n: int
    standard_error: float


def interval(
    scores: MetricScores, *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Score:
    """The metric's value with its confidence interval over the answers.

    Of a metric between two ends, Wilson's interval (1927) for the number of yes-or-no answers that
    would be as sure as these (Korn and Graubard 1998), with Student's t.

    Raises:
        DataError: there are no answers.
    """
    n, value = len(scores.stats), scores.value
    if scores.range is None:
        return _resampled_interval(scores, confidence, resamples, seed)
    low, high = scores.range
    if n == 1:
        return Score(value=value, ci_low=low, ci_high=high, n=n)
    width = high - low
    at = min(1.0, max(0.0, (value - low) / width))
    most = at * (1 - at)  # the variance of yes-or-no answers with this mean
    variance = float(np.var(_influence(scores) / width, ddof=1))
    variance = (n * variance + _UNSEEN_OF_SCORE * most) / (n + _UNSEEN_OF_SCORE)
    as_sure = n if variance == 0 else max(float(n), n * most / variance)
    t2 = _t(confidence, n) ** 2 / as_sure
    centre = (at + t2 / 2) / (1 + t2)
    half = np.sqrt(t2 * (most + t2 / 4)) / (1 + t2)
    ends = (low + width * end for end in (centre - half, centre + half))
    ci_low, ci_high = (float(np.clip(end, low, high)) for end in ends)
    return Score(value=value, ci_low=min(ci_low, value), ci_high=max(ci_high, value), n=n)


def paired_difference(
    candidate: MetricScores,
    baseline: MetricScores,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Difference:
    """How much better the candidate is on the same rows.

    Positive is better, whatever the metric's direction. Of metrics between two ends, Student's t
    over the rows' influences, as if a tenth of a row more were wholly for one model and as much for
    the other (after Agresti and Min 2005); otherwise BCa over the rows, drawn for both models.

    Raises:
        DataError: the two do not measure the same metric on equally many rows, or there are none.
    """
    _check_comparable(candidate, baseline)
    sign, n = (1 if candidate.higher_is_better else -1), len(candidate.stats)
    difference = sign * (candidate.value - baseline.value) + 0.0  # never -0.0
    if candidate.range is None:
        return _resampled_difference(candidate, baseline, confidence, resamples, seed)
    width = candidate.range[1] - candidate.range[0]
    if n == 1:
        return Difference(difference, -width, width, n, 0.0)
    spread = float(np.sum((_influence(candidate) - _influence(baseline)) ** 2))
    unseen = _UNSEEN_OF_DIFFERENCE * width**2
    size = n + _UNSEEN_OF_DIFFERENCE
    half = _t(confidence, n) * np.sqrt((spread + unseen) / (size - 1) / size)
    return Difference(
        difference,
        max(-width, float(difference - half)),
        min(width, float(difference + half)),
        n,
        float(np.sqrt(spread / (n - 1) / n)),
    )


def share_of(scores: MetricScores, of: MetricScores, *, confidence: float = 0.95) -> Score | None:
    """What share of another model's score this one has, on the same rows, by Fieller's (1954)
    interval over the rows' influences.

    None where the other's score might be 0, of which nothing is a share, or this one is.

    Raises:
        DataError: the two do not measure the same metric on equally many rows.
    """
    _check_comparable(scores, of)
    n = len(scores.stats)
    if n < 2 or of.value == 0 or scores.value == 0:
        return None
    ours, theirs = (_influence(s) / np.sqrt((n - 1) * n) for s in (scores, of))
    t2 = _t(confidence, n) ** 2
    # (ours - share * theirs)^2 = t^2 * variance of that, a quadratic in the share.
    square = of.value**2 - t2 * float(theirs @ theirs)
    middle = scores.value * of.value - t2 * float(ours @ theirs)
    rest = scores.value**2 - t2 * float(ours @ ours)
    root = middle**2 - square * rest
    if square <= 0 or root < 0:
        return None
    ends = sorted((middle + sign * np.sqrt(root)) / square for sign in (-1, 1))
    return Score(value=scores.value / of.value, ci_low=float(ends[0]), ci_high=float(ends[1]), n=n)


def _t(confidence: float, n: int) -> float:
    return float(scipy_stats.t.isf((1 - confidence) / 2, n - 1))


def _influence(scores: MetricScores) -> Floats:
    """n times what the metric gains for each row's weight: shape (n,), with mean 0."""
    stats, n = scores.stats, len(scores.stats)
    heavier = value_of_sums(scores.reducer, stats.sum(axis=0) + _WEIGHT * stats, n + _WEIGHT)
    gains = (heavier - scores.value) / _WEIGHT * (n + _WEIGHT)
    return np.asarray(gains - gains.mean())


def _check_comparable(candidate: MetricScores, baseline: MetricScores) -> None:
    ours, theirs = (
        (s.metric, s.reducer, s.higher_is_better, s.bounds, s.stats.shape)
        for s in (candidate, baseline)
    )
    if ours != theirs:
        raise DataError(f"cannot pair {ours} with {theirs}: same metric and rows expected")


def _resampled_interval(
    scores: MetricScores, confidence: float, resamples: int, seed: int
) -> Score:
    n, value = len(scores.stats), scores.value
    if (scores.stats == scores.stats[0]).all():
        return Score(value=value, ci_low=value, ci_high=value, n=n)

    def statistic(rows: NDArray[Any], axis: int = -1) -> Floats:
        return value_over(scores.reducer, scores.stats, rows)

    low, high, _ = _bootstrap(statistic, n, confidence=confidence, resamples=resamples, seed=seed)
    return Score(value=value, ci_low=min(low, value), ci_high=max(high, value), n=n)


def _resampled_difference(
    candidate: MetricScores, baseline: MetricScores, confidence: float, resamples: int, seed: int
) -> Difference:
    sign, n = (1 if candidate.higher_is_better else -1), len(candidate.stats)
    difference = sign * (candidate.value - baseline.value) + 0.0
    if n == 1 or np.array_equal(candidate.stats, baseline.stats):
        return Difference(difference, difference, difference, n, 0.0)

    def statistic(rows: NDArray[Any], axis: int = -1) -> Floats:
        ours, theirs = (value_over(s.reducer, s.stats, rows) for s in (candidate, baseline))
        return np.asarray(sign * (ours - theirs))

    low, high, standard_error = _bootstrap(
        statistic, n, confidence=confidence, resamples=resamples, seed=seed
    )
    return Difference(difference, min(low, difference), max(high, difference), n, standard_error)


def _bootstrap(
    statistic: Callable[..., Floats], n: int, *, confidence: float, resamples: int, seed: int
) -> tuple[float, float, float]:
    """BCa bounds of ``statistic`` over rows 0..n-1 and its standard error.

    Percentile bounds where BCa is undefined.

    Callers widen the bounds to hold the point estimate, which neither method promises.
    """
    bootstrap = partial(
        scipy_stats.bootstrap,
        (np.arange(n),),
        statistic,
        confidence_level=confidence,
        vectorized=True,
        batch=max(1, _BATCH_CELLS // n),
        rng=np.random.default_rng(seed),
    )
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", scipy_stats.DegenerateDataWarning)
        result = bootstrap(n_resamples=resamples)
        if not np.isfinite(result.confidence_interval).all():
            result = bootstrap(n_resamples=0, bootstrap_result=result, method="percentile")
    bounds = result.confidence_interval
    return float(bounds.low), float(bounds.high), float(result.standard_error)
