"""Checkpoints on their way: nothing that the store does holds up or ends a training."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from tasks.errors import StorageError
from tasks.objects import LocalStore
from tasks.train.adapters import weights_digest
from tasks.train.finetune import finetune
from tasks.train.job import Job
from tasks.train.resume.checkpoints import CheckpointStore
from tasks.train.resume.uploads import Uploader
from tests.checkpoints import weight_of, write_checkpoint

KEY = "0123abcd"
FULL = StorageError("Could not write: No space left on device.")
BUSY = ClientError(
    {"Error": {"Code": "SlowDown"}, "ResponseMetadata": {"HTTPStatusCode": 503}}, "PutObject"
)


class Store(LocalStore):
    """Raises what ``fault`` answers for each write, if anything; waits for ``gate``."""

    def __init__(self, root: Path, fault: Callable[[int], Exception | None] = lambda n: None):
        super().__init__(root)
        self.gate = threading.Event()
        self.gate.set()
        self.writing = threading.Event()
        self.num_writes = 0
        self.fault = fault

    def put(self, key: str, source: Path) -> None:
        self._before()
        super().put(key, source)

    def put_bytes(self, key: str, body: bytes, *, if_absent: bool = False) -> bool:
        self._before()
        return super().put_bytes(key, body, if_absent=if_absent)

    def _before(self) -> None:
        self.writing.set()
        assert self.gate.wait(30)
        self.num_writes += 1
        if (error := self.fault(self.num_writes)) is not None:
            raise error


def uploader(store: LocalStore, tmp_path: Path) -> Uploader:
    return Uploader(CheckpointStore(store, KEY), tmp_path / "uploads", first_delay=0.001)


def submit(up: Uploader, tmp_path: Path, step: int, best: int | None = None) -> None:
    """As the Trainer does, whose rotation takes the checkpoint away right after."""
    folder = write_checkpoint(tmp_path / "trainer", step, best)
    up.submit(folder, step, best)
    shutil.rmtree(folder)


def newest(store: LocalStore, tmp_path: Path) -> tuple[int, float] | None:
    found = CheckpointStore(LocalStore(Path(store.root)), KEY).restore(tmp_path / "out")
    return None if found is None else (found.step, weight_of(found.folder))


def test_what_is_submitted_is_stored_and_nothing_is_left_here(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    up = uploader(store, tmp_path)
    for step in (10, 20, 30):
        submit(up, tmp_path, step)
        while step not in up.stored_steps:
            time.sleep(0.01)
    up.close(wait=True)
    assert (up.stored_steps, up.notes) == ([10, 20, 30], [])
    assert newest(store, tmp_path) == (30, 30.0)
    assert not (tmp_path / "uploads").exists()


def test_a_slow_store_holds_nothing_up_and_the_best_is_not_given_up(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.gate.clear()
    up = uploader(store, tmp_path)
    submit(up, tmp_path, 10, 10)
    assert store.writing.wait(30)
    for step, best in ((20, 20), (30, 20), (40, 20)):
        submit(up, tmp_path, step, best)
    store.gate.set()
    up.close(wait=True)
    assert up.stored_steps == [10, 20, 40]
    assert up.notes == [
        "The checkpoint of step 30 was not stored: that of step 40 came before its turn."
    ]
    assert newest(store, tmp_path) == (40, 40.0)
    assert up.held_seconds < up.upload_seconds


def test_what_passes_is_tried_again_and_needs_no_note(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", lambda n: BUSY if n <= 4 else None)
    up = uploader(store, tmp_path)
    submit(up, tmp_path, 10)
    up.close(wait=True)
    assert (up.stored_steps, up.notes) == ([10], [])
    assert newest(store, tmp_path) == (10, 10.0)


def test_a_store_that_stays_busy_is_given_up_and_told(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", lambda n: BUSY)
    up = uploader(store, tmp_path)
    submit(up, tmp_path, 10)
    up.close(wait=True)
    assert up.stored_steps == []
    assert store.num_writes == 6
    (note,) = up.notes
    assert note.startswith("The checkpoint of step 10 could not be stored: ")
    assert note.endswith("; training went on.")


def test_a_full_store_is_not_asked_again_until_the_next_one(tmp_path: Path) -> None:
    """The best one failed for want of space: it is stored once there is some."""
    store = Store(tmp_path / "store", lambda n: FULL if n == 1 else None)
    up = uploader(store, tmp_path)
    submit(up, tmp_path, 10, 10)
    while not up.notes:
        time.sleep(0.01)
    submit(up, tmp_path, 20, 10)
    up.close(wait=True)
    assert up.stored_steps == [10, 20]
    assert up.notes == [
        "The checkpoint of step 10 could not be stored: Could not write: No space left on device."
        "; training went on."
    ]
    assert newest(store, tmp_path) == (20, 20.0)


def test_what_waits_at_the_end_is_told(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.gate.clear()
    up = uploader(store, tmp_path)
    submit(up, tmp_path, 10)
    assert store.writing.wait(30)
    submit(up, tmp_path, 20)
    threading.Timer(0.2, store.gate.set).start()
    up.close(wait=False)
    assert up.stored_steps == [10]
    assert up.notes == ["The checkpoint of step 20 was not stored: training ended."]


def test_training_goes_on_with_a_full_store_to_the_same_end(
    job: Callable[..., Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def quiet(metrics: dict[str, float], step: int, share: float) -> None:
        """Progress that nobody looks at."""

    whole = finetune(job("whole", epochs=2), quiet)
    full = Store(tmp_path / "full-store", lambda n: FULL)
    monkeypatch.setattr("tasks.train.finetune.open_store", lambda: full)
    training = finetune(job("full", epochs=2), quiet)
    assert weights_digest(tmp_path / "full") == weights_digest(tmp_path / "whole")
    assert whole.notes == []
    assert any("No space left on device" in note for note in training.notes)
    assert training.num_steps == whole.num_steps
