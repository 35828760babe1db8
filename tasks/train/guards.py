"""What stops a training that goes wrong, and what its curve says afterwards.

``LossGuard`` sits in the Trainer and stops it, before the weights change, at a loss or a gradient
that is no number and at a loss that explodes; the rows that did it are kept. ``divergence`` and
``stopped_early`` read a finished history and state.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import EarlyStoppingCallback, TrainerCallback, TrainerState
from transformers.trainer_callback import ExportableState

from tasks.errors import TrainingError

BAD_BATCH = "bad_batch.json"
_FIRST_STEPS = 5
_STEPS_IN_A_ROW = 2
# Below this many nats a token, a loss may be a multiple of another without meaning anything.
_LEAST_BASELINE = 1.0
_LEAST_RISE = 0.01


class BadBatchError(TrainingError):
    """A step that would have broken the model; ``file`` holds its rows."""

    def __init__(self, message: str, file: Path) -> None:
        super().__init__(message)
        self.file = file


class LossGuard(TrainerCallback, ExportableState):
    """Stops training at a step whose loss or gradient is no number, or whose loss explodes.

    An explosion is a loss above ``factor`` times the median of the first five steps' (of those so
    far, before the sixth) for two steps in a row. The trainer tells each micro-batch's loss by
    ``saw``; the step is judged once, before the optimiser runs, so the weights are still those of
    the step before. What the judgement needs of the past stands in trainer_state.json and is
    restored with a checkpoint.

    A resumed Trainer replaces its callbacks by new ones: ask ``of`` for the guard at each step.
    """

    def __init__(self, factor: float) -> None:
        self.factor = factor
        self.first_losses: list[float] = []
        self.num_high = 0
        self._step: list[tuple[Any, Sequence[int]]] = []
        self._rows: Any = None
        self._tokenizer: Any = None

    @classmethod
    def of(cls, callbacks: Iterable[Any]) -> LossGuard:
        """The guard among a Trainer's ``callback_handler.callbacks``."""
        return next(callback for callback in callbacks if isinstance(callback, cls))

    def saw(self, loss: torch.Tensor | float, rows: Sequence[int]) -> None:
        """Take note of a micro-batch: its mean loss a trained token, and its rows' numbers.

        A tensor is read only when the step is judged: the device is not waited for.
        """
        self._step.append((loss.detach() if isinstance(loss, torch.Tensor) else loss, rows))

    def state(self) -> dict[str, Any]:
        """What transformers writes to trainer_state.json and gives back on resuming."""
        attributes = {"first_losses": self.first_losses, "num_high": self.num_high}
        return {"args": {"factor": self.factor}, "attributes": attributes}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._step = []
        self._tokenizer = kwargs.get("processing_class")
        self._rows = kwargs["train_dataloader"].dataset

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._step = []  # what a micro-batch that ran out of memory left

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        losses = [float(loss) for loss, _ in self._step]
        problem = self._judge(losses) or _gradient_problem(kwargs["model"])
        if problem is not None:
            file = Path(args.output_dir) / _file_name(args.process_index)
            self._stop(problem, state.global_step + 1, losses, file)
        self._step = []

    def _judge(self, losses: Sequence[float]) -> str | None:
        """What is wrong with a step's losses, told in words; the past is brought up to date."""
        if not losses:
            return None
        if not all(map(math.isfinite, losses)):
            return f"the loss is not a number ({', '.join(f'{loss:.4g}' for loss in losses)})"
        mean = statistics.fmean(losses)
        limit = self._limit()
        self.num_high = self.num_high + 1 if mean > limit else 0
        if not self.num_high and len(self.first_losses) < _FIRST_STEPS:
            self.first_losses = [*self.first_losses, mean]
        if self.num_high < _STEPS_IN_A_ROW:
            return None
        return (
            f"the loss is {mean:.4g}, for {self.num_high} steps in a row above {limit:.4g}, which "
            f"is {self.factor:g} times that of the first steps"
        )

    def _limit(self) -> float:
        """The highest loss that is no explosion; none is before a first step was seen."""
        if not self.first_losses:
            return math.inf
        return self.factor * max(statistics.median(self.first_losses), _LEAST_BASELINE)

    def _stop(self, problem: str, step: int, losses: Sequence[float], file: Path) -> None:
        batches = [
            {
                "loss": loss if math.isfinite(loss) else None,  # JSON has no NaN
                "rows": [self._row(row) for row in rows],
            }
            for loss, (_, rows) in zip(losses, self._step, strict=True)
        ]
        content = {"step": step, "problem": problem, "micro_batches": batches}
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
        named = [row for _, rows in self._suspects(losses) for row in rows]
        raise BadBatchError(
            f"Training stopped at step {step}, before its update: {problem}. Its rows, "
            f"training rows {_some(named)}, are in {file}. Look at them; where nothing is wrong "
            "with them, lower train.learning_rate or set train.precision to float32.",
            file,
        )

    def _suspects(self, losses: Sequence[float]) -> list[tuple[Any, Sequence[int]]]:
        """The micro-batches without a finite loss; all, where every one is finite."""
        broken = [
            batch for loss, batch in zip(losses, self._step, strict=True) if not math.isfinite(loss)
        ]
        return broken or self._step

    def _row(self, number: int) -> dict[str, Any]:
        row = self._rows[int(number)]
        ids = [int(token) for token in row["input_ids"]]
        labels = [int(label) for label in row["labels"]]
        named = {"row": int(number), **({"id": row["id"]} if "id" in row else {})}
        text = self._tokenizer.decode(ids) if self._tokenizer is not None else None
        return {**named, "input_ids": ids, "labels": labels, "text": text}


