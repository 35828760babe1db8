"""A ``TrainConfig`` -> the arguments of TRL's trainer."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from trl.trainer.sft_config import SFTConfig

from tasks.metrics import TextMetric
from tasks.train.config import EVAL_LOSS, TrainConfig
from tasks.train.estimate.plan import Schedule
from tasks.train.model import dtype_of


def arguments(
    config: TrainConfig, schedule: Schedule, metric: TextMetric | None, output: Path
) -> SFTConfig:
    """What the Trainer is told; ``schedule`` is the plan's, ``metric`` chooses the checkpoint."""
    on_gpu = torch.cuda.is_available()
    every = schedule.evaluate_every
    return SFTConfig(
        output_dir=str(output),
        num_train_epochs=config.epochs,
        per_device_train_batch_size=config.batch_size,
        per_device_eval_batch_size=config.batch_size,
        gradient_accumulation_steps=config.gradient_accumulation,
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.schedule,
        warmup_steps=math.ceil(schedule.steps * config.warmup_share),
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        neftune_noise_alpha=config.neftune_alpha,
        train_sampling_strategy="group_by_length" if config.group_by_length else "random",
        activation_checkpointing=config.gradient_checkpointing,
        bf16=dtype_of(config) == torch.bfloat16,
        use_cpu=not on_gpu,
        eval_strategy="steps",
        eval_steps=every,
        save_strategy="steps",
        save_steps=every,
        save_total_limit=1,  # beside the best one
        load_best_model_at_end=True,
        metric_for_best_model=EVAL_LOSS if metric is None else f"eval_{metric.name}",
        greater_is_better=metric is not None and metric.higher_is_better,
        logging_steps=max(1, min(10, every)),
        logging_nan_inf_filter=False,  # a loss that is not a number is to be seen, not smoothed
        seed=config.seed,
        data_seed=config.seed,
        report_to="none",
        disable_tqdm=True,
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        dataloader_pin_memory=False,  # rows become tensors in the trainer
        max_length=None,
    )
