"""What of a text is looked at: all of a prose text, of a JSON text its string values alone.

A name recogniser takes keys and ids for people, and a redacted key is a broken answer. So of JSON
the keys, the numbers and the form stay; names are sought in values that are sentences, and a value
that stands under a key such as "customer" and looks like a name is one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

import regex  # type: ignore[import-untyped]

from tasks.clean.pii.patterns import FULL_NAME, Found

_STRING_OR_BRACKET = re.compile(r'("(?:[^"\\]|\\.)*")(\s*:)?|[\[\]{}]')
_ARGUMENTS_DEPTH = 4  # within the list, the call, its function and its arguments
_SENTENCE = regex.compile(
    r"(?=.*\b\p{Ll})\S+(?:\s+\S+){3,}", regex.DOTALL
)  # four words, not a title
_WORD = regex.compile(r"\p{Lu}?\p{Ll}+|\p{Lu}+")
_PEOPLE = frozenset(
    {
        "name",
        "customer",
        "client",
        "contact",
        "author",
        "sender",
        "recipient",
        "person",
        "employee",
        "agent",
        "owner",
        "holder",
        "patient",
        "caller",
        "passenger",
        "guest",
        "user",
        "member",
        "beneficiary",
        "signatory",
        "from",
        "to",
    }
)
_GIVEN = frozenset({"firstname", "lastname", "forename", "surname", "givenname", "familyname"})
# "product_name" names no person.
_THINGS = frozenset(
    {
        "product",
        "company",
        "file",
        "brand",
        "item",
        "event",
        "city",
        "country",
        "team",
        "project",
        "plan",
        "model",
        "field",
        "column",
        "bank",
        "shop",
        "store",
        "street",
        "place",
        "type",
        "category",
        "app",
        "domain",
        "host",
        "class",
    }
)
_NAME = regex.compile(rf"{FULL_NAME}(?: {FULL_NAME.split('(?:')[0]})?")
_ONE_NAME = regex.compile(FULL_NAME.split("(?:")[0])
_KEY_SCORE = 0.8


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a text, decoded: a string value with its quotes, or the whole of a prose text.

    ``names`` says whether a name recogniser makes sense of it; ``found`` is what its key tells.
    """

    start: int
    end: int
    text: str
    names: bool = True
    is_value: bool = False
    found: tuple[Found, ...] = ()


def pieces_of(text: str, skipped_keys: frozenset[str] = frozenset()) -> list[Piece]:
    """The pieces of a turn, or of a JSON object of which some keys are not to be looked at."""
    return _values(text, skipped_keys) if _is_json(text) else [Piece(0, len(text), text)]


def argument_pieces(tool_calls: str) -> list[Piece]:
    """The string values in the arguments of calls: their ids and the functions' names stay.

    ``tool_calls``: the JSON text of ``Message.tool_calls``, a list of calls with a function each.
    """
    return _values(tool_calls, frozenset(), _ARGUMENTS_DEPTH)


def join(text: str, pieces: Sequence[Piece], replaced: Sequence[str]) -> str:
    """The text with its pieces replaced; what is unchanged keeps its spelling."""
    parts, at = [], 0
    for piece, changed in zip(pieces, replaced, strict=True):
        if changed == piece.text:
            continue
        new = changed
        if piece.is_value:
            new = json.dumps(new, ensure_ascii=text[piece.start : piece.end].isascii())
        parts += [text[at : piece.start], new]
        at = piece.end
    return "".join([*parts, text[at:]])


def _is_json(text: str) -> bool:
    if not text.lstrip().startswith(("{", "[")):
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _values(text: str, skipped_keys: frozenset[str], least_depth: int = 0) -> list[Piece]:
    pieces, key, depth = [], "", 0
    for match in _STRING_OR_BRACKET.finditer(text):
        if match[1] is None:
            depth += 1 if match[0] in "[{" else -1
            continue
        value = json.loads(match[1], strict=False)
        if match[2]:
            key = value
        elif key not in skipped_keys and depth >= least_depth:
            names = _SENTENCE.match(value) is not None
            pieces.append(Piece(*match.span(1), value, names, True, _by_key(key, value)))
    return pieces


def _by_key(key: str, value: str) -> tuple[Found, ...]:
    words = {word.lower() for word in _WORD.findall(key)}
    if not words & (_PEOPLE | _GIVEN | {"first", "last", "full", "given", "family"}):
        return ()
    one = "".join(_WORD.findall(key)).lower() in _GIVEN
    is_person = bool(words & _PEOPLE or one) and not words & _THINGS
    if is_person and (_NAME.fullmatch(value) or (one and _ONE_NAME.fullmatch(value))):
        return (Found(0, len(value), "PERSON", _KEY_SCORE),)
    return ()
