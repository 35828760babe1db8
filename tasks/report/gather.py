"""Artifacts in storage -> the story that the page tells."""

from __future__ import annotations

import json
from typing import Any

import pyarrow.parquet as pq

from tasks.artifacts import Artifact, EvalReport, Role
from tasks.looks import count_looks
from tasks.objects import Store
from tasks.report.answers import ScoredAnswer, choose, count_verdicts
from tasks.report.config import ReportConfig
from tasks.report.story import CheckStory, DataStory, Story, TrainingStory
from tasks.report.summary import RunRecords
from tasks.scores import from_columns, reduce
from tasks.storage import fetch


def gather(
    store: Store, records: RunRecords, primary: str, config: ReportConfig, config_yaml: str
) -> Story:
    """Read back what the page shows: discards, the loss curve, and answers side by side."""
    rows = _scored_answers(store, records, primary)
    return Story(
        data=_data(store, records),
        training=_training(store, records),
        answers=choose(rows, config.num_answers),
        config_yaml=config_yaml,
        num_by_verdict=count_verdicts(rows),
    )


def _data(store: Store, records: RunRecords) -> DataStory:
    dataset, formatted = records.dataset, records.formatted
    stats = _json(store, dataset, "stats.json")
    checks = [_check(step, stats["samples"]) for step in stats["steps"]]
    left = sum(formatted.num_rejected.values())
    if left:
        checks.append(
            CheckStory(
                name="format",
                num_in=dataset.num_out,
                num_out=dataset.num_out - left,
                num_rejected=formatted.num_rejected,
            )
        )
    return DataStory(
        checks=checks,
        num_quarantined=records.raw.num_quarantined_by_reason,
        num_left_aside=records.raw.num_excluded_by_reason,
        splits={
            "train": formatted.num_train,
            "validation": formatted.num_validation,
            "test": dataset.num_test,
            "holdout": dataset.num_holdout,
        },
        shares=stats["shares"],
        num_review=dataset.num_review,
        review=stats["review"],
        drift=_drift(store, records),
        notes=_notes(store, records),
    )


def _notes(store: Store, records: RunRecords) -> list[str]:
    raw, golden = records.raw, records.golden
    looks = count_looks(store, golden)
    notes = [
        f"{raw.num_new:,} of {raw.num_in:,} rows were read anew, the others are known from earlier "
        "runs.",
        f"The golden set {golden.name} version {golden.version} has been looked at {looks.looks:,} "
        f"times, for {looks.models:,} models; after many looks scores on it flatter.",
    ]
    if raw.num_forgotten:
        notes.append(f"{raw.num_forgotten:,} rows were left out because someone is forgotten.")
    return notes


def _check(step: dict[str, Any], samples: list[dict[str, str]]) -> CheckStory:
    rejected = step["num_rejected"]
    return CheckStory(**step, samples=[s for s in samples if s["reason"] in rejected])


def _drift(store: Store, records: RunRecords) -> list[dict[str, Any]]:
    drift = records.drift
    if drift is None:
        return []
    shifts: list[dict[str, Any]] = _json(store, drift, "drift.json")["shifts"]
    return shifts


def _training(store: Store, records: RunRecords) -> TrainingStory:
    adapter = records.adapter
    log = json.loads((fetch(store, adapter.uri, adapter.digest) / "log.json").read_text())
    return TrainingStory(
        history=log["history"],
        best_step=adapter.best_step,
        figures={
            "steps": adapter.num_steps,
            "tokens/s": round(adapter.tokens_per_second),
            "seconds": round(adapter.seconds),
            "training rows": records.formatted.num_train,
            "trained tokens an epoch": records.formatted.num_trained_tokens,
            "best validation loss": round(adapter.validation_loss, 4),
        },
    )


def _scored_answers(store: Store, records: RunRecords, primary: str) -> list[ScoredAnswer]:
    baseline = records.decision.baseline
    theirs = _answers(store, records.reports[baseline], primary)
    ours = _answers(store, records.reports["candidate"], primary)
    return [_pair(baseline, theirs[identity], row) for identity, row in ours.items()]


def _pair(role: Role, theirs: dict[str, Any], ours: dict[str, Any]) -> ScoredAnswer:
    return ScoredAnswer(
        id=ours["id"],
        prompt=ours["prompt"],
        expected=ours["reference"],
        baseline_role=role,
        baseline=theirs["answer"],
        candidate=ours["answer"],
        baseline_score=theirs["score"],
        candidate_score=ours["score"],
    )


def _answers(store: Store, report: EvalReport, primary: str) -> dict[str, dict[str, Any]]:
    """The answers by row, each with its own value of the primary metric."""
    answers = fetch(store, report.answers.uri, report.answers.digest) / "answers.parquet"
    rows: list[dict[str, Any]] = pq.read_table(answers).to_pylist()
    table = pq.read_table(fetch(store, report.uri, report.digest) / "scores.parquet")
    ids, scores = from_columns(table)
    metric = scores[primary]
    values = reduce(metric.reducer, metric.stats[:, None, :])
    by_id = dict(zip(metric.ids or ids, values.tolist(), strict=True))
    return {row["id"]: {**row, "score": by_id.get(row["id"], 0.0)} for row in rows}


def _json(store: Store, artifact: Artifact, name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(
        (fetch(store, artifact.uri, artifact.digest) / name).read_text()
    )
    return loaded
