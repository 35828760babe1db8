"""Statistics over answers: reducers, intervals, paired differences, and their way to Parquet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.errors import DataError
from tasks.scores import (
    Floats,
    MetricScores,
    Reducer,
    from_columns,
    reduce,
    to_columns,
)
from tests.score_samples import REDUCERS, N, sample, scores


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


@pytest.mark.parametrize("bad", [np.array([[np.nan]]), np.array([1.0, 2.0])])
def test_statistics_must_be_a_finite_matrix(bad: Floats) -> None:
    with pytest.raises(DataError, match="finite"):
        scores("mean", bad)


def test_ids_must_fit_the_rows() -> None:
    with pytest.raises(DataError, match="2 ids for 1"):
        MetricScores("judge", "mean", True, np.ones((1, 1)), ids=("a", "b"))


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
