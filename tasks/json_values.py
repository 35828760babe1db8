"""JSON texts compared by their content: whole values, and the (path, value) pairs of objects."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NoReturn

# The keys from the root to a value; None stands for "an element of this list".
Path = tuple[str | None, ...]


def parse(text: str) -> Any:
    """The JSON value; numbers equal by value whatever their notation (5, 5.0, 5e0).

    Raises:
        ValueError: not JSON, which has neither NaN nor Infinity.
        RecursionError: nested too deeply.
    """
    return json.loads(text, parse_float=_number, parse_constant=_refuse)


def _number(literal: str) -> int | float:
    number = float(literal)
    return int(number) if number.is_integer() else number


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def comparable(text: str) -> str:
    """Canonical JSON for an object or array, otherwise the stripped text."""
    try:
        value = parse(text)
        return canonical(value) if isinstance(value, dict | list) else text.strip()
    except (ValueError, RecursionError):
        return text.strip()


def pairs(text: str) -> set[tuple[Path, str]] | None:
    """The (path, canonical value) pairs of a JSON object; None for any other text."""
    try:
        value = parse(text)
        return set(_flatten(value, ())) if isinstance(value, dict) else None
    except (ValueError, RecursionError):
        return None


def _flatten(value: Any, path: Path) -> Iterator[tuple[Path, str]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _flatten(item, (*path, key))
    elif isinstance(value, list) and value:
        yield from (((*path, None), canonical(element)) for element in value)
    else:
        yield path, canonical(value)
