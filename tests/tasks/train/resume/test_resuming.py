"""A training that was killed and goes on is the training that was not."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.artifacts import TaskConfig
from tasks.base_model import BaseModelConfig, pin
from tasks.train.adapters import weights_digest
from tasks.train.config import TrainConfig
from tasks.train.job import Job
from tests.tasks.train.conftest import SHORT, some_rows, write_split
from tests.tasks.train.resume.attempts import Attempt, Resumed

# 18 rows in batches of 4 make 5 steps an epoch, each with a validation and a checkpoint at its end.
LONG: dict[str, Any] = {
    "epochs": 6,
    "lora": {"r": 4, "dropout": 0.1},
    "early_stopping_patience": 3,
}
MakeJob = Callable[..., Job]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the trainings of this module leave their weights, and their store."""
    folder = tmp_path_factory.mktemp("trainings")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RETUNE_STORE", str(folder / "store"))
        yield folder


@pytest.fixture(scope="module")
def make(place: Path, tiny_model: Path) -> MakeJob:
    """Makes jobs; ``key`` names the checkpoints, so that attempts find each other's."""
    data = place / "data"
    data.mkdir()
    write_split(data, "train", some_rows(18))
    write_split(data, "validation", some_rows(24)[18:])
    base = pin(BaseModelConfig(id=str(tiny_model)))

    def job(name: str, key: str, **changes: Any) -> Job:
        config = TrainConfig.model_validate(SHORT.model_dump() | LONG | changes)
        (place / name).mkdir()
        task = TaskConfig(kind="generation")
        return Job(data=data, output=place / name, base=base, config=config, task=task, key=key)

    return job


@pytest.fixture(scope="module")
def whole(make: MakeJob) -> Resumed:
    """The training that nobody interrupted."""
    return Resumed(make("whole", "whole"))


def killed(job: Job, step: int, how: str = "kill") -> Attempt:
    attempt = Attempt(job, step, how)
    attempt.until_it_waits()
    attempt.process.send_signal(signal.SIGKILL)
    assert attempt.end() == -signal.SIGKILL
    return attempt


def figures(history: list[dict[str, float]], name: str) -> dict[int, float]:
    return {int(line["step"]): line[name] for line in history if name in line}


def test_killed_and_resumed_equals_uninterrupted(
    make: MakeJob, whole: Resumed, place: Path
) -> None:
    first = killed(make("killed", "k"), 13)
    again = Resumed(make("again", "k"))
    assert again.training.notes[0] == "Resumed from the checkpoint of step 10."
    assert first.rows[:10] == whole.rows[:10]
    assert again.rows == whole.rows[10:], "a row was repeated or skipped"
    for name in ("loss", "eval_loss"):
        expected = figures(whole.training.history, name)
        assert figures(again.training.history, name) == pytest.approx(expected, abs=1e-3)
    for name in ("num_steps", "best_step", "tokens"):
        assert getattr(again.training, name) == getattr(whole.training, name)
    # On one machine it is the very same training.
    assert weights_digest(place / "again") == weights_digest(place / "whole")


def test_killed_after_its_last_step_it_trains_nothing_again(
    make: MakeJob, whole: Resumed, place: Path
) -> None:
    """As when a run is killed before the result of its training is kept."""
    Resumed(make("ended", "e"))
    after = Resumed(make("after", "e"))
    last = whole.training.num_steps
    assert after.training.notes[0] == f"Resumed from the checkpoint of step {last}."
    assert after.rows == []
    assert weights_digest(place / "after") == weights_digest(place / "whole")


def test_sigterm_saves_a_checkpoint_amid_an_epoch(
    make: MakeJob, whole: Resumed, place: Path
) -> None:
    told = Attempt(make("told", "t"), 7, "go on")
    told.until_it_waits()
    told.process.send_signal(signal.SIGTERM)
    assert told.end() == 75, told.lines
    assert "the checkpoint of step 8 was kept" in told.lines[-1]
    again = Resumed(make("again-told", "t"))
    assert again.training.notes[0] == "Resumed from the checkpoint of step 8."
    assert again.rows == whole.rows[8:]
    assert weights_digest(place / "again-told") == weights_digest(place / "whole")


def test_a_corrupt_newest_checkpoint_falls_back(make: MakeJob, whole: Resumed, place: Path) -> None:
    killed(make("corrupt", "c"), 17)
    checkpoints = place / "store/checkpoints/c"
    [newest] = checkpoints.glob("step-00000015/*/adapter_model.safetensors")
    body = newest.read_bytes()
    newest.write_bytes(body[:-1] + bytes([body[-1] ^ 1]))
    again = Resumed(make("again-corrupt", "c"))
    notes = " ".join(again.training.notes)
    assert "The checkpoint of step 15 was passed over" in notes
    assert "Resumed from the checkpoint of step 10." in notes
    assert weights_digest(place / "again-corrupt") == weights_digest(place / "whole")


def test_one_that_had_stopped_early_does_not_go_on(make: MakeJob, place: Path) -> None:
    """Killed between its last checkpoint and its end: nothing is left to train."""
    stopping = {"learning_rate": 0.05, "epochs": 30, "early_stopping_patience": 2}
    first = killed(make("stopped", "s", **stopping), -1, "kill at the end")
    again = Resumed(make("again-stopped", "s", **stopping))
    assert again.rows == []
    steps = again.training.num_steps
    assert steps == len(first.rows) < 150, "it never stopped early"
    assert again.training.best_step < steps
    assert any(f"Stopped early at step {steps}" in note for note in again.training.notes)
    assert len(weights_digest(place / "again-stopped")) == 64
