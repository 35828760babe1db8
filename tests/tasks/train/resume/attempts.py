"""A training that tells the rows it takes and waits at a step, in a process that a test can kill.

    python -m tests.tasks.train.resume.attempts JOB.json STEP HOW

HOW: ``kill`` waits at the step for ever; ``go on`` waits a moment; ``kill at the end`` waits when
all is trained and nothing saved. Exits 75 after SIGTERM.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from tasks.errors import PreemptedError
from tasks.train import finetune as finetuning
from tasks.train.job import Job, Training
from tasks.train.trainer import AnswerTrainer

UPLOADED = 2.0  # seconds after which a tiny checkpoint has reached a store on this machine
Took = Callable[[list[int]], None]


def recording(took: Took, callback: TrainerCallback | None = None) -> type[AnswerTrainer]:
    """A trainer that tells the rows of each micro-batch."""

    class Recording(AnswerTrainer):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            if callback is not None:
                self.add_callback(callback)

        def get_batch_samples(self, *arguments: Any) -> Any:
            batches, number = super().get_batch_samples(*arguments)
            for batch in batches:
                took(batch["rows"].numbers)
            return batches, number

    return Recording


class Waiting(TrainerCallback):
    """Waits before a step."""

    def __init__(self, step: int, seconds: float) -> None:
        self._step, self._seconds = step, seconds

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self._step:
            wait(self._seconds)


def wait(seconds: float) -> None:
    time.sleep(UPLOADED)
    print("waiting", flush=True)
    time.sleep(seconds)


def main(job_file: Path, step: int, how: str) -> int:
    waiting = Waiting(step, 60 if how == "kill" else 2)
    told = recording(lambda rows: print("rows", json.dumps(rows), flush=True), waiting)
    finetuning.AnswerTrainer = told  # type: ignore[misc]
    if how == "kill at the end":
        finetuning._save = lambda trainer, job: wait(60)
    job = Job.model_validate_json(job_file.read_text())
    try:
        finetuning.finetune(job, lambda metrics, step, share: None)
    except PreemptedError as error:
        print(f"preempted: {error}", flush=True)
        return 75
    return 0


class Attempt:
    """Such a process: what it said, and how it ended."""

    def __init__(self, job: Job, step: int, how: str) -> None:
        file = job.output.parent / f"{job.output.name}.json"
        file.write_text(job.model_dump_json())
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.tasks.train.resume.attempts", str(file), str(step), how],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )

    def until_it_waits(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip())
            if line.startswith("waiting"):
                return
        raise AssertionError(f"it ended without waiting: {self.lines}")

    def end(self) -> int:
        assert self.process.stdout is not None
        self.lines += [line.rstrip() for line in self.process.stdout]
        return self.process.wait(120)

    @property
    def rows(self) -> list[list[int]]:
        """The rows of each micro-batch that was taken, in order."""
        return [json.loads(line[5:]) for line in self.lines if line.startswith("rows ")]


class Resumed:
    """A training in this process: what it came to, and the rows that it took."""

    def __init__(self, job: Job) -> None:
        self.rows: list[list[int]] = []
        before = finetuning.AnswerTrainer
        finetuning.AnswerTrainer = recording(self.rows.append)  # type: ignore[misc]
        try:
            self.training: Training = finetuning.finetune(job, lambda metrics, step, share: None)
        finally:
            finetuning.AnswerTrainer = before  # type: ignore[misc]


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
