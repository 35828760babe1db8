"""Rows that webhooks brought, as they stand now: numbered generations of one file each.

A generation is written once, with If-None-Match: of two processes that make the next one, one
succeeds, and the other begins anew. It holds the rows that changed since the one before it, and now
and then all of them, so that what is written is as much as what came. Each line is a row in the
form of its tool's export, with what is needed to bring it up to date.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from typing import Any, Literal, NamedTuple

from pydantic import Field, ValidationError

from tasks.artifacts import Record
from tasks.errors import StorageError
from tasks.objects import Store

Hook = Literal["label-studio", "argilla", "labelbox", "s3", "generic"]
_NUMBER = re.compile(r"/(\d{8})\.jsonl$")
_PARTS = ("annotations", "responses")
_MOST_FILES = 50  # of changed rows alone, read after one that holds all


class CollectedRow(Record):
    """One row: in which generation it last changed, and when the first event came that did so after
    a run was last started.

    ``versions`` tells of each of its parts, such as an annotator's answer, when its tool changed it
    last; of those too that were taken back.
    """

    id: str
    changed: int
    received: str
    versions: dict[str, str] = Field(default_factory=dict)
    row: dict[str, Any]


class Generation(NamedTuple):
    """All rows by id, and the keys of the events that were consumed since the one before.

    The rows stand in the files from ``base``, which holds all, to ``number``; ``num_changed`` of
    them in those after the base.
    """

    number: int
    rows: dict[str, CollectedRow]
    consumed: frozenset[str] = frozenset()
    base: int = 0
    num_changed: int = 0


class _Head(Record):
    """The first line of a file."""

    base: int
    consumed: list[str]


def ready(rows: Iterable[CollectedRow]) -> list[CollectedRow]:
    """Those that hold something: a row whose parts were all taken back waits for others."""
    return [r for r in rows if r.row and all(r.row.get(parts) != [] for parts in _PARTS)]


def newest_number(store: Store, hook: Hook) -> int:
    """The number of the newest generation; 0 where there is none."""
    return max(_numbers(store, hook), default=0)


def load(store: Store, hook: Hook, number: int) -> Generation:
    """A generation; the empty one for 0.

    Raises:
        StorageError: something else stands in the place of one.
        ArtifactMissingError: it grew old, and was removed.
    """
    if number == 0:
        return Generation(0, {})
    head, changed = _read(store, _key(hook, number))
    rows: dict[str, CollectedRow] = {}
    num_changed = 0
    for earlier in range(head.base, number):
        part = _read(store, _key(hook, earlier))[1]
        rows |= part
        num_changed += len(part) if earlier > head.base else 0
    num_changed += len(changed) if number > head.base else 0
    return Generation(number, rows | changed, frozenset(head.consumed), head.base, num_changed)


def write(
    store: Store,
    hook: Hook,
    known: Generation,
    rows: dict[str, CollectedRow],
    changed: Collection[str],
    consumed: Collection[str],
) -> Generation | None:
    """Write the generation after ``known``; None where another wrote one under that number first.

    ``changed`` are the ids of the rows that differ from the known ones.
    """
    number, num_changed = known.number + 1, known.num_changed + len(changed)
    whole = known.base == 0 or num_changed > len(rows) or number - known.base >= _MOST_FILES
    made = Generation(
        number,
        rows,
        frozenset(consumed),
        number if whole else known.base,
        0 if whole else num_changed,
    )
    held = rows.values() if whole else (rows[row_id] for row_id in changed)
    head = _Head(base=made.base, consumed=sorted(consumed))
    lines = [head.model_dump_json(), *(row.model_dump_json() for row in held)]
    body = "".join(f"{line}\n" for line in lines).encode()
    if not store.put_bytes(_key(hook, number), body, if_absent=True):
        return None
    if whole:
        # Whoever listed the files a while ago still finds those that belong to the last base.
        for old in [n for n in _numbers(store, hook) if n < known.base]:
            store.delete(_key(hook, old))
    return made


def _read(store: Store, key: str) -> tuple[_Head, dict[str, CollectedRow]]:
    first, *lines = store.get_bytes(key).splitlines()
    try:
        rows = [CollectedRow.model_validate_json(line) for line in lines]
        return _Head.model_validate_json(first), {row.id: row for row in rows}
    except ValidationError as error:
        raise StorageError(f"{key} is no generation of collected rows: {error}") from error


def _numbers(store: Store, hook: Hook) -> Iterator[int]:
    for key in store.keys_under(f"collected/{hook}/"):
        if (match := _NUMBER.search(key)) is not None:
            yield int(match[1])


def _key(hook: Hook, number: int) -> str:
    return f"collected/{hook}/{number:08d}.jsonl"
