"""The stage ``train`` as Prefect sees it."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact

from tasks.artifacts import Adapter, FormattedDataset
from tasks.objects import open_store
from tasks.stage import stage
from tasks.storage import commit, fetch, scratch
from tasks.train.cautions import size_cautions
from tasks.train.config import TrainConfig

if TYPE_CHECKING:
    from tasks.train.finetune import Training


@stage(
    "train",
    timeout_seconds=48 * 3600,
    libraries=("torch", "transformers", "peft", "trl", "accelerate"),
)
def train(dataset: FormattedDataset, config: TrainConfig, name: str) -> Adapter:
    """Train a LoRA adapter and keep the checkpoint of least validation loss."""
    # torch, TRL and MLflow take ten seconds to import: only the process that trains pays for them.
    from tasks.train.finetune import adapter_digest, finetune
    from tasks.train.tracking import Tracker, flatten

    tracker = Tracker(name, f"train-{dataset.digest[:12]}", {"data_digest": dataset.digest})
    tracker.params({**flatten(config.model_dump()), "base_model": dataset.base_model.id})
    progress = _progress(f"train-{dataset.digest[:12]}")

    def report(metrics: dict[str, float], step: int, share: float) -> None:
        tracker.metrics(metrics, step)
        update_progress_artifact(progress, 100 * share)

    store = open_store()
    data = fetch(store, dataset.uri, dataset.digest)
    try:
        with scratch() as folder:
            training = finetune(data, dataset.base_model, config, folder, report)
            _write_log(training, folder)
            digest_of_adapter = adapter_digest(folder)
            uri, digest = commit(store, "train", folder)
    except BaseException:  # a stop from outside too: the MLflow run is not to say RUNNING for ever
        tracker.end("FAILED", {})
        raise
    tracker.end("FINISHED", {"adapter_digest": digest_of_adapter, "adapter_uri": uri})
    cautions = size_cautions(dataset.num_train, config)
    return _record(dataset, training, uri, digest, digest_of_adapter, tracker.run_id, cautions)


def _record(
    dataset: FormattedDataset,
    training: Training,
    uri: str,
    digest: str,
    digest_of_adapter: str,
    run_id: str,
    cautions: dict[str, str],
) -> Adapter:
    return Adapter(
        uri=uri,
        digest=digest,
        num_in=dataset.num_out,
        num_out=dataset.num_train,
        base_model=dataset.base_model,
        adapter_digest=digest_of_adapter,
        training_run_id=run_id,
        num_steps=training.num_steps,
        best_step=training.best_step,
        train_loss=training.train_loss,
        validation_loss=training.validation_loss,
        tokens_per_second=training.tokens_per_second,
        seconds=training.seconds,
        cautions=cautions,
    )


def _write_log(training: Training, folder: Path) -> None:
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    (folder / "log.json").write_text(json.dumps(asdict(training), indent=1))


def _progress(key: str) -> UUID:
    return create_progress_artifact(0.0, key=key, description="Training")  # type: ignore[return-value]
