"""Tombstones: what was forgotten, in a form that still recognises it and does not say what it was.

An identifier or a text is a sequence of words, kept as their number and the HMAC-SHA256 of the
sequence under a random salt of the store. A row holds it when the same words follow each other in
any of its texts, whatever the case, punctuation and white space. An example is kept by its id.

The salt lies in the same store, since every run needs it: whoever can read the store can still try
out guesses. It keeps tombstones of two stores, and lists made elsewhere, from being compared.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tasks.errors import ConfigError, StorageError
from tasks.objects import Store
from tasks.storage import digest_of
from tasks.words import (
    PREFIX_BITS,
    PREFIX_WORDS,
    Candidate,
    Texts,
    prefix_hash,
    texts_of,
    words,
)

PREFIX = "tombstones/"
_SALT = f"{PREFIX}salt"
_ROWS_A_CHUNK = 4096
Mask = npt.NDArray[np.bool_]


class Phrase(NamedTuple):
    """A sequence of words, one way: how many, the HMAC of all, and a short hash of the first few.

    The short hash only says where the long one is worth computing.
    """

    num_words: int
    prefix: int
    hmac: str


@dataclass(frozen=True)
class Tombstones:
    """What no row of a snapshot may hold."""

    salt: bytes
    phrases: frozenset[Phrase] = frozenset()
    ids: frozenset[str] = frozenset()

    @classmethod
    def load(cls, store: Store) -> Tombstones:
        """All tombstones of a store; raises StorageError where one is corrupt."""
        records = [_read(store, key) for key in _keys(store)]
        if not records:
            return cls(b"")
        phrases = {Phrase(*phrase) for record in records for phrase in record["phrases"]}
        ids = {identity for record in records for identity in record["ids"]}
        return cls(store.get_bytes(_SALT), frozenset(phrases), frozenset(ids))

    @classmethod
    def of(cls, salt: bytes, texts: Iterable[str], ids: Iterable[str] = ()) -> Tombstones:
        """The tombstones of identifiers or texts and of example ids.

        Raises ConfigError for one without a letter or a digit, which would be in every row.
        """
        phrases = set()
        for number, text in enumerate(texts, start=1):
            found = words(text)
            if not found:
                raise ConfigError(
                    f"Number {number} of what is to be forgotten has no letter and no digit. "
                    "Give a name, an address, a number or a text."
                )
            phrases.add(_phrase(salt, found))
        return cls(salt, frozenset(phrases), frozenset(ids))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of what is forgotten, for cache keys; without tombstones always the same."""
        return digest_of([sorted(self.phrases), sorted(self.ids)])

    def matches(self, table: pa.Table) -> Mask:
        """Which rows hold something forgotten, in any column of texts or bytes."""
        if not self.phrases and not self.ids:
            return np.zeros(table.num_rows, dtype=bool)
        batches = table.to_batches(max_chunksize=_ROWS_A_CHUNK)
        return np.concatenate([np.zeros(0, dtype=bool), *map(self._matches_batch, batches)])

    def matches_text(self, text: str | bytes) -> bool:
        """Whether a text, or bytes in an encoding to be guessed, holds something forgotten."""
        kind = pa.large_string() if isinstance(text, str) else pa.large_binary()
        return bool(self.matches(pa.table({"text": pa.array([text], kind)}))[0])

    def _matches_batch(self, batch: pa.RecordBatch) -> Mask:
        if "id" not in batch.schema.names or batch.schema.field("id").type != pa.string():
            return self._everywhere.matches(batch)
        # A row that only mentions another's id, as near-duplicates do, is not that other row.
        is_named = pc.is_in(batch.column("id"), pa.array(sorted(self.ids), pa.string()))
        named = np.asarray(is_named.to_numpy(zero_copy_only=False), dtype=bool)
        return named | self._in_texts.matches(batch)

    @cached_property
    def _in_texts(self) -> _Index:
        return _Index(self.salt, self.phrases)

    @cached_property
    def _everywhere(self) -> _Index:
        """Where no column names the example, its id is a word like any other."""
        return _Index(self.salt, self.phrases | {_phrase(self.salt, words(i)) for i in self.ids})


