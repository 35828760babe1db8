"""Mark where an answer differs from the expected one: by field for JSON objects, else by word."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, Literal

from tasks.report.wording import clip

State = Literal["same", "different", "missing"]

_MAX_FIELDS = 40
_MAX_NAME_CHARACTERS = 80
_MAX_VALUE_CHARACTERS = 400
# Comparing is cubic in the words of a model that repeats itself; nobody reads further anyway.
_MAX_TEXT_CHARACTERS = 1200


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of text; ``missing`` is expected and not there."""

    text: str
    state: State = "same"


@dataclass(frozen=True, slots=True)
class Marked:
    """An answer to show: ``fields`` (name, value) of a JSON object, or else running ``pieces``."""

    fields: tuple[tuple[str, Piece], ...] = ()
    pieces: tuple[Piece, ...] = ()
    note: str = ""


def mark(expected: str, answer: str) -> Marked:
    """``answer`` with its differences from ``expected``."""
    wanted, given = _json_object(expected), _json_object(answer)
    if wanted is not None and given is not None:
        return _by_field(wanted, given)
    if not answer.strip():
        return Marked(note="empty answer")
    if wanted is not None:
        text = clip(answer, _MAX_TEXT_CHARACTERS)
        return Marked(pieces=(Piece(text, "different"),), note="not a JSON object")
    return Marked(pieces=_by_word(*(clip(t, _MAX_TEXT_CHARACTERS) for t in (expected, answer))))


def _json_object(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and value else None


def _by_field(wanted: dict[str, Any], given: dict[str, Any]) -> Marked:
    names = dict.fromkeys([*wanted, *given])
    fields = [(clip(name, _MAX_NAME_CHARACTERS), _field(name, wanted, given)) for name in names]
    left_out = len(fields) - _MAX_FIELDS
    note = f"{left_out} more fields" if left_out > 0 else ""
    return Marked(fields=tuple(fields[:_MAX_FIELDS]), note=note)


def _field(name: str, wanted: dict[str, Any], given: dict[str, Any]) -> Piece:
    state: State = "missing" if name not in given else "different"
    if name in wanted and name in given and _value(wanted[name]) == _value(given[name]):
        state = "same"
    text = _value(given[name] if name in given else wanted[name])
    return Piece(clip(text, _MAX_VALUE_CHARACTERS), state)


def _value(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _by_word(expected: str, answer: str) -> tuple[Piece, ...]:
    """Words are compared without the space behind them, which is shown as the answer has it."""
    wanted, given = (re.findall(r"\S+\s*", text) for text in (expected, answer))
    bare_wanted, bare_given = ([word.rstrip() for word in side] for side in (wanted, given))
    matcher = SequenceMatcher(None, bare_wanted, bare_given, autojunk=False)
    pieces: list[Piece] = []
    for kind, i1, i2, j1, j2 in matcher.get_opcodes():
        if kind in ("delete", "replace"):
            pieces += _stretch(wanted[i1:i2], "missing")
        if kind != "delete":
            pieces += _stretch(given[j1:j2], "same" if kind == "equal" else "different")
    return tuple(pieces)


def _stretch(words: list[str], state: State) -> list[Piece]:
    """The words as one piece, the space behind them unmarked."""
    text = "".join(words)
    marked = text.rstrip() if state != "same" else text
    space = text[len(marked) :]
    return [Piece(marked, state), *([Piece(space)] if space else [])]
