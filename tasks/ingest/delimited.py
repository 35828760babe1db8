"""CSV -> rows. A record may run over lines; an open quote must not swallow the file in silence."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from typing import Any

from tasks.errors import DataError
from tasks.ingest.lines import split_lines
from tasks.ingest.rows import BadRow, Row, too_long


def read_csv(name: str, chunks: Iterator[bytes], limit: int) -> Iterator[Row | BadRow]:
    """The records that are not blank, by the names in the first."""
    csv.field_size_limit(2**31 - 1)  # a long document in a cell is not an error
    lines = _Lines(name, chunks, limit)
    records = _records(name, csv.reader(lines, strict=True), lines)
    header = _header(name, next(records, None))
    for record in records:
        yield record if isinstance(record, BadRow) else _pair(name, header, *record)


class _Lines:
    """The lines as text, with those of the record that is being read kept.

    Bytes that are not UTF-8 pass as surrogates, so that they spoil their own row alone.
    """

    def __init__(self, name: str, chunks: Iterator[bytes], limit: int) -> None:
        self._name, self._limit = name, limit
        self._lines = split_lines(chunks, limit, any_end=True)
        self.skipped: list[BadRow] = []
        self.start_record()

    def start_record(self) -> None:
        self.first, self.size = 0, 0
        self.taken: list[bytes] = []

    @property
    def raw(self) -> bytes:
        return b"".join(self.taken).rstrip(b"\r\n")

    def __iter__(self) -> Iterator[str]:
        for number, raw, size, num_quotes in self._lines:
            if size > self._limit and not self.taken and num_quotes % 2 == 0:
                self.skipped.append(too_long(self._name, number, size, self._limit, raw))
                continue
            self.first = self.first or number
            self.size += size
            if self.size > self._limit:
                raise DataError(
                    f"{self._name}:{self.first}: expected a CSV record of at most {self._limit} "
                    "bytes, came more. Close the quote that is open there, or raise the source's "
                    "max_row_bytes."
                )
            self.taken.append(raw)
            yield raw.decode("utf-8", "surrogateescape")


Record = tuple[int, list[str], bytes]


def _records(name: str, reader: Any, lines: _Lines) -> Iterator[Record | BadRow]:
    """(line where it begins, cells, original bytes) of each record that is not blank."""
    while True:
        lines.start_record()
        try:
            cells = next(reader, None)
        except csv.Error as error:  # an open quote may have swallowed any number of rows
            raise DataError(
                f"{name}:{lines.first}: expected a CSV record, came {error}. Double the quotes "
                "inside a quoted cell, and close it."
            ) from error
        yield from lines.skipped
        lines.skipped.clear()
        if cells is None:
            return
        if cells:
            yield lines.first, cells, lines.raw


def _header(name: str, record: Record | BadRow | None) -> list[str]:
    cells = record[1] if isinstance(record, tuple) else []
    try:
        "".join(cells).encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"{name}: expected a header in UTF-8: {error}. Save it as UTF-8."
        ) from error
    if not cells or len(set(cells)) < len(cells):
        raise DataError(
            f"{name}: expected a first line of distinct column names, came {cells}. Correct the "
            "file's header."
        )
    return cells


def _pair(name: str, header: list[str], line: int, cells: list[str], raw: bytes) -> Row | BadRow:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return BadRow(name, line, None, "invalid_utf8", f"expected UTF-8: {error}", raw)
    if len(cells) != len(header):
        detail = f"expected {len(header)} cells ({', '.join(header)}), came {len(cells)}"
        return BadRow(name, line, None, "wrong_number_of_cells", detail, raw)
    return Row(name, line, dict(zip(header, cells, strict=True)), raw)
