"""Train, validation, test and holdout: by the hash of the group alone, so that nothing moves."""

from __future__ import annotations

import hashlib
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.clean.config import SplitConfig
from tasks.clean.rows import Indices

HELD_OUT: tuple[Literal["test", "holdout"], ...] = ("test", "holdout")


def split_of(group: str, config: SplitConfig, *, is_production: bool = False) -> str:
    """The split of a group; ``holdout`` only for groups that production rows belong to.

    The holdout is drawn by a hash of its own, so that its share can change without moving the rest.
    """
    if is_production and _point(f"holdout:{group}") < config.production_holdout:
        return "holdout"
    point = _point(group)
    if point < config.train:
        return "train"
    return "validation" if point < config.train + config.validation else "test"


def splits_of(groups: pa.Array, sources: pa.Array, config: SplitConfig) -> pa.StringArray:
    """The split of each row: one for all rows of a group, whatever their sources."""
    codes = groups.dictionary_encode()
    names, of_row = codes.dictionary.to_pylist(), np.asarray(codes.indices)
    is_production = np.zeros(len(names), dtype=bool)
    is_production[of_row[np.asarray(pc.equal(sources, "production"))]] = True
    splits = [
        split_of(name, config, is_production=bool(live))
        for name, live in zip(names, is_production, strict=True)
    ]
    return pa.array(splits, pa.string()).take(pa.array(of_row))


def eldest(cluster_of: Indices, created_at: pa.Array, groups: pa.Array) -> Indices:
    """For each row the eldest row of its cluster, whose split it takes.

    What repeats an older row belongs where the older one already is: were the split that of the
    newest copy, a row held out for testing could come back into training under another group.
    Undated rows are the youngest, in the order of their groups' hashes.
    """
    when = np.asarray(pc.fill_null(created_at.cast(pa.int64()), np.iinfo(np.int64).max))
    tie = np.array([_point(g) for g in groups.to_pylist()])
    order = np.lexsort((tie, when, cluster_of))
    first = np.flatnonzero(np.diff(cluster_of[order], prepend=-1))
    eldest_of = np.empty(len(order), dtype=np.int64)
    lengths = np.diff(np.append(first, len(order)))
    eldest_of[order] = np.repeat(order[first], lengths)
    return eldest_of


def _point(text: str) -> float:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64
