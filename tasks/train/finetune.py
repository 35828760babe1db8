"""A formatted data set and a base model -> a LoRA adapter and the history of its training."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import EarlyStoppingCallback, PrinterCallback, TrainerCallback, set_seed
from trl.trainer.sft_config import SFTConfig

from tasks.artifacts import BaseModelRef
from tasks.base_model import load_model, load_tokenizer
from tasks.errors import TrainingError
from tasks.storage import digest_of, file_digest
from tasks.train.batches import collate, load_split
from tasks.train.config import TrainConfig
from tasks.train.trainer import AnswerTrainer

logger = logging.getLogger(__name__)
WEIGHTS, SETTINGS = "adapter_model.safetensors", "adapter_config.json"
Report = Callable[[dict[str, float], int, float], None]  # metrics, step, share done


@dataclass(slots=True)
class Training:
    """What a training came to; ``history`` holds one record a logged step."""

    num_steps: int
    best_step: int
    train_loss: float
    validation_loss: float
    tokens_per_second: float
    seconds: float
    history: list[dict[str, float]] = field(default_factory=list)


def finetune(
    data: Path, base_model: BaseModelRef, config: TrainConfig, output: Path, report: Report
) -> Training:
    """Train, keep the checkpoint of least validation loss, and write the adapter to ``output``.

    ``data`` holds ``train.parquet`` and ``validation.parquet``; ``report`` is told of every logged
    step. Raises TrainingError when the loss is not a number.
    """
    set_seed(config.seed)
    tokenizer = load_tokenizer(base_model)
    train, validation = load_split(data, "train"), load_split(data, "validation")
    model = get_peft_model(_load(base_model, config), _lora(config))
    watch = _Watch(report)
    trainer = AnswerTrainer(
        model=model,
        args=_arguments(config, len(train), output / "checkpoints"),
        train_dataset=train,
        eval_dataset=validation,
        data_collator=partial(collate, pad_token_id=tokenizer.pad_token_id),
        processing_class=tokenizer,
        callbacks=[EarlyStoppingCallback(config.early_stopping_patience), watch],
    )
    watch.trainer = trainer
    trainer.remove_callback(PrinterCallback)  # it prints what _Watch logs
    started = time.monotonic()
    result = trainer.train()
    seconds = time.monotonic() - started
    save_adapter(trainer.model, base_model, output)
    best = trainer.state.best_global_step or trainer.state.global_step
    return Training(
        num_steps=trainer.state.global_step,
        best_step=best,
        train_loss=result.training_loss,
        validation_loss=float(trainer.state.best_metric or math.nan),
        tokens_per_second=trainer.num_tokens_seen / seconds,
        seconds=seconds,
        history=watch.history,
    )


def save_adapter(model: Any, base_model: BaseModelRef, folder: Path) -> None:
    """Write the weights and settings so that the same adapter is always the same bytes.

    PEFT writes the layers in the order of a set and the base model as this machine's path: the
    first is sorted, the second is its name.
    """
    model.save_pretrained(folder, safe_serialization=True)
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty card; it holds a local path
    settings = json.loads((folder / SETTINGS).read_text())
    settings["base_model_name_or_path"] = base_model.id
    settings["revision"] = base_model.revision
    settings = {k: sorted(v) if k == "target_modules" else v for k, v in settings.items()}
    (folder / SETTINGS).write_text(json.dumps(settings, indent=1, sort_keys=True))


def adapter_digest(folder: Path) -> str:
    """SHA-256 over the digests of the weights and the settings: what serves, and nothing else."""
    return digest_of({name: file_digest(folder / name) for name in (WEIGHTS, SETTINGS)})


class _Watch(TrainerCallback):
    """Keeps the history, tells of progress, and stops at a loss that is not a number."""

    def __init__(self, report: Report) -> None:
        self.history: list[dict[str, float]] = []
        self.trainer: AnswerTrainer | None = None
        self._report = report
        self._started = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._started = time.monotonic()

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        logs = {k: float(v) for k, v in kwargs["logs"].items() if isinstance(v, int | float)}
        if not ({"loss", "eval_loss"} & set(logs)):
            return  # the summary at the end, which the result holds too
        if any(not math.isfinite(logs.get(name, 0.0)) for name in ("loss", "eval_loss")):
            raise TrainingError(
                f"The loss at step {state.global_step} is not a number ({logs}). Lower "
                "train.learning_rate, or set train.precision to float32."
            )
        elapsed = time.monotonic() - self._started
        seen = self.trainer.num_tokens_seen if self.trainer else 0
        logs["tokens_per_second"] = seen / elapsed
        self.history.append({"step": float(state.global_step), **logs})
        share = state.global_step / state.max_steps
        self._report(logs, state.global_step, share)
        remaining = elapsed / share - elapsed if share else math.nan
        logger.info(_line(state, logs, remaining))


def _line(state: Any, logs: dict[str, float], remaining: float) -> str:
    """One readable line of progress."""
    names = {"loss": "loss", "eval_loss": "validation loss", "learning_rate": "lr"}
    values = [f"{label} {logs[name]:.4g}" for name, label in names.items() if name in logs]
    share = state.global_step / state.max_steps
    return (
        f"train {share:4.0%} step {state.global_step}/{state.max_steps} {', '.join(values)}, "
        f"{logs['tokens_per_second']:.0f} tokens/s, {remaining:.0f} s left"
    )


def _load(base_model: BaseModelRef, config: TrainConfig) -> Any:
    model = load_model(base_model, getattr(torch, config.precision))
    if not torch.cuda.is_available():
        # On a CPU the fused kernel's backward costs several times what plain matrices do for rows
        # of a few hundred tokens; `make bench B=train-cpu` compares.
        model.set_attn_implementation("eager")
    return model


def _lora(config: TrainConfig) -> LoraConfig:
    return LoraConfig(
        r=config.lora.r,
        lora_alpha=config.lora.alpha,
        lora_dropout=config.lora.dropout,
        target_modules=list(config.lora.target_modules),
        task_type="CAUSAL_LM",
    )


def _arguments(config: TrainConfig, num_rows: int, checkpoints: Path) -> SFTConfig:
    steps_an_epoch = math.ceil(num_rows / (config.batch_size * config.gradient_accumulation))
    every = max(1, math.ceil(steps_an_epoch / config.evaluations_per_epoch))
    total = math.ceil(steps_an_epoch * config.epochs)
    on_gpu = torch.cuda.is_available()
    return SFTConfig(
        output_dir=str(checkpoints),
        num_train_epochs=config.epochs,
        per_device_train_batch_size=config.batch_size,
        per_device_eval_batch_size=config.batch_size,
        gradient_accumulation_steps=config.gradient_accumulation,
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.schedule,
        warmup_steps=math.ceil(total * config.warmup_share),
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        train_sampling_strategy="group_by_length",
        gradient_checkpointing=config.gradient_checkpointing,
        bf16=config.precision == "bfloat16",
        use_cpu=not on_gpu,
        eval_strategy="steps",
        eval_steps=every,
        save_strategy="steps",
        save_steps=every,
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        logging_steps=max(1, min(10, every)),
        logging_nan_inf_filter=False,  # a loss that is not a number is to be seen, not smoothed
        seed=config.seed,
        data_seed=config.seed,
        report_to="none",
        disable_tqdm=True,
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        dataloader_pin_memory=on_gpu,
        max_length=None,
    )
