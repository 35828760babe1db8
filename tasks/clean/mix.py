"""Shares of the training split by where the rows come from: ceilings kept, floors told."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.clean.config import MixConfig
from tasks.clean.rows import Finding, Indices, Rows
from tasks.example import GENERAL


@dataclass(frozen=True, slots=True)
class Share:
    """One kind of row in the training split: wanted and achieved, as shares of it."""

    name: str
    low: float
    high: float
    achieved: float

    @property
    def holds(self) -> bool:
        return self.low <= self.achieved <= self.high


def mix_findings(rows: Rows, splits: pa.Array, config: MixConfig) -> list[Finding]:
    """The training rows over a ceiling, chosen by the hash of their content: next week's the same.

    A ceiling of share s over the other rows n allows n * s / (1 - s) rows.
    """
    in_train = np.asarray(pc.equal(splits, "train"))
    general = in_train & is_general(rows)
    synthetic = in_train & ~general & np.asarray(pc.equal(rows.column("source"), "synthetic"))
    ids = rows.column("id")
    findings = _over("synthetic", synthetic, in_train & ~general, config.max_synthetic, ids)
    gone = np.zeros(len(rows), dtype=bool)
    gone[[f.index for f in findings]] = True
    return findings + _over(GENERAL, general, in_train & ~gone, config.general[1], ids)


def shares(rows: Rows, splits: pa.Array, config: MixConfig) -> list[Share]:
    """What the training split is made of, beside what is wanted."""
    in_train = np.asarray(pc.equal(splits, "train"))
    num = max(1, int(in_train.sum()))
    general = in_train & is_general(rows)
    counts = {
        name: int((in_train & ~general & np.asarray(pc.equal(rows.column("source"), name))).sum())
        for name in ("human", "annotation", "production", "synthetic")
    }
    people = (counts["human"] + counts["annotation"]) / num
    has_synthetic = counts["synthetic"] > 0
    return [
        Share("general", *config.general, achieved=int(general.sum()) / num),
        Share("production", *config.production, achieved=counts["production"] / num),
        Share("human", config.min_human if has_synthetic else 0.0, 1.0, achieved=people),
        Share("synthetic", 0.0, config.max_synthetic, achieved=counts["synthetic"] / num),
    ]


def is_general(rows: Rows) -> np.ndarray:
    """Which rows are general instructions, by what ingest wrote into their meta."""
    return np.asarray(pc.match_substring(rows.column("meta"), f'"{GENERAL}": "yes"'))


def _over(
    name: str, of_kind: np.ndarray, total: np.ndarray, share: float, ids: pa.Array
) -> list[Finding]:
    others = int((total & ~of_kind).sum())
    if share >= 1 or others == 0:  # rows of one kind alone have no mix
        return []
    allowed = math.floor(others * share / (1 - share))
    indices: Indices = np.flatnonzero(of_kind)
    if len(indices) <= allowed:
        return []
    by_hash = np.asarray(pc.sort_indices(ids.take(pa.array(indices))))
    detail = f"{len(indices)} {name} rows beside {others} others, {share:.0%} are wanted at most"
    return [Finding(int(i), f"over_mix_{name}", detail) for i in indices[by_hash[allowed:]]]
