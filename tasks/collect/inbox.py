"""Events as they came, in storage before they are acknowledged, named by what they hold.

Events that come together are written together. The same event alone is the same object however
often it comes; among others it is found again by its digest when the inbox is emptied.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from tasks.artifacts import Record
from tasks.collected import Hook
from tasks.errors import StorageError
from tasks.objects import Store
from tasks.storage import digest_of

_THREADS = 16


class Event(Record):
    """A verified body, less what must not be kept."""

    received: datetime
    digest: str
    body: dict[str, Any]

    @classmethod
    def of(cls, body: dict[str, Any], received: datetime) -> Event:
        return cls(received=received, digest=digest_of(body), body=body)


def write(store: Store, hook: Hook, events: Sequence[Event]) -> str:
    """Keep events that came together; answers their key."""
    name = events[0].digest if len(events) == 1 else digest_of([e.digest for e in events])
    key = f"{_folder(hook)}{name}.jsonl"
    body = "".join(f"{event.model_dump_json()}\n" for event in events)
    store.put_bytes(key, body.encode(), if_absent=True)
    return key


def keys(store: Store, hook: Hook) -> list[str]:
    """What waits."""
    return list(store.keys_under(_folder(hook)))


def read(store: Store, keys: Sequence[str]) -> list[Event]:
    """The events of the keys. Raises StorageError where something else stands in their place."""

    def events(key: str) -> list[Event]:
        try:
            lines = store.get_bytes(key).splitlines()
            return [Event.model_validate_json(line) for line in lines]
        except ValidationError as error:
            raise StorageError(f"{key} holds no events of a webhook: {error}") from error

    with ThreadPoolExecutor(_THREADS) as pool:
        return [event for found in pool.map(events, keys) for event in found]


def remove(store: Store, keys: Collection[str]) -> None:
    """Take what was consumed out."""
    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(store.delete, keys))


def _folder(hook: Hook) -> str:
    return f"inbox/{hook}/"
