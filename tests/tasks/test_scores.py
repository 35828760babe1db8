"""Statistics over answers: reducers, intervals, paired differences, and their way to Parquet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats as scipy_stats

from tasks.errors import DataError
from tasks.scores import (
    Floats,
    MetricScores,
    Reducer,
    from_columns,
    interval,
    paired_difference,
    reduce,
    to_columns,
)

N = 200


def sample(reducer: Reducer, n: int = N, seed: int = 0) -> Floats:
    """Plausible statistics of n answers."""
    rng = np.random.default_rng(seed)
    if reducer == "proportion":
        return rng.integers(0, 2, (n, 1)).astype(float)
    if reducer == "f1":
        return rng.integers(0, 5, (n, 3)).astype(float)
    if reducer == "macro_f1":
        right, answer = rng.integers(0, 7, (2, n, 1)) == np.arange(7)[:, None, None].T
        blocks = [answer & right, answer & ~right, right & ~answer]
        return np.concatenate(blocks, axis=1).astype(float)
    if reducer == "bleu":
        total = rng.integers(8, 20, (n, 1)) - np.arange(4)
        correct = np.minimum(total, np.sort(rng.integers(0, 12, (n, 4)), axis=1)[:, ::-1])
        return np.concatenate([total[:, :1], total[:, :1] + 1, correct, total], axis=1).astype(
            float
        )
    return rng.gamma(2.0, size=(n, 1))


def scores(reducer: Reducer, stats: Floats, *, higher_is_better: bool = True) -> MetricScores:
    return MetricScores("metric", reducer, higher_is_better, stats)


REDUCERS: list[Reducer] = ["mean", "proportion", "f1", "macro_f1", "bleu", "median"]


@pytest.mark.parametrize("reducer", REDUCERS)
def test_reduce_is_vectorised_over_leading_axes(reducer: Reducer) -> None:
    stats = np.stack([sample(reducer, seed=s) for s in range(6)])

    values = reduce(reducer, stats.reshape(2, 3, *stats.shape[1:]))

    assert values.shape == (2, 3)
    np.testing.assert_allclose(values.ravel(), [float(reduce(reducer, s)) for s in stats])


@pytest.mark.parametrize(
    ("reducer", "stats", "expected"),
    [
        ("mean", [[1.0], [2.0], [6.0]], 3.0),
        ("proportion", [[1.0], [0.0], [1.0], [1.0]], 0.75),
        ("f1", [[2, 1, 0], [1, 0, 2]], 2 * 3 / (2 * 3 + 1 + 2)),
        ("f1", [[0, 0, 0]], 0.0),
        ("macro_f1", [[1, 0, 0, 0, 0, 0], [0, 0, 1, 0, 0, 1]], (2 / 3 + 0.0) / 2),
        ("macro_f1", [[1, 0, 0, 0, 0, 0]], 1.0),  # the second class is absent, not failed
        ("bleu", [[0, 5, 0, 0, 0, 0, 0, 0, 0, 0]], 0.0),
        ("bleu", [[4, 4, 4, 3, 2, 1, 4, 3, 2, 1]], 1.0),
        ("median", [[1.0], [9.0], [2.0]], 2.0),
    ],
)
def test_reduce_by_hand(reducer: Reducer, stats: list[list[float]], expected: float) -> None:
    assert float(reduce(reducer, np.array(stats, dtype=float))) == pytest.approx(expected)


@pytest.mark.parametrize("reducer", REDUCERS)
def test_interval_holds_its_value_and_is_deterministic(reducer: Reducer) -> None:
    s = scores(reducer, sample(reducer))

    score = interval(s, seed=3)

    assert score.ci_low < score.value < score.ci_high
    assert score.n == N
    assert score == interval(s, seed=3)


def test_proportion_gets_wilsons_interval() -> None:
    score = interval(scores("proportion", np.array([[1.0]] * 9 + [[0.0]])))

    # Wilson's formula by hand, n = 10, p = 0.9, z = 1.96.
    assert (score.ci_low, score.ci_high) == pytest.approx((0.59585, 0.98212), abs=1e-4)
    assert interval(scores("proportion", np.ones((200, 1)))).ci_low == pytest.approx(
        0.9812, abs=1e-4
    )


def test_interval_of_a_mean_agrees_with_scipy_and_the_t_interval() -> None:
    values = sample("mean")[:, 0]

    score = interval(scores("mean", values[:, None]))

    ours = (score.ci_low, score.ci_high)
    direct = scipy_stats.bootstrap((values,), np.mean, n_resamples=2000, rng=1).confidence_interval
    assert ours == pytest.approx(tuple(direct), abs=0.03)
    assert ours == pytest.approx(
        scipy_stats.t.interval(0.95, N - 1, values.mean(), scipy_stats.sem(values)), abs=0.05
    )


@pytest.mark.parametrize("reducer", ["mean", "f1", "macro_f1", "bleu", "median"])
@pytest.mark.parametrize("n", [1, 40])
def test_equal_rows_give_a_point(reducer: Reducer, n: int) -> None:
    score = interval(scores(reducer, np.repeat(sample(reducer)[:1], n, axis=0)))

    assert score.ci_low == score.value == score.ci_high


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


@pytest.mark.parametrize("bad", [np.array([[np.nan]]), np.array([1.0, 2.0])])
def test_statistics_must_be_a_finite_matrix(bad: Floats) -> None:
    with pytest.raises(DataError, match="finite"):
        scores("mean", bad)


def test_ids_must_fit_the_rows() -> None:
    with pytest.raises(DataError, match="2 ids for 1"):
        MetricScores("judge", "mean", True, np.ones((1, 1)), ids=("a", "b"))


@pytest.mark.parametrize("reducer", REDUCERS)
def test_equal_models_differ_by_nothing(reducer: Reducer) -> None:
    s = scores(reducer, sample(reducer), higher_is_better=False)

    assert repr(paired_difference(s, s)) == "(0.0, 0.0, 0.0, 200)"


def test_lower_latency_is_a_positive_difference() -> None:
    slow = sample("median") + 300
    fast = slow - 50

    difference, low, high, n = paired_difference(
        scores("median", fast, higher_is_better=False),
        scores("median", slow, higher_is_better=False),
    )

    assert (difference, low, high) == pytest.approx((50, 50, 50))
    assert n == N


def test_pairing_is_sharper_than_two_intervals() -> None:
    base = sample("mean")
    better = base + np.random.default_rng(9).normal(0.05, 0.1, base.shape)

    _, low, high, _ = paired_difference(scores("mean", better), scores("mean", base))

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

    difference, low, high, _ = paired_difference(a, b, resamples=200, seed=seed)
    mirrored, mirrored_low, mirrored_high, _ = paired_difference(b, a, resamples=200, seed=seed)

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


def test_difference_is_deterministic_by_seed() -> None:
    a, b = (scores("f1", sample("f1", seed=s)) for s in (1, 2))

    assert paired_difference(a, b, seed=4) == paired_difference(a, b, seed=4)
    assert paired_difference(a, b, seed=4) != paired_difference(a, b, seed=5)


def test_scores_survive_parquet(tmp_path: Path) -> None:
    ids = tuple(f"row-{i}" for i in range(N))
    written: dict[str, MetricScores] = {
        r: MetricScores(r, r, r != "median", sample(r)) for r in REDUCERS
    }
    written["judge"] = MetricScores(
        "judge", "mean", True, np.array([[5.0], [2.0]]), (ids[3], ids[0])
    )

    pq.write_table(to_columns(ids, written), tmp_path / "scores.parquet")
    read_ids, read = from_columns(pq.read_table(tmp_path / "scores.parquet"))

    assert read_ids == ids
    assert list(read) == list(written)
    for metric, s in written.items():
        assert (read[metric].reducer, read[metric].higher_is_better) == (
            s.reducer,
            s.higher_is_better,
        )
        if metric != "judge":
            np.testing.assert_array_equal(read[metric].stats, s.stats)
            assert read[metric].ids is None
    assert read["judge"].ids == (ids[0], ids[3])
    assert read["judge"].stats.tolist() == [[2.0], [5.0]]


def test_a_foreign_table_is_refused() -> None:
    with pytest.raises(DataError, match=r"retune\.metrics"):
        from_columns(pa.table({"id": ["a"]}))
