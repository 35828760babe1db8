"""The placeholders of one conversation: the same person, address or number, the same placeholder.

A name that one turn says is sought in all others, its parts too: after "Anna Berg", "Anna" alone is
the same person.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from tasks.clean.pii.find import PLACEHOLDER
from tasks.clean.pii.patterns import Found

# What stands in a name and names nobody.
_PARTICLES = frozenset(
    {
        "mr",
        "mrs",
        "ms",
        "miss",
        "dr",
        "prof",
        "sir",
        "herr",
        "frau",
        "st",
        "jr",
        "sr",
        "van",
        "von",
        "der",
        "den",
        "de",
        "da",
        "do",
        "dos",
        "del",
        "della",
        "di",
        "la",
        "le",
        "el",
        "al",
        "bin",
        "ibn",
        "und",
        "and",
        "the",
    }
)
_POSSESSIVE = re.compile(r"['’]s$")
_LINKED_SCORE = 0.0  # less than what a recogniser says of the same place
_MIN_CHARACTERS = 2  # of what is left of a find beside a better one

Key = tuple[str, ...]


class Placeholders:
    """What stands for whom; grows as further finds of the same conversation are told to it."""

    def __init__(self, texts: Iterable[str], *, numbered: bool) -> None:
        self._numbered = numbered
        self._numbers: dict[tuple[str, Key], int] = {}
        self._people: list[Key] = []
        # Placeholders that came with the text are somebody else's: their numbers are taken.
        self._used: dict[str, int] = {}
        for match in (m for text in texts for m in PLACEHOLDER.finditer(text)):
            entity, _, number = match[0][1:-1].rpartition("_")
            if number.isdigit():
                self._used[entity] = max(self._used.get(entity, 0), int(number))

    def learn(self, mentions: Sequence[tuple[str, str]]) -> None:
        """Number what (entity, text) names, in this order; short names join the longer ones."""
        people = {_key(entity, text) for entity, text in mentions if entity == "PERSON"}
        for key in sorted(people, key=lambda k: (-len(k), k)):
            if self._person(key) is None:
                self._people.append(key)
        for entity, text in mentions:
            place = entity, self._identity(entity, text)
            if place not in self._numbers:
                self._used[entity] = self._used.get(entity, 0) + 1
                self._numbers[place] = self._used[entity]

    def of(self, entity: str, text: str) -> str:
        """The placeholder of what has been learnt."""
        if not self._numbered:
            return f"<{entity}>"
        return f"<{entity}_{self._numbers[entity, self._identity(entity, text)]}>"

    def _identity(self, entity: str, text: str) -> Key:
        key = _key(entity, text)
        return (self._person(key) or key) if entity == "PERSON" else key

    def _person(self, key: Key) -> Key | None:
        words = set(key)
        return next((p for p in self._people if words <= set(p) or words >= set(p)), None)


def linked(
    texts: Sequence[str], found: Sequence[Sequence[Found]], is_allowed: Callable[[str], bool]
) -> list[list[Found]]:
    """Of each text what was found, and what else of it the other texts name; without overlaps."""
    named: dict[str, str] = {}
    for text, items in zip(texts, found, strict=True):
        for item in items:
            whole = text[item.start : item.end]
            named.setdefault(whole, item.entity)
            if item.entity == "PERSON":
                named.update((part, "PERSON") for part in _parts(whole) if not is_allowed(part))
    exact = _any_of(t for t, entity in named.items() if entity != "EMAIL_ADDRESS")
    addresses = _any_of((t for t, e in named.items() if e == "EMAIL_ADDRESS"), re.IGNORECASE)
    result = []
    for text, items in zip(texts, found, strict=True):
        linked = [
            Found(*m.span(), named.get(m[0], "EMAIL_ADDRESS"), _LINKED_SCORE)
            for pattern in (exact, addresses)
            if pattern
            for m in pattern.finditer(text)
        ]
        result.append(_resolved(text, [*items, *linked]))
    return result


def replaced(text: str, found: Sequence[Found], placeholders: Placeholders) -> str:
    """The text with its finds, which do not overlap, replaced."""
    parts, at = [], 0
    for item in found:
        stands_for = placeholders.of(item.entity, text[item.start : item.end])
        parts += [text[at : item.start], stands_for]
        at = item.end
    return "".join([*parts, text[at:]])


def _key(entity: str, text: str) -> Key:
    if entity == "PERSON":
        words = re.findall(r"\w+", _POSSESSIVE.sub("", text.casefold()))
        return tuple(w for w in words if w not in _PARTICLES) or tuple(words)
    if entity == "EMAIL_ADDRESS":
        return (text.casefold(),)
    return ("".join(c for c in text.upper() if c.isalnum()),)


def _parts(name: str) -> list[str]:
    """The words of a full name that may stand for it."""
    words = re.findall(r"[^\W\d_][\w'’-]+", _POSSESSIVE.sub("", name))
    if len(words) < 2:
        return []
    return [w for w in words if w[0].isupper() and w.lower().rstrip(".") not in _PARTICLES]


def _any_of(texts: Iterable[str], flags: int = 0) -> re.Pattern[str] | None:
    longest_first = sorted(set(texts), key=lambda t: (-len(t), t))
    either = "|".join(re.escape(text) for text in longest_first)
    return re.compile(rf"(?<!\w)(?:{either})(?!\w)", flags) if either else None


def _resolved(text: str, found: Iterable[Found]) -> list[Found]:
    """The finds in order, without overlaps: the surer one stays whole, of the other the rest."""
    taken: list[Found] = []
    for item in sorted(set(found), key=lambda f: (-f.score, f.start - f.end, f)):
        rest = [item]
        for other in taken:
            rest = [part for piece in rest for part in _without(piece, other)]
        taken += [
            part
            for part in rest
            if part == item
            or sum(c.isalnum() for c in text[part.start : part.end]) >= _MIN_CHARACTERS
        ]
    return _merged(text, sorted(taken))


def _without(item: Found, other: Found) -> list[Found]:
    if item.end <= other.start or other.end <= item.start:
        return [item]
    parts = []
    if item.start < other.start:
        parts.append(item._replace(end=other.start))
    if other.end < item.end:
        parts.append(item._replace(start=other.end))
    return parts


def _merged(text: str, found: Sequence[Found]) -> list[Found]:
    """Neighbours of the same entity are one: the rest of a name that was found in two parts."""
    merged: list[Found] = []
    for item in found:
        last = merged[-1] if merged else None
        if (
            last
            and last.entity == item.entity == "PERSON"
            and text[last.end : item.start] in ("", " ", "-")
        ):
            merged[-1] = last._replace(end=item.end)
        else:
            merged.append(_trimmed(text, item))
    return merged


def _trimmed(text: str, item: Found) -> Found:
    """Without the white space that a cut left at the ends."""
    start, end = item.start, item.end
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return item._replace(start=start, end=end)
