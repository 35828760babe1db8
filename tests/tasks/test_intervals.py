"""Confidence intervals: against formulas and scipy, and how often they hold the truth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats as scipy_stats

from tasks.errors import DataError
from tasks.intervals import interval, paired_difference, share_of
from tasks.scores import Floats, MetricScores, Reducer, reduce
from tests.score_samples import REDUCERS, N, sample, scores


@pytest.mark.parametrize("reducer", REDUCERS)
def test_interval_holds_its_value_and_is_deterministic(reducer: Reducer) -> None:
    s = scores(reducer, sample(reducer))

    score = interval(s, seed=3)

    assert score.ci_low < score.value < score.ci_high
    assert score.n == N
    assert score == interval(s, seed=3)


def test_yes_or_no_gets_wilsons_interval_with_students_t() -> None:
    score = interval(scores("proportion", np.array([[1.0]] * 9 + [[0.0]])))

    # Wilson's formula by hand, n = 10, p = 0.9, t = 2.2622.
    assert (score.ci_low, score.ci_high) == pytest.approx((0.54368, 0.98550), abs=1e-4)
    many = interval(scores("proportion", np.array([[1.0]] * 9000 + [[0.0]] * 1000)))
    wilson = scipy_stats.binomtest(9000, 10_000).proportion_ci(method="wilson")
    assert (many.ci_low, many.ci_high) == pytest.approx((wilson.low, wilson.high), abs=1e-5)


def test_intervals_of_a_mean_agree_with_scipy_and_the_t_interval() -> None:
    values = np.random.default_rng(0).beta(2, 3, N)
    t = scipy_stats.t.interval(0.95, N - 1, values.mean(), scipy_stats.sem(values))
    direct = scipy_stats.bootstrap((values,), np.mean, rng=1).confidence_interval

    for bounds in (None, (0, 1)):
        score = interval(MetricScores("m", "mean", True, values[:, None], bounds=bounds))
        assert (score.ci_low, score.ci_high) == pytest.approx(t, abs=0.004)
        assert (score.ci_low, score.ci_high) == pytest.approx(tuple(direct), abs=0.004)


@pytest.mark.parametrize("reducer", ["f1", "macro_f1", "bleu"])
def test_intervals_of_whole_corpus_metrics_agree_with_the_bootstrap(reducer: Reducer) -> None:
    """Away from the ends and with many answers, where the bootstrap is right."""
    ours, theirs = (sample(reducer, n=600, seed=seed) for seed in (1, 2))
    one, other = scores(reducer, ours), scores(reducer, theirs)

    def bounds(statistic: Any) -> tuple[float, float]:
        found = scipy_stats.bootstrap(
            (np.arange(600),), statistic, n_resamples=2000, method="BCa", rng=1
        ).confidence_interval
        return float(found.low), float(found.high)

    score = interval(one)
    width = score.ci_high - score.ci_low
    expected = bounds(lambda rows: float(reduce(reducer, ours[rows])))
    assert (score.ci_low, score.ci_high) == pytest.approx(expected, abs=0.12 * width)
    found = paired_difference(one, other)
    width = found.ci_high - found.ci_low
    expected = bounds(
        lambda rows: float(reduce(reducer, ours[rows]) - reduce(reducer, theirs[rows]))
    )
    assert (found.ci_low, found.ci_high) == pytest.approx(expected, abs=0.12 * width)


@pytest.mark.parametrize("reducer", ["mean", "median"])
@pytest.mark.parametrize("n", [1, 40])
def test_equal_rows_of_a_metric_without_ends_give_a_point(reducer: Reducer, n: int) -> None:
    score = interval(scores(reducer, np.repeat(sample(reducer)[:1], n, axis=0)))

    assert score.ci_low == score.value == score.ci_high


def test_all_right_is_not_certainly_right() -> None:
    """The rule of three: none wrong among n leaves about 3 / n, and Wilson a little more."""
    for stats, reducer in ((np.ones((200, 1)), "proportion"), (np.eye(3)[[0] * 200], "f1")):
        score = interval(scores(reducer, stats))
        assert score.value == score.ci_high == 1
        assert 1 - 4.1 / 200 < score.ci_low < 1 - 3 / 200
    alone = interval(scores("proportion", np.ones((1, 1))))
    assert (alone.ci_low, alone.ci_high) == (0, 1)
    assert paired_difference(
        scores("proportion", np.ones((1, 1))), scores("proportion", np.zeros((1, 1)))
    )[:4] == (1, -1, 1, 1)


def test_one_odd_row_falls_back_from_bca_without_nan() -> None:
    stats = np.zeros((50, 1))
    stats[0] = 1

    score = interval(scores("median", stats))

    assert (score.value, score.ci_low, score.ci_high) == (0, 0, 0)


@pytest.mark.parametrize("reducer", REDUCERS)
def test_no_answers_have_no_value(reducer: Reducer) -> None:
    empty = scores(reducer, sample(reducer)[:0])

    with pytest.raises(DataError, match="0 answers"):
        interval(empty)
    with pytest.raises(DataError, match="0 answers"):
        paired_difference(empty, empty)


@pytest.mark.parametrize("reducer", REDUCERS)
def test_equal_models_differ_by_next_to_nothing(reducer: Reducer) -> None:
    s = scores(reducer, sample(reducer), higher_is_better=False)
    found = paired_difference(s, s)
    assert (found.value, found.n, found.standard_error) == (0.0, N, 0.0)
    assert -0.004 < found.ci_low == -found.ci_high <= 0


def test_lower_latency_is_a_positive_difference() -> None:
    slow = sample("median") + 300
    fast = slow - 50

    difference, low, high, n, _ = paired_difference(
        scores("median", fast, higher_is_better=False),
        scores("median", slow, higher_is_better=False),
    )

    assert (difference, low, high) == pytest.approx((50, 50, 50))
    assert n == N


def test_pairing_is_sharper_than_two_intervals() -> None:
    base = sample("mean")
    better = base + np.random.default_rng(9).normal(0.05, 0.1, base.shape)

    _, low, high, _, _ = paired_difference(scores("mean", better), scores("mean", base))

    alone = interval(scores("mean", base))
    assert low > 0
    assert high - low < (alone.ci_high - alone.ci_low) / 4


def test_only_like_is_paired_with_like() -> None:
    ours = scores("mean", np.ones((3, 1)))
    others = [
        scores("mean", np.ones((4, 1))),
        scores("proportion", np.ones((3, 1))),
        scores("mean", np.ones((3, 1)), higher_is_better=False),
        MetricScores("other", "mean", True, np.ones((3, 1))),
    ]
    for theirs in others:
        with pytest.raises(DataError, match="same metric and rows"):
            paired_difference(ours, theirs)


_pairs = hnp.arrays(
    np.float64, st.tuples(st.integers(1, 30), st.just(2)), elements=st.integers(0, 5)
)


@settings(max_examples=60, deadline=None)
@given(pairs=_pairs, reducer=st.sampled_from(["mean", "median"]), seed=st.integers(0, 5))
def test_difference_is_antisymmetric_and_inside_its_interval(
    pairs: Floats, reducer: Reducer, seed: int
) -> None:
    a, b = (scores(reducer, pairs[:, [column]]) for column in (0, 1))

    difference, low, high, _, _ = paired_difference(a, b, resamples=200, seed=seed)
    mirrored, mirrored_low, mirrored_high, _, _ = paired_difference(b, a, resamples=200, seed=seed)

    assert difference == -mirrored
    assert low <= difference <= high
    assert mirrored_low <= mirrored <= mirrored_high
    assert np.isfinite([low, high]).all()


@settings(max_examples=30, deadline=None)
@given(
    stats=hnp.arrays(
        np.float64, st.tuples(st.integers(2, 20), st.just(6)), elements=st.integers(0, 4)
    ),
    reducer=st.sampled_from(["f1", "macro_f1"]),
)
def test_intervals_stay_in_range_whatever_the_counts(stats: Floats, reducer: Reducer) -> None:
    score = interval(scores(reducer, stats), resamples=200)

    assert 0 <= score.ci_low <= score.value <= score.ci_high <= 1


def test_resampling_is_deterministic_by_seed() -> None:
    a, b = (scores("median", sample("median", seed=s)) for s in (1, 2))

    assert paired_difference(a, b, seed=4) == paired_difference(a, b, seed=4)
    assert paired_difference(a, b, seed=4) != paired_difference(a, b, seed=5)


# ---------------------------------------------------------------------------------- how often right

Draw = Callable[[np.random.Generator, int], Floats]
REPETITIONS = 2000
# Three standard errors of a share of that many.
ERROR = 3 * np.sqrt(0.05 * 0.95 / REPETITIONS)
# In which share of cases the truth is to be held, by the number of answers.
WANTED = {50: (0.91, 1.0), 200: (0.93, 0.97), 500: (0.93, 0.97)}


def right(share: float) -> Draw:
    return lambda rng, n: (rng.random((n, 1)) < share).astype(float)


def graded(mean: float, strength: float) -> Draw:
    """Between 0 and 1, skewed towards the nearer end."""
    return lambda rng, n: rng.beta(mean * strength, (1 - mean) * strength, (n, 1))


def mostly_whole(share: float) -> Draw:
    """1 but for a share that is anything between 0 and 1."""
    return lambda rng, n: np.where(rng.random((n, 1)) < share, 1.0, rng.random((n, 1)))


def fields(chance: float) -> Draw:
    """True and false pairs of JSON objects of 1 to 6 fields."""

    def draw(rng: np.random.Generator, n: int) -> Floats:
        size = rng.integers(1, 7, n)
        found = rng.binomial(size, chance)
        return np.stack([found, size - found, size - found], axis=1).astype(float)

    return draw


SCORES: dict[str, tuple[Reducer, Draw, float]] = {
    **{f"right {p}": ("proportion", right(p), p) for p in (0.02, 0.05, 0.3, 0.9, 0.98)},
    "evenly graded": ("mean", graded(0.5, 2), 0.5),
    "graded high": ("mean", graded(0.9, 2), 0.9),
    "graded near 1": ("mean", graded(0.97, 2), 0.97),
    "graded near 0": ("mean", graded(0.05, 5), 0.05),
    "mostly whole": ("mean", mostly_whole(0.95), 0.975),
    "fields": ("f1", fields(0.7), 0.7),
    "fields near 1": ("f1", fields(0.97), 0.97),
}


def coverage(holds: Callable[[np.random.Generator], bool], name: str, n: int) -> float:
    rng = np.random.default_rng([n, *name.encode()])
    return sum(holds(rng) for _ in range(REPETITIONS)) / REPETITIONS


@pytest.mark.parametrize("n", WANTED)
@pytest.mark.parametrize("name", SCORES)
def test_intervals_of_scores_hold_the_truth_as_often_as_they_say(name: str, n: int) -> None:
    reducer, draw, truth = SCORES[name]
    bounds = (0.0, 1.0) if reducer == "mean" else None

    def holds(rng: np.random.Generator) -> bool:
        score = interval(MetricScores("m", reducer, True, draw(rng, n), bounds=bounds))
        return score.ci_low <= truth <= score.ci_high

    low, high = WANTED[n]
    assert low - ERROR <= coverage(holds, name, n) <= high + ERROR


def changed(better: float, worse: float) -> Draw:
    """Right and wrong of two models: a share right of one alone, and of the other alone."""

    def draw(rng: np.random.Generator, n: int) -> Floats:
        chance = rng.random(n)
        ours, theirs = chance < better, (better <= chance) & (chance < better + worse)
        both = (better + worse <= chance) & (chance < 0.95)
        return np.stack([ours | both, theirs | both], axis=1).astype(float)

    return draw


def regraded(ours: float, theirs: float, share: float) -> Draw:
    """Grades of two models that differ in a share of the answers."""

    def draw(rng: np.random.Generator, n: int) -> Floats:
        one, other = (graded(mean, 4)(rng, n)[:, 0] for mean in (ours, theirs))
        return np.stack([one, np.where(rng.random(n) < share, other, one)], axis=1)

    return draw


DIFFERENCES: dict[str, tuple[Draw, float]] = {
    "alike": (changed(0.02, 0.02), 0.0),
    "near alike": (changed(0.05, 0.01), 0.04),
    "differing": (changed(0.1, 0.1), 0.0),
    "better": (changed(0.3, 0.1), 0.2),
    "graded near 1": (regraded(0.97, 0.95, 1), 0.02),
    "graded": (regraded(0.9, 0.85, 1), 0.05),
    "regraded in part": (regraded(0.5, 0.5, 0.3), 0.0),
}


@pytest.mark.parametrize("n", WANTED)
@pytest.mark.parametrize("name", DIFFERENCES)
def test_intervals_of_differences_hold_the_truth_as_often_as_they_say(name: str, n: int) -> None:
    draw, truth = DIFFERENCES[name]

    def holds(rng: np.random.Generator) -> bool:
        ours, theirs = (
            MetricScores("m", "mean", True, column[:, None], bounds=(0.0, 1.0))
            for column in draw(rng, n).T
        )
        found = paired_difference(ours, theirs)
        return found.ci_low <= truth <= found.ci_high

    low, high = WANTED[n]
    assert low - ERROR <= coverage(holds, name, n) <= high + ERROR


def test_a_share_is_that_of_a_bootstrap() -> None:
    rng = np.random.default_rng(1)
    ours, theirs = (
        MetricScores("m", "proportion", True, (rng.random((300, 1)) < p).astype(float))
        for p in (0.6, 0.8)
    )
    found = share_of(ours, theirs)
    assert found is not None
    rows = rng.integers(0, 300, (4000, 300))
    shares = ours.stats[rows, 0].mean(axis=1) / theirs.stats[rows, 0].mean(axis=1)
    low, high = np.quantile(shares, (0.025, 0.975))
    assert found.value == pytest.approx(ours.value / theirs.value)
    assert (found.ci_low, found.ci_high) == pytest.approx((low, high), abs=0.01)


def test_a_model_is_the_whole_of_itself_and_no_share_of_nothing() -> None:
    values = (np.arange(50) % 2).astype(float)[:, None]
    some = MetricScores("m", "proportion", True, values)
    nothing = MetricScores("m", "proportion", True, np.zeros((50, 1)))
    rare = MetricScores("m", "proportion", True, (np.arange(50) == 7).astype(float)[:, None])
    whole = share_of(some, some)
    assert whole is not None
    assert (whole.value, whole.ci_low, whole.ci_high) == pytest.approx((1, 1, 1))
    assert share_of(some, nothing) is None
    assert share_of(some, rare) is None
    assert share_of(nothing, some) is None
