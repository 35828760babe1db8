"""A Parquet file whose bytes depend on its rows alone, however they arrive.

The same rows must give the same digest whether they were read at once or put together from parts,
so row groups are cut by the rows' number and size, never by where a batch happened to end.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

MAX_ROWS = 10_000
MAX_BYTES = 8 * 2**20


class RowGroupWriter:
    """Writes tables of one schema; holds one row group at most."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.num_rows = 0
        self._schema = schema
        self._writer = pq.ParquetWriter(path, schema)
        self._held: list[pa.Table] = []
        self._rows = 0
        self._bytes = 0

    def write(self, table: pa.Table) -> None:
        """Add rows; those of a full row group are written."""
        sizes = row_bytes(table)
        self.num_rows += table.num_rows
        start = 0
        while start < table.num_rows:
            grown = self._bytes + np.cumsum(sizes[start : start + MAX_ROWS - self._rows])
            # The row that fills the group still belongs to it.
            count = min(int(np.searchsorted(grown, MAX_BYTES)) + 1, len(grown))
            self._held.append(table.slice(start, count))
            self._rows += count
            self._bytes = int(grown[count - 1])
            start += count
            if self._rows >= MAX_ROWS or self._bytes >= MAX_BYTES:
                self._flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._held:
            # One chunk a column: the chunks' bounds would show in the file's pages.
            group = pa.concat_tables(self._held).combine_chunks()
            self._writer.write_table(group, row_group_size=max(group.num_rows, 1))
        self._held, self._rows, self._bytes = [], 0, 0


def row_bytes(table: pa.Table) -> npt.NDArray[np.int64]:
    """About how much memory each row takes: its text, and a little for the rest."""
    sizes = np.full(table.num_rows, 64, dtype=np.int64)
    for column in table.columns:
        sizes += _bytes_of(column.combine_chunks())
    return sizes


def _bytes_of(values: pa.Array) -> npt.NDArray[np.int64]:
    kind = values.type
    if pa.types.is_list(kind):
        inner = _bytes_of(values.flatten())
        parents = pc.list_parent_indices(values).to_numpy(zero_copy_only=False)
        return np.bincount(parents, inner, minlength=len(values)).astype(np.int64)
    if pa.types.is_struct(kind):
        parts = np.array([_bytes_of(part) for part in values.flatten()], dtype=np.int64)
        return np.asarray(parts.sum(axis=0), dtype=np.int64)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind):
        lengths = pc.fill_null(pc.binary_length(values), 0)
        return np.asarray(lengths.to_numpy(zero_copy_only=False), dtype=np.int64)
    return np.zeros(len(values), dtype=np.int64)
