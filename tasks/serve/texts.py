"""The texts in a logged request, out of it and back in, so that they can be scrubbed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# What the task brings along, not the user, and what are names and not speech.
_KEPT = frozenset(
    {
        *("model", "tools", "functions", "response_format", "stream_options", "tool_choice"),
        *("role", "type", "id", "object", "finish_reason", "tool_call_id", "name"),
    }
)
_PARTS = ("request", "response")


def texts_of(record: dict[str, Any]) -> list[str]:
    """Everything that was said, in the order in which ``with_texts`` takes it back."""
    found: list[str] = []

    def take(text: str) -> str:
        found.append(text)
        return text

    for part in _PARTS:
        _each(record[part], take)
    return found


def with_texts(record: dict[str, Any], texts: list[str]) -> dict[str, Any]:
    """The record with other texts, as many as ``texts_of`` gave."""
    given = iter(texts)
    return {**record, **{part: _each(record[part], lambda _: next(given)) for part in _PARTS}}


def _each(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_each(item, change) for item in value]
    if isinstance(value, dict):
        return {k: item if k in _KEPT else _each(item, change) for k, item in value.items()}
    return value
