"""What was asked of a fine-tuning API, kept in the object store and written before the deed.

Attempt ``n`` at a training is up to three objects under ``hosted/<key>/``, each written once:
``n.intent.json`` before a job is created, ``n.job.json`` with its id after, ``n.closed.json`` when
nothing is to be had from it. Numbers are taken with If-None-Match: of two processes only one
creates the job of an attempt. The manner is that of ``tasks/batch_log.py``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from tasks.errors import ArtifactMissingError, StorageError
from tasks.objects import Store


@dataclass(frozen=True, slots=True)
class Attempt:
    """A job that was to be created; ``job_id`` is None as long as nobody knows whether."""

    number: int
    created_at: datetime
    job_id: str | None = None


class JobLog:
    """The attempts at the training that ``key`` names."""

    def __init__(self, store: Store, key: str) -> None:
        self._store = store
        self._folder = f"hosted/{key}"
        self._next = 0

    def open_attempt(self) -> Attempt | None:
        """The attempt that is not closed, if there is one."""
        found, self._next = None, 0
        while (intent := self._read(self._next, "intent")) is not None:
            if self._store.size(self._key(self._next, "closed")) is None:
                job = self._read(self._next, "job") or {}
                created_at = datetime.fromisoformat(intent["created_at"])
                found = found or Attempt(self._next, created_at, job.get("id"))
            self._next += 1
        return found

    def intend(self) -> Attempt | None:
        """Take the number behind those that were seen; None when another process was faster."""
        now = datetime.now(UTC)
        body = {"created_at": now.isoformat()}
        if not self._write(self._next, "intent", body, if_absent=True):
            return None
        return Attempt(self._next, now)

    def confirm(self, attempt: Attempt, job_id: str) -> Attempt:
        """The job was created, and this is its id."""
        self._write(attempt.number, "job", {"id": job_id})
        return replace(attempt, job_id=job_id)

    def close(self, attempt: Attempt) -> None:
        """Nothing is to be had: the job was never created, failed or was cancelled."""
        self._write(attempt.number, "closed", {})

    def _write(self, number: int, what: str, body: Any, *, if_absent: bool = False) -> bool:
        text = json.dumps(body, separators=(",", ":")).encode()
        return self._store.put_bytes(self._key(number, what), text, if_absent=if_absent)

    def _read(self, number: int, what: str) -> dict[str, Any] | None:
        key = self._key(number, what)
        try:
            value = json.loads(self._store.get_bytes(key))
        except ArtifactMissingError:
            return None
        except ValueError as error:
            raise StorageError(
                f"{self._store.root}/{key} is not JSON ({error}). Find the job in the list of the "
                "fine-tuning API, then delete the folder to pay for a new one."
            ) from error
        if not isinstance(value, dict):
            raise StorageError(f"{self._store.root}/{key}: expected an object, came {value!r}.")
        return value

    def _key(self, number: int, what: str) -> str:
        return f"{self._folder}/{number:03}.{what}.json"