class _Index:
    """Phrases by the hash of their first words."""

    def __init__(self, salt: bytes, phrases: Iterable[Phrase]) -> None:
        self._salt = salt
        self._hmacs: dict[int, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
        self._hashes = np.zeros(1 << PREFIX_BITS, dtype=bool)
        self._lengths = np.zeros(PREFIX_WORDS + 1, dtype=bool)
        for phrase in phrases:
            self._hmacs[phrase.prefix][phrase.num_words].add(phrase.hmac)
            self._hashes[phrase.prefix] = True
            self._lengths[min(phrase.num_words, PREFIX_WORDS)] = True

    def matches(self, batch: pa.RecordBatch) -> Mask:
        """Which rows hold one of the phrases."""
        found = np.zeros(batch.num_rows, dtype=bool)
        if not self._hmacs:
            return found
        for texts in texts_of(batch):
            for at in texts.candidates(self._hashes, self._lengths, _seed(self._salt)):
                row = texts.row_of[at.text]
                if not found[row]:
                    found[row] = self._is_at(texts, at)
        return found

    def _is_at(self, texts: Texts, at: Candidate) -> bool:
        """Whether one of the phrases with this hash of its first words begins here in full."""
        phrases = self._hmacs[at.prefix]
        following = texts.words_from(at.text, at.start, max(phrases))
        return any(
            num_words <= len(following) and _hmac(self._salt, following[:num_words]) in hmacs
            for num_words, hmacs in phrases.items()
        )


def has_salt(store: Store) -> bool:
    """Whether anything was ever to be forgotten in this store."""
    return store.size(_SALT) is not None


def salt_of(store: Store, *, create: bool) -> bytes:
    """The store's salt, made once; where there is none and none is to be made, one for now."""
    if not has_salt(store):
        made = secrets.token_bytes(32)
        if not create:
            return made
        store.put_bytes(_SALT, made, if_absent=True)
    return store.get_bytes(_SALT)


def bury(store: Store, forgotten: Tombstones, links: Iterable[str]) -> str:
    """Keep what a request forgets, for good; answers the object's key. Safe to repeat.

    ``links`` are the ids of the rows that held it. They forbid nothing: two people may have asked
    the same. They lead to redacted copies once the rows themselves are erased.
    """
    record = {
        "request": forgotten.digest,
        "phrases": sorted(forgotten.phrases),
        "ids": sorted(forgotten.ids),
        "links": sorted(set(links)),
    }
    body = json.dumps(record, sort_keys=True, indent=1).encode()
    key = f"{PREFIX}{hashlib.sha256(body).hexdigest()}.json"
    store.put_bytes(key, body, if_absent=True)
    return key


def links_of(store: Store, request: str) -> set[str]:
    """The ids of all rows that were ever found for a request."""
    records = (_read(store, key) for key in _keys(store))
    return {i for record in records if record["request"] == request for i in record["links"]}


def _keys(store: Store) -> list[str]:
    return [key for key in store.keys_under(PREFIX) if key.endswith(".json")]


def _read(store: Store, key: str) -> dict[str, Any]:
    body = store.get_bytes(key)
    if f"{PREFIX}{hashlib.sha256(body).hexdigest()}.json" != key:
        raise StorageError(
            f"{store.root}/{key} is corrupt: its content has another SHA-256. Restore it from a "
            "backup: without it, a run could bring back what was forgotten."
        )
    record: dict[str, Any] = json.loads(body)
    return record


def _phrase(salt: bytes, found: Sequence[str]) -> Phrase:
    return Phrase(len(found), prefix_hash(found, _seed(salt)), _hmac(salt, found))


def _seed(salt: bytes) -> int:
    return int.from_bytes(hmac.digest(salt, b"first words", "sha256")[:8], "big")


def _hmac(salt: bytes, found: Sequence[str]) -> str:
    return hmac.digest(salt, " ".join(found).encode(), "sha256").hex()
