"""JSON lines -> rows. What JSON leaves open is never decided silently.

A key that stands twice, NaN, a number beyond what JSON parsers agree on and an object nested deeper
than Python can follow are bad rows; a number that a float cannot hold is kept as a ``Decimal``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from itertools import chain
from typing import Any, NoReturn

from tasks.ingest.lines import split_lines
from tasks.ingest.rows import BadRow, Row, printable, too_long
from tasks.ingest.streams import CHUNK, peek

MAX_DEPTH = 128  # a fixed one: Python's own limit depends on who calls
_MAX_EXPONENT = 400  # just beyond a float's; 1e999999999 written out would fill the memory


class JSONTextError(Exception):
    """A JSON text that cannot be read: a stable reason and what was expected."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, printable(detail)


class _DuplicateKeyError(ValueError):
    pass


class _NumberError(ValueError):
    pass


def read_jsonl(name: str, chunks: Iterator[bytes], limit: int) -> Iterator[Row | BadRow]:
    """The lines that are not blank; they end in LF, CRLF, or, where no LF is found, in CR."""
    head, chunks = peek(chunks, CHUNK)
    yield from read_json_lines(name, chunks, limit, any_end=has_only_cr(head))


def has_only_cr(head: bytes) -> bool:
    """Whether the lines of a file that begins so end in CR: that of an old Macintosh."""
    return b"\r" in head[:CHUNK] and b"\n" not in head[:CHUNK]


def read_json_lines(
    name: str, chunks: Iterator[bytes], limit: int, *, any_end: bool = False, first: int = 1
) -> Iterator[Row | BadRow]:
    """The rows of the lines, the first of which has the number ``first``."""
    for line in split_lines(chunks, limit, any_end=any_end, first=first):
        if line.size > limit:
            yield too_long(name, line.number, line.size, limit, line.raw)
        elif line.raw.strip():
            yield parse_json(name, line.number, line.raw.rstrip(b"\r\n"))


def parse_json(name: str, number: int, raw: bytes) -> Row | BadRow:
    """One JSON object as a row, its numbers and keys exactly as they were written."""
    try:
        values = decoded(raw)
    except JSONTextError as fault:
        return BadRow(name, number, None, fault.reason, f"expected {fault.detail}", raw)
    if not isinstance(values, dict):
        detail = f"expected a JSON object, came {type(values).__name__}"
        return BadRow(name, number, None, "not_an_object", detail, raw)
    return Row(name, number, values, raw)


def decoded(raw: bytes) -> Any:
    """What a JSON text says, numbers and keys as they were written; raises JSONTextError."""
    try:
        value = _DECODER.decode(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise JSONTextError("invalid_utf8", f"UTF-8: {error}") from error
    except _DuplicateKeyError as error:
        raise JSONTextError("duplicate_key", f"each key once, came {error} twice") from error
    except _NumberError as error:
        raise JSONTextError("number_out_of_range", f"a number, came {error}") from error
    except RecursionError as error:
        raise JSONTextError("too_deep", f"at most {MAX_DEPTH} levels of nesting") from error
    except ValueError as error:  # also a number of more than 4,300 digits
        reason = "nul_character" if b"\0" in raw else "invalid_json"
        raise JSONTextError(reason, f"a JSON object: {error}") from error
    if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH and _is_deeper(value, MAX_DEPTH):
        raise JSONTextError("too_deep", f"at most {MAX_DEPTH} levels of nesting")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise _DuplicateKeyError(repr(twice[:100]))
    return values


def _number(text: str) -> float | Decimal:
    """A float where it says exactly what was written, else a Decimal."""
    value = float(text)
    # 15 digits in a float's normal range always come back as they were.
    if (len(text) <= 15 and 1e-300 < abs(value) < 1e300) or repr(value) == text:
        return value
    try:
        exact = Decimal(text)
    except InvalidOperation as error:
        raise _NumberError(text[:100]) from error
    if exact and abs(exact.adjusted()) > _MAX_EXPONENT:
        raise _NumberError(text[:100])
    return value if math.isfinite(value) and Decimal(repr(value)) == exact else exact


def _constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _is_deeper(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        level = list(chain.from_iterable(map(_children, level)))
        if not level:
            return False
    return True


def _children(value: Any) -> list[Any]:
    held = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [child for child in held if isinstance(child, dict | list)]


# About half the speed of the plain decoder, and still several times that of the mapping.
_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique, parse_float=_number, parse_constant=_constant
)
