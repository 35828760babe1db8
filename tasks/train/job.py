"""One training: what it is made from, what it came to, and what is checked before it begins."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from pydantic import Field

from tasks.artifacts import BaseModelRef, Record, TaskConfig
from tasks.base_model import locate
from tasks.train.answers import check_metric
from tasks.train.batches import load_split
from tasks.train.cautions import cautions
from tasks.train.config import TrainConfig
from tasks.train.estimate.budget import check_budget, describe
from tasks.train.estimate.hardware import detect
from tasks.train.estimate.plan import Plan, make_plan
from tasks.train.refusals import check_engine, check_method, check_token_ids

logger = logging.getLogger(__name__)


class Job(Record):
    """A training that any process can be given: all is named by place or by value.

    ``data`` holds ``train.parquet``, ``validation.parquet`` and ``stats.json``; ``output`` takes
    the trained weights. ``key`` names the checkpoints in the store. ``micro_rows`` is how many rows
    are taken at once, None as many as ``config.batch_size``.
    """

    data: Path
    output: Path
    base: BaseModelRef
    config: TrainConfig
    task: TaskConfig
    key: str
    micro_rows: int | None = None


class Training(Record):
    """What a training came to. Seconds and tokens are of all attempts together.

    ``history`` holds one record a logged step with ``step`` and, among others, ``loss``,
    ``learning_rate`` and ``grad_norm``, or ``eval_loss`` and the metrics as ``eval_<name>``.
    ``checkpoint_seconds``: ``held`` is what training waited for checkpoints, ``upload`` what went
    on beside it. ``notes`` are sentences for the report.
    """

    num_steps: int
    best_step: int
    train_loss: float
    validation_loss: float
    metric: str
    metric_value: float
    tokens: int
    tokens_per_second: float
    seconds: float
    memory_gib: float
    micro_batch: int
    accumulation: int
    num_processes: int
    first_step_seconds: float | None = None
    checkpoint_seconds: dict[str, float] = Field({}, description="held, upload")
    notes: list[str] = Field([], description="Sentences")
    history: list[dict[str, float]] = Field([], description="One a logged step")


class Prepared(Record):
    """What is known before a training starts."""

    plan: Plan
    cautions: dict[str, str]
    num_by_source: dict[str, int] = Field({}, description="Training examples, by source")


def prepare(job: Job) -> Prepared:
    """Plan a training, warn, and refuse what cannot be trained or costs too much.

    Nothing is loaded but the rows and the model's config. Raises ConfigError or DataError.
    """
    from transformers import AutoConfig

    check_engine(job.config)
    check_method(job.config)
    check_metric(job.config, job.task)
    train, validation = (load_split(job.data, split) for split in ("train", "validation"))
    model_config = AutoConfig.from_pretrained(
        locate(job.base.id, job.base.revision), trust_remote_code=False
    )
    size = model_config.get_text_config().vocab_size
    for split, rows in {"train": train, "validation": validation}.items():
        check_token_ids(rows["input_ids"], size, split)
    num_parameters = count_from_config(model_config)
    plan = make_plan(
        train["length"],
        sum(label != -100 for labels in train["labels"] for label in labels),
        len(validation),
        model_config,
        num_parameters,
        job.config,
        detect(),
    )
    for line in describe(plan):
        logger.info("plan: %s", line)
    check_budget(plan, job.config.budget)
    stats = _statistics(job.data)
    by_source: dict[str, int] = stats.get("num_by_source", {})
    general = stats["num_general"] / max(1, sum(by_source.values())) if by_source else None
    found = cautions(len(train), len(validation), num_parameters, general, job.config)
    for sentence in found.values():
        logger.warning("train: %s", sentence)
    return Prepared(plan=plan, cautions=found, num_by_source=by_source)


def count_from_config(model_config: Any) -> int:
    """A causal model's parameters, tied ones once, without its weights."""
    import torch
    from transformers import AutoModelForCausalLM

    auto: Any = AutoModelForCausalLM
    with torch.device("meta"):
        model = auto.from_config(model_config)
    return sum(parameter.numel() for parameter in model.parameters())


def _statistics(data: Path) -> dict[str, Any]:
    path = data / "stats.json"
    found: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    return found
