"""The tests behind superiority claims, against enumeration by hand, scipy and the textbook."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from numpy.typing import ArrayLike
from scipy import stats

from tasks.gate.significance import (
    Precision,
    beyond_margin,
    detectable,
    exchange_test,
    holm,
    rows_needed,
)
from tasks.scores import MetricScores, Reducer

PRECISION = Precision(0.95, 0.8)


def scores(
    values: ArrayLike, reducer: Reducer = "mean", *, higher_is_better: bool = True
) -> MetricScores:
    stats_ = np.asarray(values, dtype=float)
    stats_ = stats_.reshape(-1, 1) if stats_.ndim == 1 else stats_
    return MetricScores("m", reducer, higher_is_better, stats_)


def p_of(ours: MetricScores, theirs: MetricScores, permutations: int = 9_999) -> float:
    return exchange_test(ours, theirs, permutations=permutations, seed=0).value


@pytest.mark.parametrize(("better", "worse"), [(0, 0), (5, 0), (6, 0), (9, 1), (1, 9), (40, 20)])
def test_mcnemar_counts_the_rows_that_differ(better: int, worse: int) -> None:
    ours = [1] * better + [0] * worse + [1] * 30
    theirs = [0] * better + [1] * worse + [1] * 30
    expected = float(stats.binom.sf(better - 1, better + worse, 0.5)) if better + worse else 1.0
    found = exchange_test(
        scores(ours, "proportion"), scores(theirs, "proportion"), permutations=999, seed=0
    )
    assert found.test == "mcnemar"
    assert found.value == pytest.approx(expected)


def test_few_rows_are_exchanged_in_every_way() -> None:
    rng = np.random.default_rng(3)
    ours, theirs = rng.normal(0.3, 1, 8), rng.normal(0, 1, 8)
    gains = ours - theirs
    means = [np.mean(gains * signs) for signs in product((1, -1), repeat=8)]
    expected = np.mean(np.asarray(means) >= gains.mean() - 1e-12)
    # Rows that are alike take no part in it, however many they are.
    alike = np.ones(50)
    found = p_of(scores([*ours, *alike]), scores([*theirs, *alike]))
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("better", [4, 7, 12])
def test_the_permutation_test_of_right_and_wrong_is_mcnemars(better: int) -> None:
    ours, theirs = [1] * better + [0] * 2 + [1] * 9, [0] * better + [1] * 2 + [1] * 9
    by_counting = p_of(scores(ours, "proportion"), scores(theirs, "proportion"))
    by_exchanging = p_of(scores(ours), scores(theirs), permutations=2**14)
    assert by_exchanging == pytest.approx(by_counting)


@pytest.mark.parametrize("reducer", ["f1", "macro_f1", "median"])
def test_metrics_over_all_rows_are_exchanged_row_by_row(reducer: Reducer) -> None:
    rng = np.random.default_rng(5)
    width = {"f1": 3, "macro_f1": 6, "median": 1}[reducer]
    theirs = rng.integers(0, 4, (10, width)).astype(float)
    ours = theirs.copy()
    ours[:6] = rng.integers(0, 4, (6, width))
    one, other = scores(ours, reducer), scores(theirs, reducer)
    observed = one.value - other.value
    count = 0
    for swaps in product((False, True), repeat=10):
        swap = np.array(swaps)[:, None]
        a = scores(np.where(swap, theirs, ours), reducer)
        b = scores(np.where(swap, ours, theirs), reducer)
        count += a.value - b.value >= observed - 1e-12
    assert p_of(one, other) == pytest.approx(count / 2**10)


def test_lower_may_be_better() -> None:
    low, high = np.full(12, 1.0), np.full(12, 2.0)
    faster, slower = (scores(x, higher_is_better=False) for x in (low, high))
    assert p_of(faster, slower) == pytest.approx(2**-12)
    assert p_of(slower, faster) == 1.0
    assert p_of(scores(high), scores(low)) == pytest.approx(2**-12)


def test_random_exchanges_never_give_zero_and_are_the_seeds() -> None:
    ours, theirs = scores(np.arange(40) + 1.0), scores(np.arange(40) * 1.0)
    found = exchange_test(ours, theirs, permutations=999, seed=1)
    assert found.value == 1 / 1000
    assert exchange_test(ours, theirs, permutations=999, seed=1) == found
    assert p_of(ours, ours) == 1.0


def test_a_gain_above_a_margin() -> None:
    assert beyond_margin(0.15, 0.05, 0.05).value == pytest.approx(stats.norm.sf(2))
    assert beyond_margin(0.1, 0.0, 0.05).value == 0.0
    assert beyond_margin(0.05, 0.0, 0.05).value == 1.0


def test_holm_as_published() -> None:
    """The worked example of R's p.adjust(c(0.01, 0.02, 0.03, 0.04), "holm") and one with ties."""
    found = holm({"a": 0.01, "b": 0.02, "c": 0.03, "d": 0.04})
    assert found == pytest.approx({"a": 0.04, "b": 0.06, "c": 0.06, "d": 0.06})
    assert holm({"a": 0.9, "b": 0.9}) == {"a": 1.0, "b": 1.0}
    assert holm({"only": 0.02}) == {"only": 0.02}
    assert holm({}) == {}


def test_the_detectable_gain_is_that_of_the_paired_t_test() -> None:
    """Power of the one-sided paired t-test at 2.5 % for that gain, by its noncentral t."""
    n, spread = 100, 0.4
    gain = detectable(spread / np.sqrt(n), n, PRECISION)
    assert gain is not None
    power = stats.nct.sf(stats.t.isf(0.025, n - 1), n - 1, gain / (spread / np.sqrt(n)))
    assert power == pytest.approx(0.8, abs=0.005)
    shared = detectable(spread / np.sqrt(n), n, PRECISION._replace(num_claims=3))
    assert shared is not None
    assert shared > gain


def test_the_rows_needed_would_show_the_gain() -> None:
    n, error, gain = 50, 0.05, 0.04
    needed = rows_needed(gain, error, n, PRECISION)
    assert needed is not None
    assert needed > n
    at_that_size = detectable(error * np.sqrt(n / needed), needed, PRECISION)
    assert at_that_size == pytest.approx(gain, rel=0.03)


@pytest.mark.parametrize(("gain", "error", "n"), [(0.0, 0.1, 50), (0.1, 0.0, 50), (0.1, 0.1, 1)])
def test_nothing_is_said_of_what_has_no_spread(gain: float, error: float, n: int) -> None:
    assert rows_needed(gain, error, n, PRECISION) is None
    if gain:
        assert detectable(error, n, PRECISION) is None
