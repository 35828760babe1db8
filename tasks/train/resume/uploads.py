"""Checkpoints on their way to the store, while training goes on.

The training thread only gives the checkpoint's files second names (hard links), so that the
Trainer's rotation cannot take them away; one background thread makes the safe form, uploads it and
deletes old ones. Nothing that goes wrong here stops a training: it becomes a note.
"""

from __future__ import annotations

import logging
import random
import shutil
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import distributed
from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from tasks.errors import is_transient
from tasks.train.resume.checkpoints import STORE_ERRORS, CheckpointStore
from tasks.train.resume.codec import encode, link_or_copy

logger = logging.getLogger(__name__)
_MOST_DELAY_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class _Item:
    """A checkpoint to upload: its files, and the step of the best one when it was made."""

    step: int
    best_step: int | None
    folder: Path


class Uploader:
    """Uploads checkpoints one after the other; the newest, and the best one, matter.

    ``folder`` takes their files meanwhile, best on the file system of the Trainer's output. When
    what failed may pass, an upload is tried ``attempts`` times, ``first_delay`` seconds apart, then
    twice as long each time: six attempts bridge about half a minute.

    ``notes`` tells what a report should, each once. ``stored_steps`` are those in the store,
    ``held_seconds`` is how long the training thread was kept, ``upload_seconds`` how long the
    background thread worked or waited for another attempt.
    """

    def __init__(
        self,
        checkpoints: CheckpointStore,
        folder: Path,
        *,
        attempts: int = 6,
        first_delay: float = 1.0,
    ) -> None:
        self.notes: list[str] = []
        self.stored_steps: list[int] = []
        self.held_seconds = 0.0
        self.upload_seconds = 0.0
        self._checkpoints = checkpoints
        self._folder = folder
        self._attempts = attempts
        self._first_delay = first_delay
        self._changed = threading.Condition()
        self._waiting: list[_Item] = []
        self._failed: _Item | None = None  # kept until the next one: it may be the best
        self._busy = False
        self._ended = False
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def submit(self, checkpoint: Path, step: int, best_step: int | None) -> None:
        """Take ``checkpoint`` as it is now and upload it later.

        One that still waits gives way, unless it is the best: later ones cannot be resumed from
        without it. Never raises for what the disk or the store does.
        """
        started = time.monotonic()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(dir=self._folder, prefix=f"step-{step}-"))
            _link_all(checkpoint, folder / "trainer")
        except OSError as error:
            self._note_failure(step, error)
        else:
            self._enqueue(_Item(step, best_step, folder))
        self.held_seconds += time.monotonic() - started

    def close(self, wait: bool, timeout: float | None = None) -> None:
        """End: with all that waits stored, or with only what is being uploaded now.

        Returns after ``timeout`` seconds at the latest; what was not stored by then is noted. None
        waits as long as it takes.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            if wait:
                self._changed.wait_for(self._is_idle, timeout)
            self._stop.set()
            for item in self._waiting:
                self._note(f"The checkpoint of step {item.step} was not stored: training ended.")
            self._waiting.clear()
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
            if self._thread.is_alive():
                self._note("A checkpoint was still being stored when training ended.")
                return
        shutil.rmtree(self._folder, ignore_errors=True)

    def _is_idle(self) -> bool:
        return self._ended or not (self._waiting or self._busy)

    def _enqueue(self, item: _Item) -> None:
        with self._changed:
            best: list[_Item] = []
            others: list[_Item] = []
            for one in self._waiting:
                (best if one.step == item.best_step else others).append(one)
            for one in others:
                self._note(
                    f"The checkpoint of step {one.step} was not stored: that of step {item.step} "
                    "came before its turn."
                )
            if self._failed is not None:
                (best if self._failed.step == item.best_step else others).append(self._failed)
                self._failed = None
            for one in others:
                shutil.rmtree(one.folder, ignore_errors=True)
            self._waiting = [*best, item]
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="checkpoints", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def _work(self) -> None:
        try:
            while (item := self._next()) is not None:
                started = time.monotonic()
                is_stored = self._upload(item)
                with self._changed:
                    self.upload_seconds += time.monotonic() - started
                    done = item if is_stored else self._failed
                    self._failed = self._failed if is_stored else item
                    self._busy = False
                    self._changed.notify_all()
                if done is not None:
                    shutil.rmtree(done.folder, ignore_errors=True)
        finally:
            with self._changed:
                if self._busy:  # an error that is no trouble of storage: see the log
                    self._note("Storing checkpoints ended with an error; training went on.")
                self._ended = True
                self._changed.notify_all()

    def _next(self) -> _Item | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._stop.is_set())
            if not self._waiting:
                return None
            self._busy = True
            return self._waiting.pop(0)

    def _upload(self, item: _Item) -> bool:
        safe = item.folder / "safe"
        try:
            shutil.rmtree(safe, ignore_errors=True)  # of an upload that failed before
            encode(item.folder / "trainer", safe)
            self._save(safe, item.step)
        except STORE_ERRORS as error:
            self._note_failure(item.step, error)
            return False
        self.stored_steps.append(item.step)
        try:
            self._checkpoints.prune([] if item.best_step is None else [item.best_step])
        except STORE_ERRORS as error:
            self._note(f"Old checkpoints could not be deleted: {error}")
        return True

    def _save(self, safe: Path, step: int) -> None:
        for attempt in range(1, self._attempts + 1):
            try:
                self._checkpoints.save(safe, step)
            except STORE_ERRORS as error:
                if not is_transient(error) or attempt == self._attempts or self._stop.is_set():
                    raise
                delay = min(_MOST_DELAY_SECONDS, self._first_delay * 2 ** (attempt - 1))
                delay *= random.uniform(0.5, 1.0)  # noqa: S311
                logger.warning("Step %d: %s; trying again in %.1f s.", step, error, delay)
                self._stop.wait(delay)
            else:
                return

    def _note_failure(self, step: int, error: BaseException) -> None:
        self._note(f"The checkpoint of step {step} could not be stored: {error}; training went on.")

    def _note(self, text: str) -> None:
        with self._changed:
            if text not in self.notes:
                logger.warning(text)
                self.notes.append(text)


class CheckpointCallback(TrainerCallback):
    """Submits every checkpoint that the Trainer saves; to be given to all its processes."""

    def __init__(self, uploader: Uploader) -> None:
        self._uploader = uploader

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The first process submits, once the others have written what their generators hold."""
        if distributed.is_available() and distributed.is_initialized():
            distributed.barrier()
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
            self._uploader.submit(folder, state.global_step, state.best_global_step)


def _link_all(source: Path, target: Path) -> None:
    shutil.copytree(source, target, copy_function=link_or_copy)
