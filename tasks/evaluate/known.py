"""What a model generated before, in the store, by prompt: nothing is generated twice.

Answers are kept batch by batch, each batch one object that is never changed: a run that is killed
goes on where it was, a golden set that grows costs its new rows, and the champion costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from pydantic import ConfigDict, RootModel, ValidationError

from tasks.artifacts import Record
from tasks.errors import StorageError
from tasks.objects import Store
from tasks.storage import digest_of

_THREADS = 16


class Generated(Record):
    """The tokens that followed a prompt; the milliseconds only where it was asked alone."""

    ids: list[int]
    latency_ms: float | None = None


class _Batch(RootModel[dict[str, Generated]]):
    model_config = ConfigDict(frozen=True)


class KnownAnswers:
    """The answers of one model, decoded in one way, by the digest of their prompt's tokens."""

    def __init__(self, store: Store, made_by: object) -> None:
        """``made_by``: all that decides an answer besides its prompt, ready for JSON."""
        self._store = store
        self._folder = f"generated/{digest_of(made_by)}/"

    def read(self) -> dict[str, Generated]:
        """All that is known. Raises StorageError where something else stands in its place."""
        keys = list(self._store.keys_under(self._folder))
        found: dict[str, Generated] = {}
        with ThreadPoolExecutor(_THREADS) as pool:
            for batch in pool.map(self._batch, keys):
                found |= _with_times_kept(found, batch)
        return found

    def add(self, batch: Mapping[str, Generated]) -> None:
        """Keep a batch."""
        if batch:
            body = _Batch(dict(batch)).model_dump_json().encode()
            self._store.put_bytes(f"{self._folder}{digest_of(sorted(batch))}.json", body)

    def _batch(self, key: str) -> dict[str, Generated]:
        try:
            return _Batch.model_validate_json(self._store.get_bytes(key)).root
        except ValidationError as error:
            raise StorageError(
                f"{key} holds no generated answers: {error}. Delete it to generate them again."
            ) from error


def prompt_digest(prompt: Sequence[int]) -> str:
    """What a prompt is known by."""
    return digest_of(list(prompt))


def _with_times_kept(
    found: Mapping[str, Generated], batch: Mapping[str, Generated]
) -> dict[str, Generated]:
    """A batch, less what would lose the time of an answer that was timed elsewhere."""
    return {d: g for d, g in batch.items() if g.latency_ms is not None or d not in found}
