"""Listing and deleting, the same in a folder and in S3."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tasks.objects import LocalStore, Store, open_store


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.integration)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return LocalStore(tmp_path / "store")
    request.getfixturevalue("stack")
    return open_store("s3://retune/test-objects")


def test_keys_are_listed_by_their_beginning(store: Store) -> None:
    keys = ["a/b/1", "a/b/2", "a/bc", "b/1"]
    for key in reversed(keys):
        store.put_bytes(key, b"x")
    assert list(store.keys_under("")) == keys
    assert list(store.keys_under("a/b")) == ["a/b/1", "a/b/2", "a/bc"]
    assert list(store.keys_under("a/b/")) == ["a/b/1", "a/b/2"]
    assert list(store.keys_under("no/such/")) == []


def test_a_deleted_object_is_gone_and_deleting_it_again_is_no_error(store: Store) -> None:
    store.put_bytes("d/e/1", b"x")
    store.put_bytes("d/2", b"x")
    for _ in range(2):
        store.delete("d/e/1")
    assert list(store.keys_under("d/")) == ["d/2"]
    assert store.size("d/e/1") is None


def test_an_emptied_folder_is_gone(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put_bytes("a/b/1", b"x")
    store.delete("a/b/1")
    assert list(tmp_path.iterdir()) == []


def test_what_is_being_written_is_not_listed(tmp_path: Path) -> None:
    (tmp_path / ".half.0123").write_text("x")
    assert list(LocalStore(tmp_path).keys_under("")) == []


@pytest.mark.integration
def test_more_keys_than_one_page_of_s3_are_listed(stack: Path) -> None:
    store = open_store("s3://retune/test-pages")
    for number in range(1001):
        store.put_bytes(f"{number:04}", b"")
    assert len(list(store.keys_under(""))) == 1001


def test_a_folder_that_others_fill_and_empty(tmp_path: Path) -> None:
    """A delete takes emptied folders away, under the hands of who lists and who writes."""
    store = LocalStore(tmp_path)

    def come_and_go(who: int) -> None:
        for turn in range(300):
            store.put_bytes(f"a/b/c/{who}", str(turn).encode())
            assert store.get_bytes(f"a/b/c/{who}") == str(turn).encode()
            assert set(store.keys_under("a/")) <= {f"a/b/c/{other}" for other in range(3)}
            store.delete(f"a/b/c/{who}")

    with ThreadPoolExecutor(3) as pool:
        for future in [pool.submit(come_and_go, who) for who in range(3)]:
            future.result()
    assert list(store.keys_under("")) == []
