"""What the benchmarks of training share: rows in one order for all, and a clock for each step."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch.utils.data import SequentialSampler
from transformers import TrainerCallback
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from tasks.train.batches import Row, pad
from tasks.train.guards import LossGuard
from tasks.train.trainer import AnswerTrainer


@dataclass
class Steps(TrainerCallback):
    """Seconds and loss of each step of a training. ``peak_gib`` is the GPU's memory at most."""

    seconds: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    peak_gib: float = 0.0
    _began: float = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._began = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
            self.peak_gib = torch.cuda.max_memory_allocated() / 2**30
        self.seconds.append(time.perf_counter() - self._began)

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if "loss" in kwargs["logs"]:
            self.losses.append(float(kwargs["logs"]["loss"]))

    def tokens_per_second(self, tokens: Sequence[int], warm_up: int = 1) -> float:
        """The median over the steps; ``tokens`` are those of each. The first ones only warm up."""
        speeds = [n / s for n, s in zip(tokens, self.seconds, strict=True)]
        return statistics.median(speeds[warm_up:])


class InOrder(AnswerTrainer):
    """Ours, taking the rows as they come, so that all learn from the same ones at each step."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return SequentialSampler(self.train_dataset)


def run_ours(
    model: Any,
    arguments: Any,
    rows: Dataset,
    tokenizer: Any,
    *,
    micro_rows: int,
    compiled: bool = False,
) -> Steps:
    """Train as the stage does, without validations and checkpoints."""
    steps = Steps()
    trainer = InOrder(
        packing=True,
        micro_rows=micro_rows,
        model=model,
        args=arguments,
        train_dataset=rows,
        processing_class=tokenizer,
        callbacks=[steps, LossGuard(1e9)],
    )
    if compiled:
        trainer.compile_layers()
    trainer.train()
    return steps


def trl_settings(folder: Path, batch_size: int, learning_rate: float, **changes: Any) -> SFTConfig:
    """What a user of TRL writes: its defaults, and tokenized rows in their given order."""
    return SFTConfig(
        output_dir=str(folder),
        per_device_train_batch_size=batch_size,
        num_train_epochs=1,
        learning_rate=learning_rate,
        train_sampling_strategy="sequential",
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        **changes,
    )


def run_trl(model: Any, arguments: Any, rows: Dataset, tokenizer: Any) -> Steps:
    """Train as a user of TRL does, on rows that are tokenized already."""
    steps = Steps()
    trainer = SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=rows.select_columns(["input_ids", "labels"]),
        data_collator=lambda batch: pad(batch, tokenizer.pad_token_id),
        processing_class=tokenizer,
        callbacks=[steps],
    )
    trainer.train()
    return steps


def tokens_by_step(rows: Dataset, step_rows: int) -> list[int]:
    lengths = rows["length"]
    return [sum(lengths[i : i + step_rows]) for i in range(0, len(lengths), step_rows)]


def in_steps(rows: Sequence[Row], step_rows: int) -> Dataset:
    """The rows with those of similar length side by side, as whole steps."""
    whole = len(rows) // step_rows * step_rows
    ordered = sorted(rows[:whole], key=lambda row: len(row["input_ids"]))
    return Dataset.from_list([{**row, "length": len(row["input_ids"])} for row in ordered])


def overlay(curves: dict[str, Sequence[float]], path: Path, title: str) -> None:
    """The loss curves in one picture."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for name, losses in curves.items():
        axes.plot(range(1, len(losses) + 1), losses, label=name, alpha=0.7)
    axes.set(xlabel="step", ylabel="loss", title=title)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def largest_difference(one: Sequence[float], other: Sequence[float]) -> float:
    return max(abs(a - b) for a, b in zip(one, other, strict=True))