def divergence(history: Sequence[Mapping[str, float]], threshold: float) -> str | None:
    """Whether validation left training behind: a sentence with steps and losses, or None.

    ``history`` holds records with ``step`` and ``loss`` or ``eval_loss``. It did where two
    validations in a row are more than ``threshold`` (relative) above the best before them while the
    training loss, averaged between validations, fell over the same span; the widest is told.
    """
    points = _validations(history)
    found: list[tuple[float, str]] = []
    for last in range(2, len(points)):
        best = min(points[: last - 1], key=lambda point: point.validation)
        limit = best.validation + max(threshold * best.validation, _LEAST_RISE)
        before, now = points[last - 1], points[last]
        fell = now.training < best.training  # False too where one is not known
        if min(before.validation, now.validation) > limit and fell:
            rise = now.validation / best.validation - 1
            found.append((rise, _diverged(best, now, rise)))
    return max(found, key=lambda rise_and_text: rise_and_text[0])[1] if found else None


def overfitting_gap(history: Sequence[Mapping[str, float]]) -> float | None:
    """Validation minus training loss at the last validation, in nats a token."""
    points = _validations(history)
    if not points or math.isnan(points[-1].training):
        return None
    return points[-1].validation - points[-1].training


def stopped_early(state: TrainerState) -> str | None:
    """Whether early stopping ended, or is about to end, the training of ``state``.

    ``state`` may come from a checkpoint: a run that was killed between its last checkpoint and its
    end has nothing left to train, and must not go on.
    """
    callbacks: Any = state.stateful_callbacks  # states by class name, whatever it is declared as
    saved = callbacks.get(EarlyStoppingCallback.__name__)
    if saved is None or state.global_step >= state.max_steps:
        return None
    waited = saved["attributes"]["early_stopping_patience_counter"]
    patience = saved["args"]["early_stopping_patience"]
    if waited < patience:
        return None
    return (
        f"Stopped early at step {state.global_step} of {state.max_steps}: {waited} validations "
        f"without improvement on step {state.best_global_step} (patience {patience})."
    )


class _Validation:
    """A validation and the mean training loss since the one before (NaN where none was logged)."""

    def __init__(self, step: float, validation: float, losses: Sequence[float]) -> None:
        self.step = int(step)
        self.validation = validation
        self.training = statistics.fmean(losses) if losses else math.nan


def _validations(history: Sequence[Mapping[str, float]]) -> list[_Validation]:
    points: list[_Validation] = []
    since: list[float] = []
    for record in sorted(history, key=lambda record: (record["step"], "eval_loss" in record)):
        if "loss" in record:
            since.append(record["loss"])
        if "eval_loss" in record:
            points.append(_Validation(record["step"], record["eval_loss"], since))
            since = []
    return points


def _diverged(best: _Validation, now: _Validation, rise: float) -> str:
    return (
        f"Validation loss rose {rise:.0%}, from {best.validation:.4g} at step {best.step} to "
        f"{now.validation:.4g} at step {now.step}, while training loss fell from "
        f"{best.training:.4g} to {now.training:.4g}: the model learns its rows by heart. The best "
        "checkpoint is kept; train fewer epochs, with a lower rank or more dropout, or add rows."
    )


def _gradient_problem(model: Any) -> str | None:
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    if hasattr(norm, "full_tensor"):  # sharded over processes (FSDP)
        norm = norm.full_tensor()
    if math.isfinite(float(norm)):
        return None
    return f"the gradient's norm is not a number ({float(norm):.4g}), though the loss is one"


def _file_name(process: int) -> str:
    return BAD_BATCH if process == 0 else BAD_BATCH.replace(".", f"-{process}.")


def _some(rows: Sequence[int]) -> str:
    told = ", ".join(str(int(row)) for row in rows[:8])
    return told if len(rows) <= 8 else f"{told} and {len(rows) - 8} more"
