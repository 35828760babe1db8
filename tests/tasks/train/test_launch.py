"""Two processes on a CPU reach what one does, and end together when they must."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.errors import ConfigError, PreemptedError, TrainingError
from tasks.train import launch
from tasks.train.adapters import weights_digest
from tasks.train.config import TrainConfig
from tasks.train.finetune import finetune
from tasks.train.guards import BadBatchError
from tasks.train.job import Job
from tasks.train.launch import check_devices, command, train_in_processes
from tests.tasks.train.conftest import some_rows, write_split

Jobs = Callable[..., Job]
TWO = {"num_processes": 2}


@pytest.fixture
def even(data: Path) -> None:
    """As many rows as fill every step of both."""
    write_split(data, "train", some_rows(16))


def quiet(metrics: dict[str, float], step: int, share: float) -> None:
    """Progress that nobody looks at."""


def test_two_processes_reach_the_loss_of_one(job: Jobs, even: None, tmp_path: Path) -> None:
    told: list[tuple[int, float]] = []
    validation = {"metric": "exact_match", "num_generated": 3, "max_new_tokens": 3}
    one = finetune(job("one", batch_size=4, epochs=3, validation=validation), quiet)
    two = train_in_processes(
        job("two", batch_size=2, epochs=3, validation=validation, devices=TWO),
        lambda metrics, step, share: told.append((step, share)),
    )
    for name in ("loss", "eval_loss", "eval_exact_match", "eval_bleu"):
        [found, expected] = ([line[name] for line in r.history if name in line] for r in (two, one))
        assert found == pytest.approx(expected, abs=1e-3), name
    assert (two.num_processes, two.micro_batch, two.num_steps) == (2, 2, one.num_steps)
    assert two.tokens == one.tokens
    assert told[-1] == (two.num_steps, 1.0)
    assert len(weights_digest(tmp_path / "two")) == 64


def test_sigterm_reaches_both_and_the_next_attempt_goes_on(
    job: Jobs, even: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = job("two", batch_size=2, epochs=100, early_stopping_patience=100, devices=TWO)
    seen: list[int] = []

    def told(metrics: dict[str, float], step: int, share: float) -> None:
        seen.append(step)
        if len(seen) == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(PreemptedError, match="was kept, and the next attempt goes on"):
        train_in_processes(made, told)
    assert len(seen) < 200
    again: list[int] = []

    def told_again(metrics: dict[str, float], step: int, share: float) -> None:
        again.append(step)
        if len(again) == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    (made.output.with_name("again")).mkdir()
    with pytest.raises(PreemptedError):
        train_in_processes(
            made.model_copy(update={"output": made.output.with_name("again")}), told_again
        )
    # What was before is told again, and then it goes on: nothing is trained twice.
    assert again[: len(seen)] == seen[: len(again)]


def test_memory_that_runs_out_begins_again_with_half_the_rows(
    job: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int | None] = []

    def run(made: Job, report: Any) -> Any:
        taken.append(made.micro_rows)
        if made.micro_rows != 1:
            raise launch._OutOfMemoryError("CUDA out of memory")
        return finetune(made.model_copy(update={"config": made.config}), report)

    monkeypatch.setattr(launch, "_run", run)
    training = train_in_processes(job("two", batch_size=4), quiet)
    assert taken == [None, 2, 1]
    assert [note.split(" at a time")[0] for note in training.notes[:3]] == [
        "2 rows are taken twice in each epoch, so that all processes have as many.",
        "Memory ran out: rows are taken 2",
        "Memory ran out: rows are taken 1",
    ]
    assert (training.micro_batch, training.accumulation) == (1, 4)


@pytest.mark.parametrize(
    ("answer", "status", "kind", "words"),
    [
        ({"error": "ConfigError", "message": "no such layer"}, 1, ConfigError, "no such layer"),
        ({"error": "OSError", "message": "full"}, 1, TrainingError, "status 1: full"),
        ({}, -9, TrainingError, "status -9: last words"),
        ({}, -15, PreemptedError, "SIGTERM"),
        (
            {"error": "BadBatchError", "message": "NaN", "file": "x/bad_batch.json"},
            1,
            BadBatchError,
            "NaN",
        ),
    ],
)
def test_what_a_process_failed_of_is_raised(
    tmp_path: Path, answer: dict[str, str], status: int, kind: type[Exception], words: str
) -> None:
    file = tmp_path / "training.json"
    if answer:
        file.write_text(json.dumps(answer))
    with pytest.raises(kind, match=words):
        launch._answer(file, status, ["last words"])


def sharded(**changes: Any) -> TrainConfig:
    devices = {"num_processes": 8, "strategy": "fsdp"}
    return TrainConfig.model_validate({"devices": devices, **changes})


@pytest.mark.parametrize(
    ("config", "on_gpu", "words"),
    [
        (sharded(), False, "over GPUs alone"),
        (sharded(validation={"num_generated": 5}), True, "no process holds the model"),
        (sharded(method="qlora"), True, "not sharded"),
    ],
)
def test_what_sharding_cannot_do(config: TrainConfig, on_gpu: bool, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check_devices(config, on_gpu)


def test_the_launcher_s_command_line() -> None:
    assert "--multi_gpu" in command(TrainConfig.model_validate({"devices": TWO}))
    line = command(sharded(method="full"))
    assert line[line.index("--num_processes") + 1] == "8"
    assert "--use_fsdp" in line
