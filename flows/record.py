"""What a flow run knows of itself: its name, its time, its lineage, and how it ended badly."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from typing import Any

from prefect.client.schemas.objects import FlowRun, State
from prefect.context import FlowRunContext
from prefect.flows import Flow
from prefect.runtime import flow_run as current
from pydantic import ValidationError

from flows.config import RetrainConfig, SynthesisConfig
from tasks.artifacts import CleanDataset, Lineage, StageRun
from tasks.report.config import NotifyConfig
from tasks.report.summary import RunInfo
from tasks.report.task import report_failure
from tasks.stage import code_digest, stage_runs, stage_runs_of


def run_name() -> str:
    """What the run is for and when it was to start: ``support-tickets 2026-01-05 03:00``."""
    config = (current.get_parameters() or {}).get("config")
    if isinstance(config, RetrainConfig | SynthesisConfig):
        config = {"name": config.name}
    name = (config or {}).get("name", "?")
    return f"{name} {current.get_scheduled_start_time():%Y-%m-%d %H:%M}"


def lineage_of(dataset: CleanDataset, config: RetrainConfig) -> Lineage:
    """What the model of this run is made from and by."""
    return Lineage(
        flow_run_id=str(current.get_id()),
        data_digest=dataset.digest,
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
