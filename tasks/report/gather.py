"""Artifacts in storage -> the story that the page tells."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pyarrow.parquet as pq

from tasks.artifacts import Artifact, FormattedDataset, Role
from tasks.evidence import EvalReport, Score, SliceScore
from tasks.golden_rows import golden_rows
from tasks.intervals import share_of
from tasks.looks import count_looks
from tasks.objects import Store
from tasks.report.answers import ScoredAnswer, choose, count_verdicts
from tasks.report.config import ReportConfig
from tasks.report.confusion import confusion
from tasks.report.formatting import example, format_check
from tasks.report.slices import slice_scores
from tasks.report.story import CheckStory, DataStory, Story
from tasks.report.summary import RunRecords
from tasks.report.training_log import training_story
from tasks.scores import MetricScores, from_columns, reduce
from tasks.storage import fetch


def gather(
    store: Store, records: RunRecords, primary: str, config: ReportConfig, config_yaml: str
) -> Story:
    """Read back what the page shows: discards, the loss curve, and answers side by side."""
    rows = scored_answers(store, records, primary)
    is_classification = "macro_f1" in records.reports["candidate"].metrics
    return Story(
        data=_data(store, records),
        training=training_story(
            # A sweep's other trainings are known only once all are done: not to the log of one.
            {**_json(store, records.adapter, "log.json"), "sweep": records.adapter.sweep},
            records.adapter,
            records.formatted,
        ),
        answers=choose(rows, config.num_answers),
        config_yaml=config_yaml,
        num_by_verdict=count_verdicts(rows),
        confusion=confusion(rows) if is_classification else None,
    )


def _data(store: Store, records: RunRecords) -> DataStory:
    dataset, formatted = records.dataset, records.formatted
    stats = _json(store, dataset, "stats.json")
    checks = [_check(step, stats["samples"]) for step in stats["steps"]]
    tokens = _statistics(store, formatted)
    if tokens or formatted.num_rejected:
        checks.append(format_check(tokens, formatted.num_rejected, dataset.num_out))
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
        example=example(tokens),
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
    if golden.num_sealed:
        opened = count_looks(store, golden.sealed)
        notes.append(
            f"{golden.num_sealed:,} of its {golden.num_out:,} rows are sealed, for candidates that "
            f"are about to be promoted; they have been looked at {opened.looks:,} times, for "
            f"{opened.models:,} models."
        )
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


def _statistics(store: Store, formatted: FormattedDataset) -> dict[str, Any]:
    """What formatting counted; nothing for a set that an older version made."""
    path = fetch(store, formatted.uri, formatted.digest) / "stats.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def scored_answers(store: Store, records: RunRecords, primary: str) -> list[ScoredAnswer]:
    """Every golden row with both answers and their values of the primary metric."""
    baseline = records.decision.baseline
    theirs = _answers(store, records.reports[baseline], primary)
    ours = _answers(store, records.reports["candidate"], primary)
    return [_pair(baseline, theirs[identity], row) for identity, row in ours.items()]


def gather_slices(
    store: Store, records: RunRecords, primary: str, config: ReportConfig
) -> tuple[list[SliceScore], dict[str, int]]:
    """The primary metric on parts of the golden set; raises as ``slice_scores`` does."""
    rows = golden_rows(store, records.golden)
    roles: tuple[Role, Role] = ("candidate", records.decision.baseline)
    ours, theirs = (_primary_scores(store, records.reports[role], primary) for role in roles)
    return slice_scores(rows, ours, theirs, config)


def share_of_reference(store: Store, records: RunRecords, primary: str) -> Score | None:
    """The candidate's primary metric as a share of the reference's; None without a reference, or
    where less is better.
    """
    if "reference" not in records.reports:
        return None
    roles: tuple[Role, Role] = ("candidate", "reference")
    ours, theirs = (_primary_scores(store, records.reports[role], primary) for role in roles)
    return share_of(ours, theirs) if ours.higher_is_better else None


def _primary_scores(store: Store, report: EvalReport, primary: str) -> MetricScores:
    ids, scores = from_columns(
        pq.read_table(fetch(store, report.uri, report.digest) / "scores.parquet")
    )
    return replace(scores[primary], ids=scores[primary].ids or ids)


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
    metric = _primary_scores(store, report, primary)
    values = reduce(metric.reducer, metric.stats[:, None, :])
    by_id = dict(zip(metric.ids or (), values.tolist(), strict=True))
    return {row["id"]: {**row, "score": by_id.get(row["id"], 0.0)} for row in rows}


def _json(store: Store, artifact: Artifact, name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(
        (fetch(store, artifact.uri, artifact.digest) / name).read_text()
    )
    return loaded
