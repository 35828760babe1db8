"""A JSON file that is one array of objects, as annotation tools export it -> rows, one at a time.

A file that begins with an object instead is read as JSON lines. ``line`` is where an element
begins.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from tasks.errors import DataError
from tasks.ingest.jsonl import parse_json, read_jsonl
from tasks.ingest.rows import KEPT_BYTES, BadRow, Row, too_long
from tasks.ingest.streams import CHUNK, peek

_BLANK = b" \t\r\n"
# Where an element ends is told by brackets and commas, but for those in strings.
_OUTSIDE = re.compile(rb'["\[\]{},]')
_IN_STRING = re.compile(rb'["\\]')


def read_json(name: str, chunks: Iterator[bytes], limit: int) -> Iterator[Row | BadRow]:
    """The elements of the array; raises DataError when the array is not closed."""
    head, chunks = peek(chunks, CHUNK)
    if not head.lstrip(_BLANK).startswith(b"["):
        yield from read_jsonl(name, chunks, limit)
        return
    for element in _elements(name, chunks, limit):
        if element.size > limit:
            yield too_long(name, element.line, element.size, limit, element.raw)
        else:
            yield parse_json(name, element.line, element.raw)


@dataclass(slots=True)
class _Element:
    """What was read of one element; nothing more is held once it is above the limit."""

    limit: int
    line: int
    size: int = 0
    parts: list[bytes] = field(default_factory=list)

    def add(self, part: bytes) -> None:
        if not self.size:  # blanks before the element only move its line
            begun = part.lstrip(_BLANK)
            self.line += part.count(b"\n", 0, len(part) - len(begun))
            part = begun
        before, self.size = self.size, self.size + len(part)
        if self.size <= self.limit:
            self.parts.append(part)
        elif before <= self.limit:
            self.parts = [b"".join([*self.parts, part])[:KEPT_BYTES]]

    @property
    def raw(self) -> bytes:
        return b"".join(self.parts).rstrip(_BLANK)


def _elements(name: str, chunks: Iterator[bytes], limit: int) -> Iterator[_Element]:
    depth, in_string, escaped, num, line = 0, False, False, 0, 1
    element = _Element(limit, line)
    for chunk in chunks:
        begin, position = 0, int(escaped)
        escaped = False
        while found := (_IN_STRING if in_string else _OUTSIDE).search(chunk, position):
            token, position = found[0], found.end()
            if depth == 0 and (num or token != b"["):
                break
            if token == b"\\":  # the next byte is part of the string, whatever it is
                escaped = position == len(chunk)
                position += 1
            elif token == b'"':
                in_string = not in_string
            elif token in b"[{":
                depth += 1
                begin = position if depth == 1 else begin
            elif token in b"]}":
                depth -= 1
            if (token == b"," and depth == 1) or (depth == 0 and not in_string):
                element.add(chunk[begin : found.start()])
                num += 1
                if token == b"," or element.size or num > 1:
                    yield element
                line += chunk.count(b"\n", begin, position)
                begin = position
                element = _Element(limit, line)
        element.add(chunk[begin:])
        line += chunk.count(b"\n", begin)
    if depth or not num or element.size:
        raise DataError(
            f"{name}:{element.line}: expected one JSON array, closed at the end of the file, came "
            f"{'more after it' if num and not depth else 'none'}. Export the file anew."
        )
