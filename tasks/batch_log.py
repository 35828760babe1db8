"""What was sent to the Batches API, kept in the object store and written before the deed.

An append-only log. Entry ``n`` is up to three objects, each written once: ``n.intent.json`` before
a batch is created, with the ids of its requests; ``n.batch.json`` after, with the API's id of it;
``n.closed.json`` when nothing more is to be had from it. A process may be killed between any two.
Numbers are taken with If-None-Match, so that two processes never write the same entry.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from tasks.errors import ArtifactMissingError
from tasks.objects import Store

_FOLDER = "batches/log"


@dataclass(frozen=True, slots=True)
class Entry:
    """A batch that was to be created; ``batch_id`` is None as long as nobody knows whether."""

    number: int
    custom_ids: tuple[str, ...]
    created_at: datetime
    batch_id: str | None = None


class BatchLog:
    """The log of one store, shared by all stages and runs."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._end = 0  # no entry from here on, as far as this process knows

    def open_entries(self) -> list[Entry]:
        """The entries that are not closed, oldest first."""
        first = self._start()
        number, closed_up_to, found = first, first, []
        while (intent := self._read(number, "intent")) is not None:
            if self._store.size(_key(number, "closed")) is None:
                batch = self._read(number, "batch") or {}
                found.append(_entry(number, intent, batch.get("id")))
            elif closed_up_to == number:
                closed_up_to += 1
            number += 1
        self._end = number
        if closed_up_to > first:
            self._write_start(closed_up_to)
        return found

    def intend(self, custom_ids: Sequence[str]) -> Entry:
        """Take the next number for a batch of these requests."""
        now = datetime.now(UTC)
        body = _json({"created_at": now.isoformat(), "custom_ids": list(custom_ids)})
        while not self._store.put_bytes(_key(self._end, "intent"), body, if_absent=True):
            self._end += 1
        return Entry(self._end, tuple(custom_ids), now)

    def confirm(self, entry: Entry, batch_id: str) -> Entry:
        """The batch was created, and this is its id."""
        self._store.put_bytes(_key(entry.number, "batch"), _json({"id": batch_id}))
        return replace(entry, batch_id=batch_id)

    def close(self, entry: Entry) -> None:
        """Nothing more is to be had: all its results are stored, or it was never created."""
        self._store.put_bytes(_key(entry.number, "closed"), b"{}")

    def _start(self) -> int:
        """The first entry that may be open; a bookmark that may lag behind but never runs ahead."""
        try:
            bookmark = json.loads(self._store.get_bytes(f"{_FOLDER}/start.json"))
        except ArtifactMissingError:
            return 0
        return int(bookmark["from"])

    def _write_start(self, number: int) -> None:
        self._store.put_bytes(f"{_FOLDER}/start.json", _json({"from": number}))

    def _read(self, number: int, what: str) -> dict[str, Any] | None:
        try:
            value: dict[str, Any] = json.loads(self._store.get_bytes(_key(number, what)))
        except ArtifactMissingError:
            return None
        return value


def _entry(number: int, intent: dict[str, Any], batch_id: str | None) -> Entry:
    created_at = datetime.fromisoformat(intent["created_at"])
    return Entry(number, tuple(intent["custom_ids"]), created_at, batch_id)


def _key(number: int, what: str) -> str:
    return f"{_FOLDER}/{number:06}.{what}.json"


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
