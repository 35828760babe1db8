"""Show a run's summary to a person: stages, scores, decision, model, and where to look further.

In: ``summary.json`` of a run (``tasks.artifacts.RunSummary``). Out: tables on stdout, plain without
a terminal.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from deployments import environment
from tasks.evidence import RunSummary, Score
from tasks.report import preview

_ROLES = ("base", "base_few_shot", "champion", "candidate", "reference")
_ALWAYS = ("base", "champion", "candidate")
# Rich takes 80 columns for what is not a terminal, which would break the table of scores.
_PLAIN_WIDTH = 140


def read_summary(flow_run_id: str) -> RunSummary | None:
    """The run's summary; None where the run ended before it could write one."""
    file = _folder(flow_run_id) / "summary.json"
    if not file.is_file():
        return None
    return RunSummary.model_validate_json(file.read_text(encoding="utf-8"))


def print_outcome(summary: RunSummary, run_url: str) -> None:
    """Everything a person wants to know of a run, the decision last but for the addresses."""
    console = _console()
    console.print(_stages(summary))
    if summary.status == "dry_run":
        console.print(_foreseen(summary))
        for call in summary.foreseen:
            if call.detail:
                console.print(f"{call.stage}: {escape(call.detail)}", highlight=False)
        console.print(f"[bold]Dry run:[/] {escape(summary.sentence)}", highlight=False)
        console.print(f"Prefect   {run_url}", highlight=False, soft_wrap=True)
        return
    if summary.metrics:
        console.print(_metrics(summary.metrics))
    console.print(_decision(summary), highlight=False)
    for name, value in _further(summary, run_url).items():
        console.print(f"{name:9} {escape(value)}", highlight=False, soft_wrap=True)


def print_failure(state: str, errors: list[str], summary: RunSummary | None) -> None:
    """Why a run failed: the failing stage's own message where there is one."""
    console = _console()
    told = [
        f"{stage['name']}: {stage['error']}"
        for stage in (summary.stages if summary else [])
        if stage.get("error")
    ]
    console.print(f"[bold red]The run failed.[/] {escape(state)}", highlight=False, soft_wrap=True)
    for error in told or errors:
        console.print(f"  {escape(error)}", highlight=False, soft_wrap=True)
    console.print(f"Logs of the worker: {environment.local()}/logs/worker.log", soft_wrap=True)


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=_PLAIN_WIDTH)


def _folder(flow_run_id: str) -> Path:
    return environment.local() / "runs" / flow_run_id


def _stages(summary: RunSummary) -> Table:
    table = Table("stage", "state", box=SIMPLE, title="Stages", title_justify="left")
    for column in ("seconds", "in", "out"):
        table.add_column(column, justify="right")
    for stage in summary.stages:
        subject = f" ({stage['subject']})" if stage.get("subject") else ""
        table.add_row(
            f"{stage['name']}{subject}",
            stage["state"],
            f"{stage['seconds']:.1f}",
            _count(stage.get("num_in")),
            _count(stage.get("num_out")),
        )
    return table


def _foreseen(summary: RunSummary) -> Table:
    table = Table("step", "", box=SIMPLE, title="What a run would do", title_justify="left")
    for column in ("time", "at most $"):
        table.add_column(column, justify="right")
    for row in preview.rows(summary.foreseen):
        table.add_row(*map(escape, row))
    return table


def _metrics(metrics: dict[str, dict[str, Score]]) -> Table:
    roles = [role for role in _ROLES if role in metrics or role in _ALWAYS]
    table = Table("metric", box=SIMPLE, title="Scores [low, high]", title_justify="left")
    for role in roles:
        table.add_column(role, justify="right")
    for metric in dict.fromkeys(name for scores in metrics.values() for name in scores):
        row = [_score(metrics.get(role, {}).get(metric)) for role in roles]
        table.add_row(metric, *row)
    return table


def _score(score: Score | None) -> str:
    if score is None:
        return "-"
    return escape(f"{score.value:.3f} [{score.ci_low:.3f}, {score.ci_high:.3f}]")


def _count(number: Any) -> str:
    return "-" if number is None else f"{number:,}"


def _decision(summary: RunSummary) -> str:
    reasons = "; ".join(summary.reasons)
    return f"[bold]Decision: {summary.decision or 'none'}[/] {escape(reasons)}".rstrip()


def _further(summary: RunSummary, run_url: str) -> dict[str, str]:
    at, model = environment.addresses(), summary.model
    lines = {}
    if model.get("version"):
        alias = f" ({model['alias']})" if model.get("alias") else ""
        lines["Model"] = f"{model['name']} version {model['version']}{alias}"
    if summary.report:
        lines["Report"] = summary.report
    page = f"/#/models/{model['name']}" if model.get("name") else ""
    store = os.environ.get("RETUNE_STORE", f"s3://{environment.bucket()}")
    return lines | {
        "Summary": str(_folder(summary.flow_run_id) / "summary.json"),
        "Prefect": run_url,
        "MLflow": at["MLflow"] + page,
        "S3": f"{store} at {at['S3']}",
    }
