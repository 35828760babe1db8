"""The stage ``train`` as Prefect sees it: one training, or each of a sweep."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact

from tasks.artifacts import Adapter, FormattedDataset, TaskConfig
from tasks.errors import PreemptedError
from tasks.evidence import Foreseen
from tasks.objects import open_store
from tasks.stage import stage
from tasks.storage import commit, fetch, scratch
from tasks.train.config import TrainConfig
from tasks.train.sweep import best_of

logger = logging.getLogger(__name__)
_LIBRARIES = ("torch", "transformers", "peft", "trl", "accelerate", "bitsandbytes", "openai")


def train(dataset: FormattedDataset, config: TrainConfig, task: TaskConfig, name: str) -> Adapter:
    """Fine-tune, and keep the best checkpoint; of a sweep, that of the best training."""
    calls: list[dict[str, Any]] = [
        {"dataset": dataset, "config": variant, "task": task, "name": name}
        for variant in config.variants()
    ]
    adapters = train_one.map(calls) if config.sweep else [train_one(**calls[0])]
    for call in calls:
        _drop_checkpoints(_key(call))
    return best_of(adapters, config) if config.sweep else adapters[0]


def _drop_checkpoints(key: str) -> None:
    """Only after the result is kept: a run that is killed before goes on from the last of them."""
    store = open_store()
    if not any(store.keys_under(f"checkpoints/{key}/")):
        return

    from tasks.train.resume.checkpoints import CheckpointStore  # transformers

    checkpoints = CheckpointStore(store, key)
    checkpoints.delete_all()
    for note in checkpoints.notes:
        logger.warning("train: %s", note)


def _key(arguments: Mapping[str, Any]) -> str:
    """What a training's checkpoints are named by."""
    return train_one.cache_key(arguments).removeprefix("train-")


def foresee_training(
    dataset: FormattedDataset, config: TrainConfig, task: TaskConfig, name: str
) -> list[Foreseen]:
    """What ``train`` would do: each training that is kept already, or its plan.

    Raises as the training would where its config or its budget forbids it.
    """
    variants = config.variants()
    subjects = [str(n) for n in range(1, len(variants) + 1)] if config.sweep else [None]
    return [
        Foreseen(stage="train", subject=subject, cached=True)
        if train_one.known(dataset, variant, task, name)
        else plan_training(dataset, variant, task).model_copy(update={"subject": subject})
        for subject, variant in zip(subjects, variants, strict=True)
    ]


@stage("plan", timeout_seconds=1800, cached=False)
def plan_training(dataset: FormattedDataset, config: TrainConfig, task: TaskConfig) -> Foreseen:
    """The plan of one training: rows and tokens are counted, and nothing is trained."""
    from tasks.train.run import plan

    with scratch() as folder:
        data = fetch(open_store(), dataset.uri, dataset.digest)
        return plan(dataset, data, folder, config, task)


def _is_paid(arguments: Mapping[str, Any]) -> str | None:
    """A fine-tuning API's model depends on which API was asked."""
    config: TrainConfig = arguments["config"]
    return os.environ.get("OPENAI_BASE_URL") if config.engine == "openai" else None


@stage(
    "train",
    timeout_seconds=48 * 3600,
    libraries=_LIBRARIES,
    device="gpu",
    depends=_is_paid,
)
def train_one(
    dataset: FormattedDataset, config: TrainConfig, task: TaskConfig, name: str
) -> Adapter:
    """Train, going on from the last checkpoint of an attempt that was killed."""
    # torch, TRL and MLflow take ten seconds to import: only the process that trains pays for them.
    from tasks.train.run import Finished, run
    from tasks.train.tracking import Tracker, flatten

    arguments = {"dataset": dataset, "config": config, "task": task, "name": name}
    key = _key(arguments)
    tracker = Tracker(name, f"train-{dataset.digest[:12]}", {"data_digest": dataset.digest})
    tracker.params({**flatten(config.model_dump()), "base_model": dataset.base_model.id})
    store = open_store()
    try:
        with scratch() as folder:
            data = fetch(store, dataset.uri, dataset.digest)
            report = _report(tracker.metrics, f"train-{key[:12]}")
            finished: Finished = run(dataset, data, folder, config, task, name, key, report)
            uri, digest = commit(store, "train", folder)
    except PreemptedError:
        tracker.end("KILLED", {})
        # The checkpoint is safe; now the signal does what it would have done: Prefect ends the run.
        os.kill(os.getpid(), signal.SIGTERM)
        raise
    except BaseException:
        # Whatever ends it, Ctrl-C and a cancelled run too, is raised again: MLflow alone is told,
        # whose run would say RUNNING for ever.
        tracker.end("FAILED", {})
        raise
    tracker.end("FINISHED", {"adapter_digest": finished.adapter_digest, "adapter_uri": uri})
    return finished.adapter(dataset, uri, digest, tracker.run_id)


def _report(
    metrics: Callable[[Mapping[str, float], int], None], key: str
) -> Callable[[dict[str, float], int, float], None]:
    """Progress in the Prefect UI, and the curves in MLflow."""
    progress: UUID = create_progress_artifact(0.0, key=key, description="Training")  # type: ignore[assignment]

    def report(values: dict[str, float], step: int, share: float) -> None:
        metrics(values, step)
        update_progress_artifact(progress, 100 * share)

    return report
