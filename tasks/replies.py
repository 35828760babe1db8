"""Replies of the Messages API in the store, by the digest of their request: none is paid twice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

from pydantic import ValidationError

from tasks.batch_api import Reply
from tasks.errors import ArtifactMissingError, StorageError
from tasks.objects import Store

_THREADS = 16


def stored_replies(store: Store, custom_ids: Iterable[str]) -> dict[str, Reply]:
    """Those of the replies that are there.

    Raises:
        StorageError: something else stands in the place of one.
    """

    def body(custom_id: str) -> bytes | None:
        try:
            return store.get_bytes(_key(custom_id))
        except ArtifactMissingError:
            return None

    wanted = list(custom_ids)
    with ThreadPoolExecutor(_THREADS) as pool:
        found = zip(wanted, pool.map(body, wanted), strict=True)
        return {i: _read(i, body) for i, body in found if body is not None}


def store_replies(store: Store, replies: Mapping[str, Reply]) -> None:
    """Keep them."""

    def put(item: tuple[str, Reply]) -> None:
        store.put_bytes(_key(item[0]), item[1].model_dump_json().encode())

    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(put, replies.items()))


def _read(custom_id: str, body: bytes) -> Reply:
    try:
        return Reply.model_validate_json(body)
    except ValidationError as error:
        raise StorageError(
            f"{_key(custom_id)} is not a reply: {error}. Delete it to ask again."
        ) from error


def _key(custom_id: str) -> str:
    return f"batches/replies/{custom_id}.json"
