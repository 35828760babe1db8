"""Parts -> one snapshot: examples, quarantine and what was left out, streamed in order."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tasks.example import SCHEMA
from tasks.ingest.parts import (
    EXAMPLES,
    EXCLUDED,
    EXCLUDED_SCHEMA,
    QUARANTINE,
    QUARANTINE_SCHEMA,
    Keep,
    Part,
    tables_of,
)
from tasks.ingest.row_groups import RowGroupWriter


@dataclass(frozen=True, slots=True)
class SourceParts:
    """The parts of one source in order, and how many of its rows are wanted."""

    parts: Sequence[Part]
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class SnapshotCounts:
    """How many rows were read, by source, how many could not be, and how many were new.

    What a source leaves out on purpose, such as a skipped annotation, is counted apart.
    """

    num_read: int
    num_quarantined: int
    by_source: dict[str, int]
    by_reason: dict[str, int]
    num_excluded: dict[str, int]
    num_new: int
    num_forgotten: int


def assemble(
    sources: Sequence[SourceParts],
    folder: Path,
    keep: Keep | None = None,
    keep_quarantined: Keep | None = None,
) -> SnapshotCounts:
    """Write the rows of all sources into ``folder``, but for those that ``keep`` leaves out.

    ``keep`` sees tables with the columns of an example, ``keep_quarantined`` those of the
    quarantine. ``limit`` counts what is kept.
    """
    by_source: Counter[str] = Counter()
    by_reason: Counter[str] = Counter()
    excluded: Counter[str] = Counter()
    left_out: Counter[str] = Counter()
    with (
        RowGroupWriter(folder / EXAMPLES, SCHEMA) as good,
        RowGroupWriter(folder / QUARANTINE, QUARANTINE_SCHEMA) as bad,
        RowGroupWriter(folder / EXCLUDED, EXCLUDED_SCHEMA) as out,
    ):
        for source in sources:
            for table in _limited(source, keep, left_out):
                good.write(table)
                by_source += _counted(table["source"])
            for table in _kept(source.parts, QUARANTINE, keep_quarantined, left_out):
                bad.write(table)
                by_reason += _counted(table["reason"])
            for table in _kept(source.parts, EXCLUDED, None):
                out.write(table)
                excluded += _counted(table["reason"])
    return SnapshotCounts(
        num_read=good.num_rows + bad.num_rows,
        num_quarantined=bad.num_rows,
        by_source=dict(by_source),
        by_reason=_most_first(by_reason),
        num_excluded=_most_first(excluded),
        num_new=sum(part.num_new for source in sources for part in source.parts),
        num_forgotten=left_out.total(),
    )


def least_ids(tables: Iterable[pa.Table], limit: int) -> npt.NDArray[np.int64]:
    """Where the ``limit`` rows of least id stand, in order: a sample whatever the files' order.

    Among rows of one id the rest of their content decides. Memory grows with ``limit`` alone.
    """
    best, offset = _BEST.empty_table(), 0
    for table in tables:
        places = np.arange(table.num_rows)
        if best.num_rows == limit:  # most rows are out at once
            places = np.flatnonzero(pc.less_equal(table["id"], best["id"][-1]).to_numpy())
        found = table.take(places)
        rows = pa.table(
            [found["id"], pa.array(_contents(found), pa.binary()), places + offset], schema=_BEST
        )
        best = pa.concat_tables([best, rows]).sort_by([(name, "ascending") for name in _BEST.names])
        best = best.slice(0, limit).combine_chunks()
        offset += table.num_rows
    return np.sort(best["place"].to_numpy())


_BEST = pa.schema([("id", pa.string()), ("content", pa.binary()), ("place", pa.int64())])


def _contents(table: pa.Table) -> list[bytes]:
    rows = zip(table["messages"].to_pylist(), table["group"].to_pylist(), strict=True)
    return [hashlib.sha256(json.dumps(row).encode()).digest() for row in rows]


def _limited(source: SourceParts, keep: Keep | None, left_out: Counter[str]) -> Iterator[pa.Table]:
    tables = _kept(source.parts, EXAMPLES, keep, left_out)
    if source.limit is None:
        yield from tables
        return
    chosen, offset = least_ids(tables, source.limit), 0
    for table in _kept(source.parts, EXAMPLES, keep):
        first, last = np.searchsorted(chosen, [offset, offset + table.num_rows])
        yield table.take(chosen[first:last] - offset)
        offset += table.num_rows


def _kept(
    parts: Iterable[Part], name: str, keep: Keep | None, left_out: Counter[str] | None = None
) -> Iterator[pa.Table]:
    for part in parts:
        for table in tables_of(part.folder / name):
            kept = table if keep is None else table.filter(pa.array(keep(table)))
            if left_out is not None:
                left_out[name] += table.num_rows - kept.num_rows
            yield kept


def _most_first(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _counted(column: pa.ChunkedArray) -> Counter[str]:
    return Counter({row["values"]: row["counts"] for row in pc.value_counts(column).to_pylist()})
