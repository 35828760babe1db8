"""The engine ``openai``: examples -> a model that a fine-tuning API trained and keeps.

Paid once: a job is named by its training's key, in its metadata and in the store, and found again
by it (``tasks/train/hosted/job.py``). What remains: a process that stalls longer than
``settle_seconds`` between its intent and its request pays again, and so does the next one where the
API keeps no metadata and a run was killed right then. A job that failed or was cancelled is not
taken up again: the next run asks for a new one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.errors import ConfigError
from tasks.example import Example
from tasks.objects import Store
from tasks.openai_client import HOSTED, HostedModel
from tasks.storage import file_digest
from tasks.train.config import EVAL_LOSS, TrainConfig
from tasks.train.hosted.api import KEY, HostedApi, Job
from tasks.train.hosted.data import NumTokens, upload_file
from tasks.train.hosted.history import Report, Watch, outcome
from tasks.train.hosted.job import SETTLE_SECONDS, OneJob
from tasks.train.hosted.log import JobLog

if TYPE_CHECKING:
    import openai
    from openai.types.fine_tuning.job_create_params import JobCreateParams

# Of the API (reference, "Create fine-tuning job").
_MAX_EPOCHS = 50
_MAX_BATCH = 256


@dataclass(slots=True)
class HostedTraining:
    """What a hosted training came to.

    ``model_id`` is that of the checkpoint of least validation loss, where the API keeps several.
    Losses that it did not tell are not a number. ``cost_usd`` is None where the price or the tokens
    are unknown; ``estimated_usd`` and ``estimated_tokens`` are from before, None for a job that an
    earlier run had created. ``seconds`` are the API's, waiting in its queue included.
    """

    model_id: str
    job_id: str
    base_model: str
    base_url: str | None
    num_steps: int
    best_step: int
    train_loss: float
    validation_loss: float
    seconds: float
    trained_tokens: int | None
    cost_usd: float | None
    estimated_tokens: int | None
    estimated_usd: float | None
    hyperparameters: dict[str, Any]
    files: list[str]
    history: list[dict[str, float]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def tokens_per_second(self) -> float:
        """Trained tokens by the API's clock; not a number where it did not tell."""
        return self.trained_tokens / self.seconds if self.trained_tokens else math.nan

    def model(self) -> HostedModel:
        """The part that serves."""
        return HostedModel(
            model_id=self.model_id,
            job_id=self.job_id,
            base_model=self.base_model,
            base_url=self.base_url,
            trained_tokens=self.trained_tokens,
            cost_usd=self.cost_usd,
        )


def train_hosted(
    train: Sequence[Example],
    validation: Sequence[Example],
    config: TrainConfig,
    key: str,
    store: Store,
    client: openai.OpenAI,
    num_tokens: NumTokens,
    report: Report,
    settle_seconds: float = SETTLE_SECONDS,
) -> HostedTraining:
    """Upload the examples, train on them once, and wait for the model.

    ``key`` names the training (a digest of data and settings); with the same one again, nothing is
    paid again. ``report`` is told of metrics as they come.

    Raises:
        ConfigError: the settings are none that the API knows, cost more than the budget, or are
            refused: the key, the address, the model.
        DataError: rows that the API would refuse.
        TrainingError: the job failed, was cancelled or is gone, or was refused.
        HostedError: the API answers nonsense. Run again to go on.
        openai.APIError: it does not answer, after retries. Run again to go on.
    """
    check_hosted(config)
    api = HostedApi(client)
    one = OneJob(api, JobLog(store, key), key, config.hosted.poll_seconds, settle_seconds)
    estimate: tuple[int | None, float | None] = None, None

    def make_request() -> JobCreateParams:
        nonlocal estimate
        files = [upload_file("train", train, num_tokens)]
        estimate = files[0].num_tokens, estimated_usd(files[0].num_tokens, config)
        files += [upload_file("validation", validation, num_tokens)] if validation else []
        names = ("train", "validation")
        return _request(dict(zip(names, map(api.upload, files), strict=False)), config, key)

    job = one.wait(one.obtain(make_request), Watch(api, report).look)
    came = outcome(api, job)
    return HostedTraining(
        model_id=came.model_id,
        job_id=job.id,
        base_model=job.model,
        base_url=config.hosted.base_url,
        num_steps=came.num_steps,
        best_step=came.best_step,
        train_loss=came.train_loss,
        validation_loss=came.validation_loss,
        seconds=max((job.finished_at or time.time()) - job.created_at, 1.0),
        trained_tokens=job.trained_tokens,
        cost_usd=_cost(job, config),
        estimated_tokens=estimate[0],
        estimated_usd=estimate[1],
        hyperparameters=_hyperparameters(job),
        files=[file for file in (job.training_file, job.validation_file) if file],
        history=came.history,
        notes=[*one.notes, *came.notes],
    )


