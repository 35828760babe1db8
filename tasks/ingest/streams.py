"""The bytes of a file, decompressed and in UTF-8: by what they are, not by the file's name.

Everything is read in chunks of a mebibyte, once, and hashed on the way, so that the caller can tell
whether the file is still the one that was listed.
"""

from __future__ import annotations

import codecs
import hashlib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Self

import pyarrow as pa

from tasks.errors import DataError

CHUNK = 2**20
_COMPRESSIONS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_UNREADABLE = {b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"PK\x03\x04": "zip", b"\x04\x22\x4d\x18": "lz4"}
# The longer marks first: that of UTF-32 begins like that of UTF-16.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


class FileStream:
    """The first ``size`` bytes of a file: those that were listed, should it have grown since."""

    def __init__(self, name: str, path: Path, size: int) -> None:
        self.name = name
        self._file = path.open("rb")
        self._whole = size
        self.rewind()

    def rewind(self) -> None:
        """Start again from the first byte."""
        self._file.seek(0)
        self._left = self._whole
        self.size = 0
        self.num_line_ends = 0
        self.head = b""
        self.last = b""
        self._hash = hashlib.sha256()

    @property
    def digest(self) -> str:
        """SHA-256 of what was read so far."""
        return self._hash.hexdigest()

    @property
    def is_plain(self) -> bool:
        """Whether its lines are lines of the file: neither compressed nor of wide characters."""
        wide = _mark(self.head) not in (None, "utf-8")
        return _magic(self.head, _COMPRESSIONS) is None and not wide

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(min(size if size >= 0 else self._left, self._left))
        self._left -= len(data)
        self._hash.update(data)
        self.size += len(data)
        self.num_line_ends += data.count(b"\n")
        self.head = self.head or data
        self.last = data[-1:] or self.last
        return data

    def chunks(self) -> Iterator[bytes]:
        """What is left of the file as it is."""
        return iter(lambda: self.read(CHUNK), b"")

    def text(self) -> Iterator[bytes]:
        """The whole file, decompressed, its byte order mark removed, in UTF-8.

        Raises DataError when the compression is cut, corrupt or not known.
        """
        first = self.read(max(CHUNK, 8))
        if (form := _magic(first, _UNREADABLE)) is not None:
            raise DataError(
                f"{self.name}: expected plain text, gzip or zstd, came {form}. Compress it anew."
            )
        if (compression := _magic(first, _COMPRESSIONS)) is None:
            return _as_utf8(self.name, chain([first], self.chunks()))
        return _as_utf8(self.name, self._decompressed(first, compression))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _decompressed(self, first: bytes, compression: str) -> Iterator[bytes]:
        source = pa.PythonFile(_Replayed(first, self), mode="r")
        try:
            with pa.CompressedInputStream(source, compression) as stream:
                yield from iter(lambda: stream.read(CHUNK), b"")
        except (OSError, pa.ArrowException) as error:
            raise DataError(
                f"{self.name}: the {compression} stream is cut or corrupt ({error}). Copy the file "
                "anew."
            ) from error


class _Replayed:
    """A stream whose first bytes were read already."""

    def __init__(self, first: bytes, rest: FileStream) -> None:
        self._first, self._rest = first, rest
        self.closed = False

    def read(self, size: int = -1) -> bytes:
        if not self._first:
            return self._rest.read(size)
        size = len(self._first) if size < 0 else size
        data, self._first = self._first[:size], self._first[size:]
        return data

    def close(self) -> None:
        self.closed = True


def peek(chunks: Iterator[bytes], size: int) -> tuple[bytes, Iterator[bytes]]:
    """The first ``size`` bytes or more, if there are so many, and all chunks again."""
    head = b""
    while len(head) < size and (chunk := next(chunks, b"")):
        head += chunk
    return head, chain([head] if head else [], chunks)


def _as_utf8(name: str, chunks: Iterator[bytes]) -> Iterator[bytes]:
    head, chunks = peek(chunks, 4)
    encoding = _mark(head)
    if encoding in (None, "utf-8"):
        skip = len(codecs.BOM_UTF8) if encoding else 0
        next(chunks, b"")
        yield from filter(None, chain([head[skip:]], chunks))
        return
    # A lone surrogate passes, so that it spoils its own row alone.
    decoder = codecs.getincrementaldecoder(str(encoding))("surrogatepass")
    try:
        for chunk in chunks:
            yield decoder.decode(chunk).encode("utf-8", "surrogatepass")
        yield decoder.decode(b"", final=True).encode("utf-8", "surrogatepass")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{name}: expected {encoding}, as its byte order mark says, came {error.reason}. Save "
            "the file as UTF-8."
        ) from error


def _mark(head: bytes) -> str | None:
    return _magic(head, _MARKS)


def _magic(head: bytes, known: dict[bytes, str]) -> str | None:
    return next((form for magic, form in known.items() if head.startswith(magic)), None)
