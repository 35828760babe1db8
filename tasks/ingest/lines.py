"""Chunks of bytes -> lines with their true numbers; one that is too long is not held."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from tasks.ingest.rows import KEPT_BYTES


class Line(NamedTuple):
    """A line with its end; when ``size`` is above the limit, ``raw`` is only its beginning."""

    number: int
    raw: bytes
    size: int
    num_quotes: int = 0  # of a line too long, for CSV


def split_lines(
    chunks: Iterable[bytes], limit: int, *, any_end: bool, first: int = 1
) -> Iterator[Line]:
    """The lines, counted from ``first``; with ``any_end`` also a lone CR ends one."""
    number, size, quotes = first, 0, 0
    held: list[bytes] = []
    ends = (b"\n", b"\r") if any_end else (b"\n",)
    for piece in _pieces(chunks, any_end=any_end):
        before, size = size, size + len(piece)
        if size <= limit:
            held.append(piece)
        else:
            if before <= limit:  # from here on nothing of the line is held
                quotes = sum(part.count(b'"') for part in held)
                held = [b"".join([*held, piece])[:KEPT_BYTES]]
            quotes += piece.count(b'"')
        if piece.endswith(ends):
            yield Line(number, b"".join(held), size, quotes)
            number, size, quotes, held = number + 1, 0, 0, []
    if size:
        yield Line(number, b"".join(held), size, quotes)


def _pieces(chunks: Iterable[bytes], *, any_end: bool) -> Iterator[bytes]:
    """Parts of lines: a line that crosses chunks comes in several, the last with its end."""
    if not any_end:
        for chunk in chunks:
            yield from io.BytesIO(chunk)
        return
    held = b""  # a CR at the end of a chunk may be half of a CRLF
    for chunk in chunks:
        whole = held + chunk
        held = b"\r" if whole.endswith(b"\r") else b""
        yield from whole[: len(whole) - len(held)].splitlines(keepends=True)
    if held:
        yield held
