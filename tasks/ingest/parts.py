"""Each source file becomes a part: what its rows became, kept and found again.

A part is an artifact of its own, ``ingest-part/<digest>``. A small object in the store,
``ingest/parts/<key>.json``, tells where the part of a file is; its key is made of the file's
digest and name and of all that decides what its rows become. A part that is gone or corrupt is made
again. Of a file of JSON lines that grew, only what is new is read: the index also remembers, under
the same key without the digest, which part was made last.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.artifacts import SourceFile, TaskConfig
from tasks.errors import ArtifactMissingError
from tasks.example import SCHEMA, to_table
from tasks.ingest.config import SourceConfig
from tasks.ingest.examples import batches_of, examples_of
from tasks.ingest.files import local_copy
from tasks.ingest.jsonl import has_only_cr, read_json_lines, read_jsonl
from tasks.ingest.mapping import Excluded
from tasks.ingest.readers import check_version, form_of, read_file, read_path
from tasks.ingest.row_groups import RowGroupWriter
from tasks.ingest.rows import BadRow, Row
from tasks.ingest.streams import CHUNK, FileStream
from tasks.objects import Store
from tasks.storage import commit, digest_of, fetch

logger = logging.getLogger(__name__)

EXAMPLES, QUARANTINE, EXCLUDED = "examples.parquet", "quarantine.parquet", "excluded.parquet"
QUARANTINE_SCHEMA = pa.schema(
    [
        ("file", pa.string()),
        ("line", pa.int64()),
        ("field", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("raw", pa.binary()),
    ]
)
EXCLUDED_SCHEMA = pa.schema([("file", pa.string()), ("line", pa.int64()), ("reason", pa.string())])
# Which rows of a table to keep.
Keep = Callable[[pa.Table], npt.NDArray[np.bool_]]
_STAGE = "ingest-part"
_INDEX = "ingest/parts"
_PROGRESS_ROWS = 200_000


@dataclass(frozen=True, slots=True)
class Part:
    """What one file gave: a folder with its examples, its quarantine and what it leaves out.

    ``num_new`` is how many of its rows, good and bad, were read for this run.
    """

    folder: Path
    num_rows: int
    num_new: int


@dataclass(frozen=True, slots=True)
class _Lines:
    """How far a file of plain lines went: what a longer version must begin with."""

    size: int
    sha256: str
    num_lines: int


class Parts:
    """The parts in a store, made with one version of the code."""

    def __init__(self, store: Store, task: TaskConfig, code: str, keep: Keep | None = None) -> None:
        self._store, self._task, self._code, self._keep = store, task, code, keep
        self.num_left_out = 0

    def of(self, file: SourceFile, source: SourceConfig, folder: Path) -> Part:
        """The part of a file, found or made; ``folder`` is where one may be made."""
        key = self._key(source, file.name, file.digest)
        entry = self._entry(key)
        if entry is not None and (found := self._fetched(entry)) is not None:
            return Part(found, num_rows=_num_rows(found), num_new=0)
        made_in = folder / key
        made_in.mkdir()
        last = self._key(source, file.name)
        lines, num_known = self._make(file, source, made_in, self._entry(last))
        _, digest = commit(self._store, _STAGE, made_in)
        if entry is not None:  # it was known and is no longer whole, if only in a byte
            for path in made_in.iterdir():
                self._store.put(f"{_STAGE}/{digest}/{path.name}", path)
        body = json.dumps({"digest": digest, "lines": asdict(lines) if lines else None})
        self._store.put_bytes(f"{_INDEX}/{key}.json", body.encode())
        if lines is not None:
            self._store.put_bytes(f"{_INDEX}/{last}.json", body.encode())
        num_rows = _num_rows(made_in)
        return Part(made_in, num_rows, num_rows - num_known)

    def _key(self, source: SourceConfig, *file: str) -> str:
        config = source.model_copy(update={"limit": None}).fingerprint()
        return digest_of([self._code, self._task.model_dump(mode="json"), config, *file])

    def _entry(self, key: str) -> dict[str, Any] | None:
        try:
            entry = json.loads(self._store.get_bytes(f"{_INDEX}/{key}.json"))
        except (ArtifactMissingError, ValueError):
            return None
        return entry if isinstance(entry, dict) and {"digest", "lines"} <= entry.keys() else None

    def _fetched(self, entry: dict[str, Any]) -> Path | None:
        uri = f"{self._store.root}/{_STAGE}/{entry['digest']}"
        try:
            return fetch(self._store, uri, entry["digest"])
        except ArtifactMissingError as error:
            logger.warning("a part is gone from storage (%s); reading its file again", error)
            return None

    def _make(
        self, file: SourceFile, source: SourceConfig, folder: Path, last: dict[str, Any] | None
    ) -> tuple[_Lines | None, int]:
        """Write the part; answers how far its lines went and how many of its rows were known."""
        if file.kind in ("hub", "saved"):
            self._write(folder, source, read_file(file, source), file.name)
            return None, 0
        with local_copy(file) as path:
            if form_of(file, path, source) == "jsonl":
                return self._make_of_lines(file, path, source, folder, last)
            self._write(folder, source, read_path(file, path, source), file.name)
            return None, 0

    def _make_of_lines(
        self,
        file: SourceFile,
        path: Path,
        source: SourceConfig,
        folder: Path,
        last: dict[str, Any] | None,
    ) -> tuple[_Lines | None, int]:
        earlier = None
        with FileStream(file.name, path, file.size) as stream:
            begun = _Lines(**last["lines"]) if last else None
            if last and begun and _begins_with(stream, begun):
                earlier = self._fetched(last)
            if earlier is not None and begun is not None:
                limit, first = source.max_row_bytes, begun.num_lines + 1
                rows = read_json_lines(file.name, stream.chunks(), limit, first=first)
            else:
                stream.rewind()
                rows = read_jsonl(file.name, stream.text(), source.max_row_bytes)
            self._write(folder, source, rows, file.name, earlier)
        check_version(file, stream.digest)
        lines = _Lines(stream.size, stream.digest, stream.num_line_ends)
        can_grow = stream.is_plain and stream.last == b"\n" and not has_only_cr(stream.head)
        return lines if can_grow else None, _num_rows(earlier) if earlier else 0

    def _write(
        self,
        folder: Path,
        source: SourceConfig,
        rows: Iterator[Row | BadRow],
        name: str,
        earlier: Path | None = None,
    ) -> None:
        """The part of an ``earlier`` version of the file, if there is one, and these rows."""
        with (
            RowGroupWriter(folder / EXAMPLES, SCHEMA) as good,
            RowGroupWriter(folder / QUARANTINE, QUARANTINE_SCHEMA) as bad,
            RowGroupWriter(folder / EXCLUDED, EXCLUDED_SCHEMA) as out,
        ):
            if earlier is not None:
                for writer, kept in ((good, EXAMPLES), (bad, QUARANTINE), (out, EXCLUDED)):
                    for table in tables_of(earlier / kept):
                        writer.write(table)
            told = good.num_rows
            for batch in batches_of(examples_of(rows, source, self._task)):
                good.write(self._kept(to_table(batch.examples)))
                bad.write(self._kept(_table(batch.quarantined, QUARANTINE_SCHEMA)))
                out.write(_table(batch.excluded, EXCLUDED_SCHEMA))
                if good.num_rows - told >= _PROGRESS_ROWS:
                    told = good.num_rows
                    logger.info("ingest %s: %d rows so far", name, told)

    def _kept(self, table: pa.Table) -> pa.Table:
        """The rows that ``keep`` does not leave out; the others are counted."""
        kept = table if self._keep is None else table.filter(pa.array(self._keep(table)))
        self.num_left_out += table.num_rows - kept.num_rows
        return kept


def tables_of(path: Path) -> Iterator[pa.Table]:
    """The row groups of a file, one at a time."""
    with pq.ParquetFile(path) as file:
        for index in range(file.num_row_groups):
            yield file.read_row_group(index)


def _table(rows: Sequence[BadRow | Excluded], schema: pa.Schema) -> pa.Table:
    return pa.Table.from_pylist([asdict(row) for row in rows], schema)


def _begins_with(stream: FileStream, lines: _Lines) -> bool:
    """Whether the file goes on from an earlier version; the stream then stands at what is new."""
    while stream.size < lines.size and stream.read(min(CHUNK, lines.size - stream.size)):
        pass
    return (stream.size, stream.digest) == (lines.size, lines.sha256) and stream.is_plain


def _num_rows(folder: Path) -> int:
    return sum(int(pq.read_metadata(folder / name).num_rows) for name in (EXAMPLES, QUARANTINE))
