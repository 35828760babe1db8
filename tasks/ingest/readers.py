"""Files and hub data sets -> rows, each with its file and line; what cannot be read says why.

Nothing is dropped here: a line is yielded either as a ``Row`` or as a ``BadRow`` that keeps the
original bytes.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.errors import ConfigError, DataError
from tasks.ingest.config import SourceConfig

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
    """All rows of a source in order, those that ``where`` excludes left out.

    Raises MissingFileError when no file is found, DataError when a file is empty or not of its
    format as a whole.
    """
    rows = _read_hub(source) if source.uses_hub() else _read_files(source)
    for row in rows:
        if isinstance(row, BadRow) or _is_wanted(row, source):
            yield row


def _is_wanted(row: Row, source: SourceConfig) -> bool:
    return all(row.values.get(column) in values for column, values in source.where.items())


def _read_files(source: SourceConfig) -> Iterator[Row | BadRow]:
    for name, path in source.files():
        if path.stat().st_size == 0:
            raise DataError(f"{name}: the file is empty. Remove it from the sources or fill it.")
        yield from _reader(name, source)(name, path)


def _reader(name: str, source: SourceConfig) -> Callable[[str, Path], Iterator[Row | BadRow]]:
    form = source.format if source.format != "auto" else Path(name).suffix.lstrip(".")
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
    except (json.JSONDecodeError, RecursionError) as error:
        return BadRow(name, number, None, "invalid_json", f"expected a JSON object: {error}", raw)
    if not isinstance(values, dict):
        detail = f"expected a JSON object, came {type(values).__name__}"
        return BadRow(name, number, None, "not_an_object", detail, raw)
    return Row(name, number, values, raw)


def _read_csv(name: str, path: Path) -> Iterator[Row | BadRow]:
    csv.field_size_limit(2**31 - 1)  # a long document in a cell is not an error
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader)
            first = reader.line_num + 1
            for cells in reader:
                if cells:
                    yield _pair(name, first, header, cells)
                first = reader.line_num + 1
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{name}: expected a CSV file in UTF-8, came {error}. Save it as UTF-8 CSV."
        ) from error


def _pair(name: str, line: int, header: list[str], cells: list[str]) -> Row | BadRow:
    raw = json.dumps(cells, ensure_ascii=False).encode("utf-8", "surrogatepass")
    if len(cells) != len(header):
        detail = f"expected {len(header)} cells ({', '.join(header)}), came {len(cells)}"
        return BadRow(name, line, None, "wrong_number_of_cells", detail, raw)
    return Row(name, line, dict(zip(header, cells, strict=True)), raw)


def _read_parquet(name: str, path: Path) -> Iterator[Row | BadRow]:
    try:
        batches = pq.ParquetFile(path).iter_batches(batch_size=1024)
        yield from _numbered(name, (row for batch in batches for row in batch.to_pylist()))
    except pa.ArrowInvalid as error:
        raise DataError(f"{name}: expected a Parquet file, came {error}.") from error


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
