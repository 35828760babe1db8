"""Who of several rows that say the same is kept, and in which split what is kept belongs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.clean.rows import Indices, Rows
from tasks.clean.split import eldest


def best_first(rows: Rows, source_rank: Sequence[str]) -> Indices:
    """The rows from the one to be kept before all others to the last, whatever their order here.

    By source, then the more complete answer, then the older row; the rest only settles ties.
    """
    table = pa.table(
        {
            "rank": source_ranks(rows, source_rank),
            "brevity": pc.negate(pc.binary_length(rows.answers)),
            "created_at": rows.column("created_at"),
            "id": rows.column("id"),
            "prompt": rows.prompts,
            "group": rows.column("group"),
            "meta": rows.column("meta"),
        }
    )
    keys = [(name, "ascending") for name in table.column_names]
    order = pc.sort_indices(table, sort_keys=keys)
    return np.asarray(order).astype(np.int64)


def exact_duplicates(rows: Rows, order: Indices) -> Indices:
    """For each row the first in ``order`` with the same id, itself where it is the first."""
    codes = np.asarray(rows.column("id").dictionary_encode().indices)
    rank = np.empty(len(rows), dtype=np.int64)
    rank[order] = np.arange(len(rows))
    best = np.full(codes.max(initial=-1) + 1, len(rows), dtype=np.int64)
    np.minimum.at(best, codes, rank)
    kept_of: Indices = order[best[codes]]
    return kept_of


def source_ranks(rows: Rows, source_rank: Sequence[str]) -> Indices:
    """The place of each row's source among ``source_rank``; one that is not there comes last."""
    known = pc.index_in(rows.column("source"), pa.array(source_rank, pa.string()))
    return np.asarray(pc.fill_null(known, len(source_rank))).astype(np.int64)


def with_eldest_split(rows: Rows, kept_of: Indices) -> Rows:
    """The rows, each with the split of the eldest row of its cluster."""
    of = eldest(kept_of, rows.column("created_at"), rows.column("group"))
    index = rows.table.schema.get_field_index("split")
    splits = rows.column("split").take(pa.array(of))
    return Rows(rows.table.set_column(index, "split", splits))


def cluster_bars(sizes: Indices) -> dict[str, int]:
    """How many rows stand for 2, for 3 to 5, for more rows."""
    names = ("2 alike", "3 to 5 alike", "6 to 20 alike", "more than 20 alike")
    within = np.searchsorted(np.array([3, 6, 21]), sizes[sizes > 1], side="right")
    return {name: int((within == i).sum()) for i, name in enumerate(names)}
