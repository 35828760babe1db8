"""A finished training -> what else its artifact holds: merged model, model card and log."""

from __future__ import annotations

import json
import shutil
from typing import Any

from tasks.train.batches import load_split
from tasks.train.card import CardFacts, model_card
from tasks.train.finetune import CHECKPOINTS, UPLOADS
from tasks.train.guards import divergence, overfitting_gap
from tasks.train.job import Job, Prepared, Training
from tasks.train.merge import MergeReport, merge

MERGED = "merged"
LOG = "log.json"
_NUM_CHECKED = 32  # validation rows on which a merge is checked
_SCRATCH = (CHECKPOINTS, f"{UPLOADS}-*")
_SCRATCH_FILES = ("job.json", "training.json")


def curve_cautions(training: Training, job: Job) -> dict[str, str]:
    """What the losses say against the model, by a stable name."""
    diverged = divergence(training.history, job.config.guards.divergence)
    return {"validation_diverged": diverged} if diverged else {}


def finish(
    job: Job, prepared: Prepared, training: Training, identity: dict[str, str]
) -> dict[str, Any]:
    """Write merged model, card and log beside the weights; answers the log.

    ``identity`` holds ``name``, ``data_digest`` and ``config_digest``. Raises TrainingError for a
    merge that does not answer as the adapter does.
    """
    folder = job.output
    for name in _SCRATCH:
        for left in folder.glob(name):
            shutil.rmtree(left, ignore_errors=True)
    for name in _SCRATCH_FILES:
        (folder / name).unlink(missing_ok=True)
    cautions = {**prepared.cautions, **curve_cautions(training, job)}
    checked = _merge(job) if job.config.merge and job.config.method != "full" else None
    card = model_card(_facts(job, prepared, training, identity, cautions))
    (folder / "README.md").write_text(card, "utf-8")
    log = log_of(job, prepared, training, checked)
    (folder / LOG).write_text(json.dumps(log, indent=1), "utf-8")
    return log


def log_of(
    job: Job, prepared: Prepared, training: Training, merged: MergeReport | None
) -> dict[str, Any]:
    """What ``log.json`` holds: the training, its plan, its settings and seeds."""
    config = job.config
    return {
        **training.model_dump(mode="json"),
        "method": config.method,
        "engine": config.engine,
        "settings": config.model_dump(mode="json", exclude={"sweep", "budget", "hosted"}),
        # transformers, the order of the rows and the adapter's first weights draw from one.
        "seeds": {"weights": config.seed, "order": config.seed, "dropout": config.seed},
        "plan": prepared.plan.model_dump(mode="json"),
        "trained_tokens": _trained_tokens(prepared, training),
        "overfitting_gap": overfitting_gap(training.history),
        "merge": merged.model_dump(mode="json") if merged else None,
    }


def _trained_tokens(prepared: Prepared, training: Training) -> int:
    """Tokens with a label that were trained on: the plan's, for the steps that were made."""
    plan = prepared.plan
    return round(plan.trained_tokens * training.num_steps / plan.schedule.steps)


def _merge(job: Job) -> MergeReport:
    rows = load_split(job.data, "validation")
    checked = [rows[i] for i in range(min(_NUM_CHECKED, len(rows)))]
    return merge(job.base, job.output, job.output / MERGED, job.config, checked)


def _facts(
    job: Job,
    prepared: Prepared,
    training: Training,
    identity: dict[str, str],
    cautions: dict[str, str],
) -> CardFacts:
    best = next(
        (
            line
            for line in training.history
            if line["step"] == training.best_step and "eval_loss" in line
        ),
        {},
    )
    metrics = {
        name.removeprefix("eval_"): value
        for name, value in best.items()
        if name.startswith("eval_") and not name.endswith(("_runtime", "_per_second"))
    }
    return CardFacts(
        base=job.base,
        config=job.config,
        num_rows={
            "train": prepared.plan.num_rows,
            "validation": len(load_split(job.data, "validation")),
        },
        num_trained_tokens=None,
        sources=prepared.num_by_source,
        metrics=metrics,
        cautions=cautions,
        merged=False,
        **identity,
    )
