"""Trained tokens a second on a CPU: ours against TRL's SFTTrainer with its defaults.

    make bench B=train-cpu

Same model, rows, batch size, order of length and number of steps; the two take turns, so that a
machine that slows down slows both. Also told: the loss of both over the steps, which must agree.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model
from transformers import set_seed
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from deployments import environment
from flows.config import load_config
from tasks.base_model import load_model, load_tokenizer, pin
from tasks.clean.form import form_findings
from tasks.clean.rows import Rows
from tasks.example import to_table
from tasks.format.config import FormatConfig
from tasks.format.dataset import format_examples, write
from tasks.ingest.snapshot import read_source
from tasks.train.batches import collate, load_split
from tasks.train.finetune import _arguments, _load, _lora
from tasks.train.trainer import AnswerTrainer
from tests.benchmarks.harness import Result

STEPS, ROUNDS, BATCH = 8, 3, 8
TARGET = 1.0  # not slower; the 4x of a later version is its own benchmark


def train_cpu() -> Result:
    config = load_config(environment.home() / "deployments" / "configs" / "sample.yaml")
    base = pin(config.base_model)
    with tempfile.TemporaryDirectory() as folder:
        data = _data(config, base, Path(folder))
        ours: list[tuple[float, float]] = []
        theirs: list[tuple[float, float]] = []
        for _ in range(ROUNDS):
            ours.append(_ours(config, base, data, Path(folder)))
            theirs.append(_trl(config, base, data, Path(folder)))
    ratio = statistics.median(a[0] / b[0] for a, b in zip(ours, theirs, strict=True))
    return Result(
        "train-cpu",
        round(ratio, 2),
        "times the tokens/s of TRL's SFTTrainer with its defaults",
        TARGET,
        ratio >= TARGET,
        peers={"trl": {"tokens_per_second": round(statistics.median(r for r, _ in theirs))}},
        details={
            "tokens_per_second": round(statistics.median(r for r, _ in ours)),
            "mean_loss": round(ours[0][1], 4),
            "mean_loss_trl": round(theirs[0][1], 4),
        },
    )


def _data(config: Any, base: Any, folder: Path) -> Path:
    rows = read_source(config.ingest.sources[1], config.task)[0]
    bad = {f.index for f in form_findings(Rows(to_table(rows)), config.task, 8192, None)}
    rows = [e for i, e in enumerate(rows) if i not in bad][: STEPS * BATCH + 8]
    splits = ["train"] * (STEPS * BATCH) + ["validation"] * 8
    write(format_examples(rows, splits, load_tokenizer(base), FormatConfig()), folder)
    return folder


def _ours(config: Any, base: Any, data: Path, folder: Path) -> tuple[float, float]:
    set_seed(0)
    settings = config.train.model_copy(update={"epochs": 1.0, "batch_size": BATCH})
    arguments = _arguments(settings, STEPS * BATCH, folder / "ours")
    arguments.eval_strategy = arguments.save_strategy = "no"
    arguments.load_best_model_at_end = False
    model = get_peft_model(_load(base, settings), _lora(settings))
    return _time(AnswerTrainer, model, arguments, data, load_tokenizer(base))


def _trl(config: Any, base: Any, data: Path, folder: Path) -> tuple[float, float]:
    """What a user of TRL writes: its own defaults, the same rows."""
    set_seed(0)
    model = get_peft_model(load_model(base, torch.bfloat16), _lora(config.train))
    arguments = SFTConfig(
        output_dir=str(folder / "trl"),
        per_device_train_batch_size=BATCH,
        num_train_epochs=1,
        learning_rate=config.train.learning_rate,
        warmup_steps=1,
        lr_scheduler_type=config.train.schedule,
        train_sampling_strategy="group_by_length",
        bf16=True,
        use_cpu=True,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
    )
    return _time(SFTTrainer, model, arguments, data, load_tokenizer(base))


def _time(
    kind: type[SFTTrainer], model: Any, arguments: SFTConfig, data: Path, tokenizer: Any
) -> tuple[float, float]:
    """(tokens a second, mean loss) of one short training."""
    rows = load_split(data, "train")
    trainer = kind(
        model=model,
        args=arguments,
        train_dataset=rows,
        data_collator=partial(collate, pad_token_id=tokenizer.pad_token_id),
        processing_class=tokenizer,
    )
    started = time.monotonic()
    result = trainer.train()
    return sum(rows["length"]) / (time.monotonic() - started), float(result.training_loss)
