"""The summary and the page -> the local folder, S3 and MLflow."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mlflow.entities import Metric, RunTag
from mlflow.tracking import MlflowClient
from pydantic import ValidationError

from tasks.evidence import RunSummary, approval_tags
from tasks.objects import Store
from tasks.report.answers import ScoredAnswer
from tasks.storage import local_folder

REPORT, SUMMARY, ANSWERS = "report.html", "summary.json", "answers.json"
_TAG_CHARACTERS = 5000  # MLflow's limit for a tag's value


def local_runs() -> Path:
    """Where this machine keeps the runs' summaries and pages."""
    return local_folder() / "runs"


def to_folder(summary: RunSummary, page: str) -> Path:
    """Write both under ``.local/runs/<flow-run-id>`` and point ``latest`` to it, each at once."""
    runs = local_runs()
    folder = runs / summary.flow_run_id
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / REPORT, page)
    _write(folder / SUMMARY, summary.model_dump_json(indent=1))
    link = runs / f".latest.{os.getpid()}"
    link.unlink(missing_ok=True)
    link.symlink_to(summary.flow_run_id)
    link.replace(runs / "latest")
    return folder


def preview_to_folder(summary: RunSummary) -> None:
    """Write what a dry run tells; ``latest`` stays with the last run that decided something."""
    folder = local_runs() / summary.flow_run_id
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / SUMMARY, summary.model_dump_json(indent=1))


def preview_to_store(store: Store, summary: RunSummary) -> None:
    """The same in storage."""
    body = summary.model_dump_json(indent=1).encode()
    store.put_bytes(f"runs/{summary.flow_run_id}/{SUMMARY}", body)


def past(name: str) -> list[RunSummary]:
    """This machine's completed runs of a model, the newest first; older forms tell nothing."""
    found = []
    files = local_runs().glob(f"*/{SUMMARY}")
    for file in sorted(files, key=lambda file: file.stat().st_mtime, reverse=True):
        with contextlib.suppress(ValidationError):
            summary = RunSummary.model_validate_json(file.read_bytes())
            if (summary.name, summary.status) == (name, "completed"):
                found.append(summary)
    return found


def to_store(store: Store, summary: RunSummary, page: str) -> None:
    """The same two files under ``runs/<flow-run-id>`` in storage."""
    prefix = f"runs/{summary.flow_run_id}"
    store.put_bytes(f"{prefix}/{REPORT}", page.encode())
    store.put_bytes(f"{prefix}/{SUMMARY}", summary.model_dump_json(indent=1).encode())


def to_mlflow(
    client: MlflowClient,
    summary: RunSummary,
    folder: Path,
    answers: Sequence[ScoredAnswer] = (),
) -> str:
    """One MLflow run for the retrain run: scores as metrics, the summary as tags, both files, and
    the answers as a table.

    A repeated call finds the run by its tag. Answers the address of the page in MLflow's UI.
    """
    experiment = client.get_experiment_by_name(summary.name)
    experiment_id = experiment.experiment_id if experiment else _create(client, summary.name)
    found = client.search_runs([experiment_id], f"tags.flow_run_id = '{summary.flow_run_id}'")
    run = found[0] if found else client.create_run(experiment_id, run_name=summary.flow_run_name)
    run_id = run.info.run_id
    now = run.info.start_time
    metrics = [
        Metric(f"{role}.{name}", score.value, now, 0)
        for role, scores in summary.metrics.items()
        for name, score in scores.items()
    ]
    client.log_batch(run_id, metrics=metrics, tags=_tags(summary))
    for name in (REPORT, SUMMARY):
        client.log_artifact(run_id, str(folder / name))
    known = {file.path for file in client.list_artifacts(run_id)}
    if answers and ANSWERS not in known:  # a table of the same name would grow
        client.log_table(run_id, _columns(answers), ANSWERS)
    client.set_terminated(run_id, "FINISHED" if summary.status == "completed" else "FAILED")
    return f"{_mlflow()}/#/experiments/{experiment_id}/runs/{run_id}/artifacts/{REPORT}"


def version_address(model: str, version: str) -> str:
    """Where MLflow's UI shows a version of a model."""
    return f"{_mlflow()}/#/models/{model}/versions/{version}"


def _mlflow() -> str:
    return os.environ.get("MLFLOW_TRACKING_URI", "").rstrip("/")


def _tags(summary: RunSummary) -> list[RunTag]:
    values = {
        "flow_run_id": summary.flow_run_id,
        "status": summary.status,
        "decision": summary.decision or "",
        "reasons": "\n".join(summary.reasons),
        "data_digest": summary.data.get("digest", ""),
        **{key: value or "" for key, value in summary.lineage.items()},
        **approval_tags(summary.approval),
        "summary": summary.model_dump_json(),
    }
    return [RunTag(key, str(value)[:_TAG_CHARACTERS]) for key, value in values.items()]


def _columns(answers: Sequence[ScoredAnswer]) -> dict[str, list[Any]]:
    rows = [asdict(answer) for answer in answers]
    return {name: [row[name] for row in rows] for name in rows[0]}


def _create(client: MlflowClient, name: str) -> str:
    return str(client.create_experiment(name))


def _write(path: Path, text: str) -> None:
    """Whole or not at all: a reader never sees half a summary."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
