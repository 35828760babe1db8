"""Files and hub data sets -> rows, each with its file and line; what cannot be read says why.

Nothing is dropped here: a line is yielded either as a ``Row`` or as a ``BadRow`` that keeps the
original bytes.
"""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.errors import ConfigError, DataError
from tasks.ingest.config import SourceConfig

logger = logging.getLogger(__name__)

Reason = str


@dataclass(frozen=True, slots=True)
class Row:
    """One row as it was read. ``line`` counts from 1 and is where the row begins."""

    file: str
    line: int
    values: dict[str, Any]
    raw: bytes


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot become an example, with a stable reason and what was expected."""

    file: str
    line: int
    field: str | None
    reason: Reason
    detail: str
    raw: bytes


def read(source: SourceConfig) -> Iterator[Row | BadRow]:
    """All rows of a source in order, before ``where`` and ``limit``.

    Raises MissingFileError when no file is found, DataError when a file is empty or not of its
    format as a whole.
    """
    return _read_hub(source) if source.uses_hub() else _read_files(source)


def _read_files(source: SourceConfig) -> Iterator[Row | BadRow]:
    for name, path in source.files():
        if path.stat().st_size == 0:
            raise DataError(f"{name}: the file is empty. Remove it from the sources or fill it.")
        yield from _reader(name, source)(name, path)


def _reader(name: str, source: SourceConfig) -> Callable[[str, Path], Iterator[Row | BadRow]]:
    form = source.format if source.format != "auto" else Path(name).suffix.lstrip(".").lower()
    readers = {"jsonl": _read_jsonl, "csv": _read_csv, "parquet": _read_parquet}
    if form not in readers:
        raise ConfigError(
            f"{name}: expected a .jsonl, .csv or .parquet file, came {form!r}. "
            "Name the form in the source's `format`."
        )
    return readers[form]


def _read_jsonl(name: str, path: Path) -> Iterator[Row | BadRow]:
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            line = raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
            if line.strip():
                yield _parse_json(name, number, line.rstrip(b"\r\n"))


def _parse_json(name: str, number: int, raw: bytes) -> Row | BadRow:
    try:
        values = json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        return BadRow(name, number, None, "invalid_utf8", f"expected UTF-8: {error}", raw)
    except (ValueError, RecursionError) as error:  # also a number of more than 4,300 digits
        return BadRow(name, number, None, "invalid_json", f"expected a JSON object: {error}", raw)
    if not isinstance(values, dict):
        detail = f"expected a JSON object, came {type(values).__name__}"
        return BadRow(name, number, None, "not_an_object", detail, raw)
    return Row(name, number, values, raw)


def _read_csv(name: str, path: Path) -> Iterator[Row | BadRow]:
    csv.field_size_limit(2**31 - 1)  # a long document in a cell is not an error
    taken: list[str] = []
    # Bytes that are not UTF-8 pass as surrogates, so that they spoil their own row alone.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        records = _records(name, csv.reader(_noting(file, taken), strict=True), taken)
        _, header, _ = next(records, (0, [], b""))
        if not header or len(set(header)) < len(header):
            raise DataError(
                f"{name}: expected a first line of distinct column names, came {header}. Correct "
                "the file's header."
            )
        for line, cells, raw in records:
            yield _pair(name, line, header, cells, raw)


def _records(name: str, reader: Any, taken: list[str]) -> Iterator[tuple[int, list[str], bytes]]:
    """(line where it begins, cells, original bytes) of each record that is not blank."""
    while True:
        first = reader.line_num + 1
        taken.clear()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:  # an open quote may have swallowed any number of rows
            raise DataError(
                f"{name}:{first}: expected a CSV record, came {error}. Double the quotes inside a "
                "quoted cell, and close it."
            ) from error
        if cells:
            yield first, cells, "".join(taken).rstrip("\r\n").encode("utf-8", "surrogateescape")


def _noting(lines: Iterable[str], taken: list[str]) -> Iterator[str]:
    """The lines, each also put into ``taken``: what the CSV reader used for its next record."""
    for line in lines:
        taken.append(line)
        yield line


def _pair(name: str, line: int, header: list[str], cells: list[str], raw: bytes) -> Row | BadRow:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return BadRow(name, line, None, "invalid_utf8", f"expected UTF-8: {error}", raw)
    if len(cells) != len(header):
        detail = f"expected {len(header)} cells ({', '.join(header)}), came {len(cells)}"
        return BadRow(name, line, None, "wrong_number_of_cells", detail, raw)
    return Row(name, line, dict(zip(header, cells, strict=True)), raw)


def _read_parquet(name: str, path: Path) -> Iterator[Row | BadRow]:
    try:
        batches = pq.ParquetFile(path).iter_batches(batch_size=1024)
        yield from _numbered(name, (row for batch in batches for row in batch.to_pylist()))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{name}: expected a Parquet file, came {error}. Write the file anew."
        ) from error


def _read_hub(source: SourceConfig) -> Iterator[Row | BadRow]:
    """A hub data set, or its stand-in files when the hub cannot be reached."""
    import datasets
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        rows = datasets.load_dataset(
            source.hub, split=source.hub_split, revision=source.hub_revision
        )
    except (OSError, HfHubHTTPError, OfflineModeIsEnabled) as error:
        if source.path is None:
            raise DataError(
                f"Data set {source.hub!r}: the hub did not give it ({error}). Give a file as "
                "`path` beside `hub`, or set HF_HUB_OFFLINE=0 on a machine with internet."
            ) from error
        logger.warning(
            "the hub did not give %s (%s); reading %s instead", source.hub, error, source.path
        )
        yield from _read_files(source)
        return
    named = [_with_label_names(rows.features, row) for row in rows]
    yield from _numbered(f"hub:{source.hub}", iter(named))


def _with_label_names(features: Any, row: dict[str, Any]) -> dict[str, Any]:
    """Class labels by name: the hub stores their numbers."""
    return {
        key: features[key].int2str(value) if hasattr(features[key], "int2str") else value
        for key, value in row.items()
    }


def _numbered(name: str, rows: Iterator[dict[str, Any]]) -> Iterator[Row]:
    for number, values in enumerate(rows, start=1):
        raw = json.dumps(values, ensure_ascii=False, default=str).encode("utf-8", "surrogatepass")
        yield Row(name, number, values, raw)
