"""One training by the engine that the config names -> the files of its artifact."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tasks.artifacts import Adapter, FormattedDataset, Record, TaskConfig
from tasks.base_model import load_tokenizer, native_dtype
from tasks.errors import ConfigError
from tasks.evidence import Foreseen
from tasks.example import Example, from_table
from tasks.objects import Store, open_store
from tasks.openai_client import make_client
from tasks.storage import digest_of, fetch
from tasks.train.adapters import weights_digest
from tasks.train.cautions import cautions
from tasks.train.config import EVAL_LOSS, TrainConfig
from tasks.train.estimate.budget import describe
from tasks.train.finetune import finetune
from tasks.train.guards import BadBatchError
from tasks.train.hosted.data import NumTokens, upload_file
from tasks.train.hosted.training import (
    HostedTraining,
    check_hosted,
    estimated_usd,
    save_hosted,
    train_hosted,
)
from tasks.train.job import Job, Training, prepare
from tasks.train.launch import train_in_processes
from tasks.train.outputs import LOG, curve_cautions, finish
from tasks.train.watch import Report

logger = logging.getLogger(__name__)


class Finished(Record):
    """A training whose files are complete, and what its record tells."""

    adapter_digest: str
    method: str
    engine: str
    num_steps: int
    best_step: int
    train_loss: float
    validation_loss: float
    metric: str
    metric_value: float
    tokens_per_second: float
    seconds: float
    cautions: dict[str, str]

    def adapter(self, dataset: FormattedDataset, uri: str, digest: str, run_id: str) -> Adapter:
        """The record that travels on."""
        return Adapter(
            uri=uri,
            digest=digest,
            num_in=dataset.num_out,
            num_out=dataset.num_train,
            base_model=dataset.base_model,
            training_run_id=run_id,
            **self.model_dump(),
        )


def run(
    dataset: FormattedDataset,
    data: Path,
    output: Path,
    config: TrainConfig,
    task: TaskConfig,
    name: str,
    key: str,
    report: Report,
) -> Finished:
    """Train on the formatted rows in ``data``; ``output`` is what the artifact will hold.

    Raises as ``finetune`` and ``train_hosted`` do.
    """
    if config.engine == "openai":
        return _hosted(dataset, data, output, config, key, report)
    if config.precision == "auto":
        config = config.model_copy(update={"precision": native_dtype()})
        logger.info("train: computing in %s", config.precision)
    job = Job(data=data, output=output, base=dataset.base_model, config=config, task=task, key=key)
    prepared = prepare(job)
    try:
        several = config.devices.num_processes > 1
        training = train_in_processes(job, report) if several else finetune(job, report)
    except BadBatchError as error:
        raise _kept(error, open_store(), key) from error
    identity = {
        "name": name,
        "data_digest": dataset.digest,
        "config_digest": digest_of(config.model_dump(mode="json")),
    }
    finish(job, prepared, training, identity)
    return _finished(
        weights_digest(output),
        config,
        training,
        {**prepared.cautions, **curve_cautions(training, job)},
    )


def plan(
    dataset: FormattedDataset, data: Path, output: Path, config: TrainConfig, task: TaskConfig
) -> Foreseen:
    """What ``run`` would take. Raises as it does before it trains."""
    if config.engine == "openai":
        check_hosted(config)
        rows = _examples(dataset, data, "train")
        told = upload_file("train", rows, _counter(dataset))
        return Foreseen(
            stage="train",
            cached=False,
            usd=estimated_usd(told.num_tokens, config),
            detail=f"{told.num_tokens:,} tokens an epoch by an API, whose time is its own",
        )
    if config.precision == "auto":
        config = config.model_copy(update={"precision": native_dtype()})
    job = Job(data=data, output=output, base=dataset.base_model, config=config, task=task, key="")
    found = prepare(job).plan
    return Foreseen(
        stage="train",
        cached=False,
        seconds=found.seconds,
        usd=found.usd,
        detail="; ".join(describe(found)),
    )


def _finished(
    digest: str, config: TrainConfig, training: Training, found: dict[str, str]
) -> Finished:
    names = set(Finished.model_fields) & set(Training.model_fields)
    return Finished(
        adapter_digest=digest,
        method=config.method,
        engine=config.engine,
        cautions=found,
        **training.model_dump(include=names),
    )


def _kept(error: BadBatchError, store: Store, key: str) -> BadBatchError:
    """The same error, its rows where they outlive this machine's folder."""
    place = f"bad_batches/{key}/{error.file.name}"
    store.put(place, error.file)
    message = str(error).replace(str(error.file), f"{store.root}/{place}")
    return BadBatchError(message, error.file)


# ------------------------------------------------------------------------------ a fine-tuning API


def _hosted(
    dataset: FormattedDataset,
    data: Path,
    output: Path,
    config: TrainConfig,
    key: str,
    report: Report,
) -> Finished:
    check_hosted(config)
    rows = {split: _examples(dataset, data, split) for split in ("train", "validation")}
    client = make_client(config.hosted.base_url, os.environ)
    with client:
        training = train_hosted(
            rows["train"],
            rows["validation"],
            config,
            key,
            open_store(),
            client,
            _counter(dataset),
            report,
        )
    digest = save_hosted(training, output)
    (output / LOG).write_text(json.dumps(_hosted_log(training, config), indent=1), "utf-8")
    counts = len(rows["train"]), len(rows["validation"])
    return Finished(
        adapter_digest=digest,
        method=config.method,
        engine=config.engine,
        num_steps=training.num_steps,
        best_step=training.best_step,
        train_loss=training.train_loss,
        validation_loss=training.validation_loss,
        metric=EVAL_LOSS,
        metric_value=training.validation_loss,
        tokens_per_second=training.tokens_per_second,
        seconds=training.seconds,
        cautions=cautions(*counts, 0, None, config),
    )


def _counter(dataset: FormattedDataset) -> NumTokens:
    tokenizer = load_tokenizer(dataset.base_model)
    return lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])


def _examples(dataset: FormattedDataset, data: Path, split: str) -> list[Example]:
    """The examples that were formatted, as they were before: an API has a template of its own."""
    if dataset.examples_uri is None or dataset.examples_digest is None:
        raise ConfigError("This set was formatted by an older version: run format again.")
    folder = fetch(open_store(), dataset.examples_uri, dataset.examples_digest)
    table = pq.read_table(folder / "examples.parquet")
    ids = pq.read_table(data / f"{split}.parquet", columns=["id"]).column("id").to_pylist()
    known = {example.id: example for example in from_table(table)}
    return [known[identity] for identity in dict.fromkeys(ids)]


def _hosted_log(training: HostedTraining, config: TrainConfig) -> dict[str, Any]:
    told = asdict(training)
    return {
        **told,
        "engine": config.engine,
        "metric": EVAL_LOSS,
        "usd": training.cost_usd,
        "plan": {"tokens": training.estimated_tokens, "usd": training.estimated_usd},
        "settings": {"method": f"{training.base_model} by API", "epochs": config.epochs},
        "seeds": {"job": config.seed},
    }
