"""Checkpoints of a training in a store -> the folder that the next attempt resumes from.

``checkpoints/<key>/step-<step>/<digest>/`` holds one in its safe form (codec.py), its
manifest written last: what a killed upload left has none and is passed over. ``key`` names the
training by data and settings, so that another machine finds what this one stored.

Two trainings with one key disturb each other only in that one may delete what the other would have
resumed from; each has its own folders, unless they hold the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from boto3.exceptions import Boto3Error
from botocore.exceptions import BotoCoreError, ClientError
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from tasks.errors import ArtifactMissingError, is_transient
from tasks.objects import Store
from tasks.storage import MANIFEST, commit, file_digest
from tasks.train.resume.codec import (
    TRAINER_STATE,
    decode,
    is_training_state,
    parse_state,
    read_state,
)

logger = logging.getLogger(__name__)
# What a store raises: Retune's own words for what lasts (an OSError), the client's for what passes.
STORE_ERRORS = (OSError, ClientError, BotoCoreError, Boto3Error)
_NUM_KEPT = 2
_ADDRESS = re.compile(r"step-(\d+)/([0-9a-f]{64})/(.+)")


@dataclass(frozen=True, slots=True)
class Restored:
    """A checkpoint to resume from: ``Trainer.train(resume_from_checkpoint=folder)``.

    The best one so far, by the metric that training chooses by, lies beside it, as
    ``load_best_model_at_end`` expects; ``best_step`` is None where there was none yet.
    """

    step: int
    folder: Path
    best_step: int | None


@dataclass(frozen=True, slots=True, order=True)
class _Stored:
    """One checkpoint in the store, whole or not."""

    step: int
    digest: str
    names: frozenset[str]

    @property
    def is_complete(self) -> bool:
        return MANIFEST in self.names


class CheckpointStore:
    """The checkpoints of the training that ``key`` names.

    ``notes`` tells what a report should: checkpoints that could not be used, each once.
    """

    def __init__(self, store: Store, key: str) -> None:
        self.notes: list[str] = []
        self._store = store
        self._prefix = f"checkpoints/{key}"

    def save(self, folder: Path, step: int) -> str:
        """Store the safe form of a checkpoint; answers its digest. Raises what the store raises."""
        return commit(self._store, f"{self._prefix}/step-{step:08d}", folder)[1]

    def restore(self, into: Path) -> Restored | None:
        """Write the newest usable checkpoint to ``into/checkpoint-<step>``, and its best one.

        ``into`` is the Trainer's ``output_dir``. Every file is checked against its SHA-256. A
        checkpoint that is incomplete, damaged or without its best one is passed over for the one
        before; None when there is none. What fails otherwise (the network, the credentials, this
        machine's disk) is raised as the store raises it.
        """
        into.mkdir(parents=True, exist_ok=True)
        stored = self._list()
        for candidate in reversed(stored):
            try:
                return self._restore(candidate, stored, into)
            except ArtifactMissingError as error:
                if is_transient(error):
                    raise
                self._note(f"The checkpoint of step {candidate.step} was passed over: {error}")
        return None

    def prune(self, keep_steps: Collection[int] = ()) -> None:
        """Delete all but the newest two, the best one of each, ``keep_steps`` and what is newer.

        Raises what the store raises.
        """
        stored = self._list()
        complete = sorted({one.step for one in stored if one.is_complete}, reverse=True)
        newest = complete[:_NUM_KEPT]
        if len(newest) < _NUM_KEPT:
            return
        kept = {*newest, *keep_steps}
        for one in stored:
            if one.is_complete and one.step in newest:
                kept.add(self._best_step(one))
        for one in stored:
            if one.step not in kept and one.step < newest[-1]:
                self._delete(one)

    def delete_all(self) -> None:
        """Delete every checkpoint of this training; for after it succeeded.

        Never raises for what the store raises: what is left costs space alone, and is noted.
        """
        try:
            for one in self._list():
                self._delete(one)
        except STORE_ERRORS as error:
            self._note(f"Checkpoints under {self._prefix} could not be deleted: {error}")

    def _list(self) -> list[_Stored]:
        """Oldest first."""
        names: dict[tuple[int, str], set[str]] = {}
        for key in self._store.keys_under(f"{self._prefix}/"):
            if match := _ADDRESS.fullmatch(key.removeprefix(f"{self._prefix}/")):
                names.setdefault((int(match[1]), match[2]), set()).add(match[3])
        return sorted(_Stored(*address, frozenset(found)) for address, found in names.items())

    def _restore(self, candidate: _Stored, stored: list[_Stored], into: Path) -> Restored:
        with tempfile.TemporaryDirectory(dir=into, prefix=".restoring-") as scratch:
            folder = Path(scratch) / "checkpoint"
            self._fetch(candidate, Path(scratch) / "stored", folder)
            state = read_state(folder / TRAINER_STATE)
            best_step = state.get("best_global_step")
            if best_step is not None and state.get("best_model_checkpoint") is not None:
                if best_step != candidate.step:
                    self._restore_best(best_step, state, stored, into)
                best = {"best_model_checkpoint": str(_place(into, best_step))}
                (folder / TRAINER_STATE).write_text(json.dumps(state | best, indent=2))
            _move(folder, _place(into, candidate.step))
        logger.info("Resuming from the checkpoint of step %d.", candidate.step)
        return Restored(candidate.step, _place(into, candidate.step), best_step)

    def _restore_best(
        self, step: int, state: dict[str, Any], stored: list[_Stored], into: Path
    ) -> None:
        """Write the weights of the best checkpoint that this state came from."""
        problem = "it is not in the store"
        for candidate in stored:
            if candidate.step != step:
                continue
            with tempfile.TemporaryDirectory(dir=into, prefix=".restoring-") as scratch:
                folder = Path(scratch) / "checkpoint"
                try:
                    self._fetch(candidate, Path(scratch) / "stored", folder, weights_only=True)
                    if _is_ancestor(read_state(folder / TRAINER_STATE), state):
                        _move(folder, _place(into, step))
                        return
                    problem = "the one in the store is of another attempt"
                except ArtifactMissingError as error:
                    if is_transient(error):
                        raise
                    problem = str(error)
        raise ArtifactMissingError(f"its best checkpoint, of step {step}, is of no use: {problem}")

    def _fetch(
        self, one: _Stored, folder: Path, checkpoint: Path, *, weights_only: bool = False
    ) -> None:
        for file in self._files(one):
            if weights_only and is_training_state(file["path"]):
                continue
            path = folder / file["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            self._store.get(f"{self._key(one)}/{file['path']}", path)
            if (found := file_digest(path)) != file["sha256"]:
                raise self._damaged(one, file["path"], f"SHA-256 {found}, not {file['sha256']}")
        checkpoint.mkdir(parents=True)
        decode(folder, checkpoint)

    def _files(self, one: _Stored) -> list[dict[str, str]]:
        """What the manifest lists. Raises ArtifactMissingError where it is not what was written."""
        if not one.is_complete:
            raise ArtifactMissingError("its upload was never completed.")
        body = self._store.get_bytes(f"{self._key(one)}/{MANIFEST}")
        if (found := hashlib.sha256(body).hexdigest()) != one.digest:
            raise self._damaged(one, MANIFEST, f"SHA-256 {found}, not {one.digest}")
        files: list[dict[str, str]] = json.loads(body)["files"]
        for file in files:
            path = PurePosixPath(file["path"])
            if path.is_absolute() or ".." in path.parts:
                raise ArtifactMissingError(f"{MANIFEST} lists {path}, outside its folder.")
        return files

    def _damaged(self, one: _Stored, name: str, what: str) -> ArtifactMissingError:
        """Takes the manifest away, so that the same checkpoint, made again, is stored in full."""
        try:
            self._store.delete(f"{self._key(one)}/{MANIFEST}")
        except STORE_ERRORS as error:
            logger.warning("Could not take %s/%s away: %s", self._key(one), MANIFEST, error)
        return ArtifactMissingError(f"{self._key(one)}/{name} is damaged: {what}.")

    def _best_step(self, one: _Stored) -> int:
        """The step of its best checkpoint; its own where that cannot be read."""
        try:
            state = parse_state(self._store.get_bytes(f"{self._key(one)}/{TRAINER_STATE}"))
        except ArtifactMissingError:
            return one.step
        best = state.get("best_global_step")
        return best if isinstance(best, int) else one.step

    def _delete(self, one: _Stored) -> None:
        """The manifest first: what is left by a kill is incomplete, not damaged."""
        for name in sorted(one.names, key=lambda name: name != MANIFEST):
            self._store.delete(f"{self._key(one)}/{name}")

    def _key(self, one: _Stored) -> str:
        return f"{self._prefix}/step-{one.step:08d}/{one.digest}"

    def _note(self, text: str) -> None:
        logger.warning(text)
        if text not in self.notes:
            self.notes.append(text)


def _place(into: Path, step: int) -> Path:
    return into / f"{PREFIX_CHECKPOINT_DIR}-{step}"


def _move(folder: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    folder.rename(target)


def _is_ancestor(earlier: dict[str, Any], later: dict[str, Any]) -> bool:
    """Whether one state grew out of the other: logs hold seconds, which no two attempts share.

    Compared as text, in which a loss that is not a number equals itself.
    """
    before, after = (list(_lines(state)) for state in (earlier, later))
    return bool(before) and after[: len(before)] == before


def _lines(state: dict[str, Any]) -> Iterator[str]:
    for line in state.get("log_history", ()):
        yield json.dumps(line, sort_keys=True)
