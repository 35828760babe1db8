"""Rows that webhooks brought, as they stand now: numbered generations of one file each.

A generation is written once, with If-None-Match, and replaces the one before it: of two processes
that make the next one, one succeeds, and the other begins anew. Each line is a row in the form of
its tool's export, with what is needed to bring it up to date.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Literal, NamedTuple

from pydantic import Field, RootModel, ValidationError

from tasks.artifacts import Record
from tasks.errors import StorageError
from tasks.objects import Store

Hook = Literal["label-studio", "argilla", "labelbox", "s3", "generic"]
_NUMBER = re.compile(r"/(\d{8})\.jsonl$")
_PARTS = ("annotations", "responses")
_KEPT = 5  # generations; a reader that was slow finds the one that it listed


class CollectedRow(Record):
    """One row: in which generation it last changed, and when the event that did it came.

    ``versions`` tells of each of its parts, such as an annotator's answer, when its tool changed it
    last; of those too that were taken back.
    """

    id: str
    changed: int
    received: str
    versions: dict[str, str] = Field(default_factory=dict)
    row: dict[str, Any]


class Generation(NamedTuple):
    """All rows by id, and the keys of the events that they were made of since the one before."""

    number: int
    rows: dict[str, CollectedRow]
    consumed: frozenset[str] = frozenset()


class _Head(RootModel[list[str]]):
    """The first line: the keys of the events that were consumed."""


def ready(rows: Iterable[CollectedRow]) -> list[CollectedRow]:
    """Those that hold something: a row whose parts were all taken back waits for others."""
    return [r for r in rows if r.row and all(r.row.get(parts) != [] for parts in _PARTS)]


def newest_number(store: Store, hook: Hook) -> int:
    """The number of the newest generation; 0 where there is none."""
    return max(_numbers(store, hook), default=0)


def load(store: Store, hook: Hook, number: int) -> Generation:
    """A generation; the empty one for 0. Raises StorageError where something else stands there."""
    if number == 0:
        return Generation(0, {})
    key = _key(hook, number)
    head, *lines = store.get_bytes(key).splitlines()
    try:
        rows = [CollectedRow.model_validate_json(line) for line in lines]
        consumed = _Head.model_validate_json(head).root
    except ValidationError as error:
        raise StorageError(f"{key} is no generation of collected rows: {error}") from error
    return Generation(number, {row.id: row for row in rows}, frozenset(consumed))


def write(store: Store, hook: Hook, generation: Generation) -> bool:
    """Write a generation and forget the oldest; False where another wrote that number first."""
    lines: Iterable[str] = (
        _Head(sorted(generation.consumed)).model_dump_json(),
        *(row.model_dump_json() for row in generation.rows.values()),
    )
    body = "".join(f"{line}\n" for line in lines).encode()
    if not store.put_bytes(_key(hook, generation.number), body, if_absent=True):
        return False
    for number in sorted(_numbers(store, hook))[:-_KEPT]:
        store.delete(_key(hook, number))
    return True


def _numbers(store: Store, hook: Hook) -> Iterator[int]:
    for key in store.keys_under(f"collected/{hook}/"):
        if (match := _NUMBER.search(key)) is not None:
            yield int(match[1])


def _key(hook: Hook, number: int) -> str:
    return f"collected/{hook}/{number:08d}.jsonl"
