"""What each answer contributes to a metric, and the metric's value over any choice of answers.

A metric turns n answers into ``stats``, an array of shape (n, k) of sufficient statistics: summed
over any choice of answers they give the metric's value over that choice. So whole-corpus metrics,
such as BLEU or micro F1, are weighed and resampled without scoring a text twice
(``tasks.intervals``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tasks.errors import DataError

Reducer = Literal[
    "mean", "proportion", "f1", "precision", "recall", "macro_f1", "bleu", "chrf", "median"
]
Floats = NDArray[np.float64]

_NOTHING = 1e-300  # in place of a count of 0 below a fraction whose top is 0 too
_METADATA_KEY = b"retune.metrics"  # in a schema's metadata: each metric's reducer, direction, k


@dataclass(frozen=True, eq=False)
class MetricScores:
    """What each answer contributes to one metric.

    ``stats`` has shape (n, k), k by reducer: mean, proportion (0 or 1) and median 1; f1, precision
    and recall the counts tp, fp, fn; macro_f1 the same three for C classes, laid out as C tp, C fp,
    C fn; bleu sys_len, ref_len, 4 correct, 4 total; chrf for each of 6 orders those answered,
    expected and in common. ``ids`` names the rows measured where those are not all the rows of
    the contestant (the judge, latency); None means all of them, in the contestant's order.
    ``bounds`` are the least and the greatest value that a mean can have, where it has any.

    Raises:
        DataError: ``stats`` is not a matrix of finite numbers, or ``ids`` has another length.
    """

    metric: str
    reducer: Reducer
    higher_is_better: bool
    stats: Floats
    ids: tuple[str, ...] | None = None
    bounds: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.stats.ndim != 2 or not np.isfinite(self.stats).all():
            raise DataError(
                f"{self.metric}: expected finite statistics of shape (n, k), got shape "
                f"{self.stats.shape} with {int((~np.isfinite(self.stats)).sum())} not finite"
            )
        if self.ids is not None and len(self.ids) != len(self.stats):
            raise DataError(f"{self.metric}: {len(self.ids)} ids for {len(self.stats)} answers")
        low, high = self.bounds or (-np.inf, np.inf)
        if self.reducer == "mean" and not ((low <= self.stats) & (self.stats <= high)).all():
            raise DataError(f"{self.metric}: expected values from {low:g} to {high:g}")

    @property
    def range(self) -> tuple[float, float] | None:
        """The least and the greatest value that the metric can have; None where there is none."""
        return self.bounds if self.reducer in {"mean", "median"} else (0.0, 1.0)

    @property
    def value(self) -> float:
        """The metric over all its answers."""
        return float(reduce(self.reducer, self.stats))


def reduce(reducer: Reducer, stats: Floats) -> Floats:
    """The metric's value from the statistics of each answer: shape (..., n, k) to (...).

    Raises:
        DataError: there are no answers.
    """
    if stats.shape[-2] == 0:
        raise DataError(f"a {reducer} over 0 answers has no value")
    if reducer == "median":
        return np.asarray(np.median(stats[..., 0], axis=-1))
    return value_of_sums(reducer, stats.sum(axis=-2), stats.shape[-2])


def value_of_sums(reducer: Reducer, sums: Floats, num: float) -> Floats:
    """The value from statistics summed over ``num`` answers: shape (..., k) to (...).

    ``num`` may be a fraction, where rows have weights.
    """
    if reducer == "f1":
        return _f1(sums[..., 0], sums[..., 1], sums[..., 2])
    if reducer in {"precision", "recall"}:
        missed = sums[..., 1 if reducer == "precision" else 2]
        return np.asarray(sums[..., 0] / np.maximum(sums[..., 0] + missed, _NOTHING))
    if reducer == "macro_f1":
        return _macro_f1(sums)
    if reducer == "chrf":
        return _chrf(sums)
    if reducer == "bleu":
        return _bleu(sums)
    return np.asarray(sums[..., 0] / num)


def _f1(tp: Floats, fp: Floats, fn: Floats) -> Floats:
    """2 tp / (2 tp + fp + fn); 0 where nothing was expected or answered, as scikit-learn has it."""
    return np.asarray(2 * tp / np.maximum(2 * tp + fp + fn, 1))


def _macro_f1(sums: Floats) -> Floats:
    """The mean F1 of the classes present: a class that a resample left out says nothing."""
    tp, fp, fn = np.moveaxis(sums.reshape(*sums.shape[:-1], 3, -1), -2, 0)
    present = (tp + fp + fn) > 0
    return np.asarray(_f1(tp, fp, fn).sum(axis=-1) / np.maximum(present.sum(axis=-1), 1))


def _chrf(sums: Floats) -> Floats:
    """Corpus chrF2 on 0..1 as sacrebleu has it: precision and recall averaged over six orders.

    Popović (2015); orders that neither text is long enough for are left out.
    """
    answered, expected, common = np.moveaxis(sums.reshape(*sums.shape[:-1], -1, 3), -1, 0)
    counts = (answered > 0) & (expected > 0)
    orders = np.maximum(counts.sum(axis=-1), 1)
    precision, recall = (
        np.where(counts, common / np.maximum(all_of, _NOTHING), 0).sum(axis=-1) / orders
        for all_of in (answered, expected)
    )
    weighted = 4 * precision + recall  # recall counts twice: beta is 2
    return np.asarray(5 * precision * recall / np.maximum(weighted, _NOTHING))


def _bleu(sums: Floats) -> Floats:
    """Corpus BLEU-4 on 0..1 with sacrebleu's default, exponential, smoothing of empty orders.

    Papineni et al. (2002); smoothing method 3 of Chen and Cherry (2014): the i-th order without a
    match counts as 1 / 2^i matches. 0 where no word matches or no answer has four words.
    """
    sys_len, ref_len, correct, total = sums[..., 0], sums[..., 1], sums[..., 2:6], sums[..., 6:10]
    smoothed = np.where(correct > 0, correct, 0.5 ** np.cumsum(correct == 0, axis=-1))
    log_precision = np.log(smoothed / np.maximum(total, 1)).mean(axis=-1)
    log_brevity = np.minimum(0.0, 1 - ref_len / np.maximum(sys_len, 1))
    defined = (total > 0).all(axis=-1) & (correct > 0).any(axis=-1)
    return np.where(defined, np.exp(log_brevity + log_precision), 0.0)


def value_over(reducer: Reducer, stats: Floats, rows: NDArray[Any]) -> Floats:
    """The metric over each choice of rows: indices of shape (..., m) to values of shape (...)."""
    draws = rows.reshape(-1, rows.shape[-1]).astype(np.intp)
    if reducer == "median":
        values = np.asarray(np.median(stats[draws, 0], axis=-1))
    else:
        # How often each row was drawn, times the statistics: no copy of the statistics per draw.
        offsets = np.arange(len(draws))[:, None] * len(stats)
        counts = np.bincount((draws + offsets).ravel(), minlength=len(draws) * len(stats))
        sums = counts.reshape(len(draws), len(stats)).astype(np.float64) @ stats
        values = value_of_sums(reducer, sums, draws.shape[-1])
    return values.reshape(rows.shape[:-1])


def to_columns(ids: Sequence[str], scores: Mapping[str, MetricScores]) -> pa.Table:
    """A table of ``id`` and a column of lists per metric, null where an answer was not measured."""
    columns: dict[str, pa.Array] = {"id": pa.array(ids, pa.string())}
    for metric, s in scores.items():
        position = {row_id: i for i, row_id in enumerate(ids if s.ids is None else s.ids)}
        rows = pa.array([position.get(row_id) for row_id in ids], pa.int64())
        # Plain lists: Parquet cannot read back lists of fixed size with nulls among them.
        columns[metric] = pa.array(list(s.stats), pa.list_(pa.float64())).take(rows)
    about = {
        m: [s.reducer, s.higher_is_better, s.stats.shape[1], s.bounds] for m, s in scores.items()
    }
    return pa.table(columns).replace_schema_metadata({_METADATA_KEY: json.dumps(about)})


def from_columns(table: pa.Table) -> tuple[tuple[str, ...], dict[str, MetricScores]]:
    """The row ids and metrics of a table written by ``to_columns``; any other is a DataError."""
    about = (table.schema.metadata or {}).get(_METADATA_KEY)
    if about is None:
        raise DataError(f"not a table of scores: its metadata lacks {_METADATA_KEY.decode()}")
    ids = tuple(table["id"].to_pylist())
    scores: dict[str, MetricScores] = {}
    for metric, (reducer, higher_is_better, k, bounds) in json.loads(about).items():
        column = table[metric].combine_chunks()
        stats = np.asarray(column.flatten(), dtype=np.float64).reshape(-1, k)  # without the nulls
        measured = tuple(compress(ids, column.is_valid().to_pylist()))
        rows = None if measured == ids else measured
        scores[metric] = MetricScores(
            metric, reducer, higher_is_better, stats, rows, tuple(bounds) if bounds else None
        )
    return ids, scores
