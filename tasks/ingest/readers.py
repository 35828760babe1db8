"""Files and data sets -> rows, each with its file and line; what cannot be read says why.

Nothing is dropped here: a line is yielded either as a ``Row`` or as a ``BadRow`` that keeps the
original bytes (of a row above ``max_row_bytes`` the beginning; of UTF-16 or UTF-32 the same text in
UTF-8). Blank lines and line ends are all that is skipped. One row is held at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from tasks.artifacts import SourceFile
from tasks.errors import ConfigError, DataError
from tasks.ingest.config import SourceConfig
from tasks.ingest.delimited import read_csv
from tasks.ingest.files import find, local_copy
from tasks.ingest.hub import read_hub, read_saved
from tasks.ingest.json_array import read_json
from tasks.ingest.jsonl import read_jsonl
from tasks.ingest.parquet import MAGIC, read_parquet
from tasks.ingest.rows import BadRow, Reason, Row
from tasks.ingest.streams import FileStream
from tasks.storage import file_digest

__all__ = [
    "BadRow", "Reason", "Row", "check_version", "form_of", "read", "read_file",
    "read_path",
]  # fmt: skip

_COMPRESSED = (".gz", ".gzip", ".zst", ".zstd")
_ENDINGS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".csv": "csv"}
_TEXT: dict[str, Callable[[str, Iterator[bytes], int], Iterator[Row | BadRow]]] = {
    "jsonl": read_jsonl,
    "json": read_json,
    "csv": read_csv,
}


def read(source: SourceConfig) -> Iterator[Row | BadRow]:
    """All rows of a source in order, before ``where`` and ``limit``.

    Raises MissingFileError when no file is found, DataError when a file is empty or not of its
    format as a whole.
    """
    for file in find(source):
        yield from read_file(file, source)


def read_file(file: SourceFile, source: SourceConfig) -> Iterator[Row | BadRow]:
    """All rows of one file or data set, in the version that was found."""
    if file.kind == "hub":
        yield from read_hub(file.name, file.place, source.max_row_bytes)
    elif file.kind == "saved":
        yield from read_saved(file.name, Path(file.place), source.max_row_bytes)
    else:
        with local_copy(file) as path:
            yield from read_path(file, path, source)


def read_path(file: SourceFile, path: Path, source: SourceConfig) -> Iterator[Row | BadRow]:
    """All rows of a file that is here, checked to be the one that was found."""
    form = form_of(file, path, source)
    if form == "parquet":
        check_version(file, file_digest(path))
        yield from read_parquet(file.name, path, source.max_row_bytes)
        return
    with FileStream(file.name, path, file.size) as stream:
        yield from _TEXT[form](file.name, stream.text(), source.max_row_bytes)
    check_version(file, stream.digest)


def form_of(file: SourceFile, path: Path, source: SourceConfig) -> str:
    """How the file is to be read: by what it is, then the source's ``format``, then its ending.

    Raises DataError when it is empty, ConfigError when its form cannot be told.
    """
    if file.size == 0:
        raise DataError(f"{file.name}: the file is empty. Remove it from the sources or fill it.")
    ending = _ending(file.name)
    if _is_parquet(path) or "parquet" in (source.format, ending if source.format == "auto" else ""):
        return "parquet"
    form = source.format if source.format != "auto" else _ENDINGS.get(f".{ending}", ending)
    if form not in _TEXT:
        raise ConfigError(
            f"{file.name}: expected a .jsonl, .json, .csv or .parquet file, came {form!r}. "
            "Name the form in the source's `format`."
        )
    return form


def check_version(file: SourceFile, digest: str) -> None:
    """Raises DataError when a file's bytes are not those that were found."""
    if file.kind in ("local", "stored") and digest != file.digest:
        raise DataError(f"{file.name}: the file was changed while it was read. Run again.")


def _ending(name: str) -> str:
    path = Path(name.lower())
    if path.suffix in _COMPRESSED:
        path = path.with_suffix("")
    return path.suffix.lstrip(".")


def _is_parquet(path: Path) -> bool:
    """By the mark at both ends; at the beginning alone it may be the first column of a CSV."""
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            return False
        file.seek(-len(MAGIC), 2)
        return file.read() == MAGIC
