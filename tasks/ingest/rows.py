"""What readers give: a row, or a row that cannot be read and says why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Reason = str

# Of a row that is too long to be held, so much of its beginning is kept in the quarantine.
KEPT_BYTES = 64 * 1024


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


def too_long(name: str, line: int, size: int, limit: int, raw: bytes) -> BadRow:
    """A row above ``max_row_bytes``: it was skipped, and ``raw`` is only its beginning."""
    kept = raw[:KEPT_BYTES]
    detail = f"expected at most {limit} bytes, came {size}; the first {len(kept)} are kept"
    return BadRow(name, line, None, "row_too_long", detail, kept)


def printable(text: str) -> str:
    """The text as it can be written to the quarantine, which a lone surrogate cannot."""
    return text.encode("utf-8", "backslashreplace").decode()
