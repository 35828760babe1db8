"""Arrow batches, of a Parquet file or a data set -> rows, a few thousand at a time."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.errors import DataError
from tasks.ingest.rows import BadRow, Row, printable, too_long

BATCH = 1024
MAGIC = b"PAR1"
# What Arrow raises for a value that Python cannot hold, such as text that is not UTF-8.
_VALUE_ERRORS = (pa.ArrowException, UnicodeDecodeError, ValueError, OverflowError)


def read_parquet(name: str, path: Path, limit: int) -> Iterator[Row | BadRow]:
    """The rows of a Parquet file; raises DataError when it is cut, corrupt or none."""
    try:
        with pq.ParquetFile(path) as file:
            check_names(name, file.schema_arrow)
            yield from rows_of(name, file.iter_batches(batch_size=BATCH), limit)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{name}: expected a Parquet file, came {printable(str(error))}. Write the file anew."
        ) from error


def check_names(name: str, schema: pa.Schema) -> None:
    """Raises DataError when two columns have one name: the second would hide the first."""
    twice = sorted({column for column in schema.names if schema.names.count(column) > 1})
    if twice:
        raise DataError(f"{name}: expected distinct column names, came {twice[0]!r} twice.")


def rows_of(name: str, batches: Iterable[Any], limit: int) -> Iterator[Row | BadRow]:
    """The rows of record batches or tables, counted from 1."""
    number = 1
    for batch in batches:
        for row in _rows_of_batch(name, number, batch):
            yield row if len(row.raw) <= limit else _cut(row, limit)
        number += batch.num_rows


def _rows_of_batch(name: str, first: int, batch: Any) -> Iterator[Row | BadRow]:
    try:
        rows = batch.to_pylist()
    except _VALUE_ERRORS as error:
        if batch.num_rows == 1:
            detail = f"expected values that can be read: {printable(str(error))}"
            yield BadRow(name, first, None, "invalid_value", detail, _as_far_as_readable(batch))
            return
        for index in range(batch.num_rows):  # only the rows that are bad are lost
            yield from _rows_of_batch(name, first + index, batch.slice(index, 1))
        return
    for number, values in enumerate(rows, start=first):
        yield Row(name, number, values, _as_json(values))


def _as_json(values: dict[str, Any]) -> bytes:
    text = json.dumps(values, ensure_ascii=False, default=str)
    return text.encode("utf-8", "surrogatepass")


def _as_far_as_readable(row: Any) -> bytes:
    """The one row as JSON, with the bytes of a column that cannot be read shown as they are."""
    shown: dict[str, Any] = {}
    for column, values in zip(row.schema.names, row.columns, strict=True):
        try:
            shown[column] = values.to_pylist()[0]
        except _VALUE_ERRORS:
            shown[column] = _bytes_of(values)
    return _as_json(shown)


def _bytes_of(values: Any) -> str:
    try:
        raw = values.cast(pa.large_binary()).to_pylist()[0]
    except _VALUE_ERRORS:
        return f"<{values.type}>"
    return bytes(raw).decode("utf-8", "backslashreplace")


def _cut(row: Row | BadRow, limit: int) -> BadRow:
    return too_long(row.file, row.line, len(row.raw), limit, row.raw)
