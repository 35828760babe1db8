"""What a flow run knows of itself: its name, its time, its lineage, and how it ended badly."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from typing import Any, get_args

from prefect.client.schemas.objects import FlowRun, State
from prefect.context import FlowRunContext
from prefect.flows import Flow
from prefect.runtime import deployment
from prefect.runtime import flow_run as current
from pydantic import ValidationError

from flows.config import RetrainConfig, SynthesisConfig
from tasks.artifacts import CleanDataset, Lineage, Sources, StageRun
from tasks.collected import Hook
from tasks.report.config import NotifyConfig
from tasks.report.summary import RunInfo
from tasks.report.task import report_failure
from tasks.stage import code_digest, stage_runs, stage_runs_of


def run_name() -> str:
    """What the run is for, when it was to start, and why: ``tickets 2026-01-05 03:00 by hand``."""
    parameters = current.get_parameters() or {}
    config = parameters.get("config")
    if isinstance(config, RetrainConfig | SynthesisConfig):
        config = {"name": config.name}
    name = (config or {}).get("name", "?")
    why = "dry run" if parameters.get("dry_run") else _cause()
    return f"{name} {current.get_scheduled_start_time():%Y-%m-%d %H:%M} {why}".rstrip()


def _cause() -> str:
    """Why the run was started; nothing where it is called as a function."""
    tags = current.get_tags()
    hooks = [hook for hook in get_args(Hook) if hook in tags]
    if hooks:
        return f"new rows of {hooks[0]}"
    if "auto-scheduled" in tags:  # Prefect's own tag for what a schedule started
        return "scheduled"
    return "by hand" if deployment.get_id() else ""


def lineage_of(sources: Sources, dataset: CleanDataset, config: RetrainConfig) -> Lineage:
    """What the model of this run is made from and by."""
    collected = {
        source.collected: file.generation
        for source, files in zip(config.ingest.sources, sources.rows, strict=True)
        for file in files
        if file.generation is not None
    }
    return Lineage(
        flow_run_id=str(current.get_id()),
        data_digest=dataset.digest,
        collected=", ".join(f"{hook} {number}" for hook, number in collected.items()),
        config_digest=config.digest,
        code_digest=code_digest(),
    )


def run_info(config: RetrainConfig) -> RunInfo:
    """The run up to now."""
    context = FlowRunContext.get()
    started = context.start_time if context else datetime.now(UTC)
    return RunInfo(
        flow_run_id=str(current.get_id()),
        flow_run_name=str(current.get_name()),
        name=config.name,
        seconds=(datetime.now(UTC) - started).total_seconds(),
        stages=stage_runs(),
        hardware=hardware(),
    )


def record_failure(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Leave a summary and a page behind for a run that failed."""
    _record(flow_run, state, crashed=False)


def record_crash(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """The same for a run whose process died or was cancelled; then another process tells."""
    _record(flow_run, state, crashed=True)


def _record(flow_run: FlowRun, state: State[Any], *, crashed: bool) -> None:
    stages = stage_runs_of(str(flow_run.id))
    parameters = flow_run.parameters.get("config", {})
    try:
        config = RetrainConfig.model_validate(parameters)
        config_yaml, notify = config.to_yaml(), config.report.notify
    except ValidationError:
        config_yaml, notify = "", NotifyConfig()
    info = RunInfo(
        flow_run_id=str(flow_run.id),
        flow_run_name=flow_run.name,
        name=str(parameters.get("name", "unnamed")),
        seconds=_elapsed(flow_run),
        stages=stages,
        hardware=hardware(),
    )
    report_failure(info, _reason(stages, state), config_yaml, notify, crashed=crashed)


def _reason(stages: list[StageRun], state: State[Any]) -> str:
    failed = [f"{run.name}: {run.error}" for run in stages if run.state == "failed"]
    return failed[-1] if failed else f"{state.name}: {state.message}"


def _elapsed(flow_run: FlowRun) -> float:
    if flow_run.start_time is None:
        return 0.0
    return (datetime.now(UTC) - flow_run.start_time).total_seconds()


def hardware() -> str:
    """What the run was computed on, for its costs."""
    import torch

    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()}x {torch.cuda.get_device_name()}"
    return f"cpu ({platform.machine()}, {torch.get_num_threads()} threads)"