def check_hosted(config: TrainConfig) -> None:
    """Raises ConfigError for what a fine-tuning API cannot be asked for."""
    if config.epochs != int(config.epochs) or not 1 <= config.epochs <= _MAX_EPOCHS:
        raise ConfigError(
            f"train.epochs is {config.epochs:g}; a fine-tuning API trains 1 to {_MAX_EPOCHS} whole "
            "epochs."
        )
    if _batch(config) > _MAX_BATCH:
        raise ConfigError(
            f"train.batch_size x train.gradient_accumulation is {_batch(config)}; a fine-tuning "
            f"API takes batches of up to {_MAX_BATCH} rows."
        )
    if config.validation.metric != EVAL_LOSS:
        raise ConfigError(
            f"train.validation.metric is {config.validation.metric}; a fine-tuning API only tells "
            f"the validation loss. Set it to {EVAL_LOSS}."
        )
    if config.budget.max_hours is not None:
        raise ConfigError(
            "train.budget.max_hours is set, but how long a fine-tuning API takes is not known "
            "before. Remove it, and limit train.budget.max_usd."
        )


def estimated_usd(num_tokens: int, config: TrainConfig) -> float | None:
    """What a training on so many tokens an epoch is billed; None where the price is unknown.

    Raises ConfigError when it is over the budget, or when there is a budget and no price.
    """
    price, limit = config.hosted.usd_per_million_tokens, config.budget.max_usd
    if price is None:
        if limit is not None:
            raise ConfigError(
                f"train.budget.max_usd is {limit:g}, but what the API costs is not known. Set "
                "train.hosted.usd_per_million_tokens, or remove max_usd."
            )
        return None
    trained = num_tokens * config.epochs
    usd = trained * price / 1e6
    if limit is not None and usd > limit:
        raise ConfigError(
            f"Training would cost about ${usd:.2f} ({trained:,.0f} tokens at ${price:g} a "
            f"million), and train.budget.max_usd is {limit:g}. Lower train.epochs or the number "
            "of rows, or raise max_usd. Nothing was sent."
        )
    return usd


def save_hosted(training: HostedTraining, folder: Path) -> str:
    """Write ``hosted.json`` to ``folder``; answers its digest, the identity of the model."""
    path = folder / HOSTED
    path.write_text(training.model().model_dump_json(indent=1))
    return file_digest(path)


def _request(files: Mapping[str, str], config: TrainConfig, key: str) -> JobCreateParams:
    """The job. The API chooses its own learning rate; the adapter's settings are not its."""
    request: JobCreateParams = {
        "model": config.hosted.model,
        "training_file": files["train"],
        "method": {
            "type": "supervised",
            "supervised": {
                "hyperparameters": {"n_epochs": int(config.epochs), "batch_size": _batch(config)}
            },
        },
        "seed": config.seed,
        "suffix": f"retune-{key[:8]}",
        "metadata": {KEY: key},
    }
    if "validation" in files:
        request["validation_file"] = files["validation"]
    return request


def _batch(config: TrainConfig) -> int:
    return config.batch_size * config.gradient_accumulation


def _cost(job: Job, config: TrainConfig) -> float | None:
    price = config.hosted.usd_per_million_tokens
    if price is None or job.trained_tokens is None:
        return None
    return job.trained_tokens * price / 1e6


def _hyperparameters(job: Job) -> dict[str, Any]:
    """Those that the API used; older answers have them beside the method, newer in it."""
    supervised = (job.method or {}).get("supervised") or {}
    return supervised.get("hyperparameters") or job.hyperparameters or {}
