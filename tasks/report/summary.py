"""What the stages left behind -> the run's summary, its contract with everything outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from tasks.artifacts import (
    Adapter,
    CleanDataset,
    DriftReport,
    FormattedDataset,
    GoldenSet,
    Lineage,
    ModelVersion,
    RawSnapshot,
    Record,
    Role,
    StageRun,
    StageState,
)
from tasks.evidence import Comparison, EvalReport, GateDecision, RunSummary, Score


class RunRecords(Record):
    """Everything that a finished run made, in the order in which it was made."""

    raw: RawSnapshot
    dataset: CleanDataset
    drift: DriftReport | None = None
    golden: GoldenSet
    formatted: FormattedDataset
    adapter: Adapter
    reports: dict[Role, EvalReport]
    comparison: Comparison | None = None
    decision: GateDecision
    model: ModelVersion | None
    lineage: Lineage

    def promoted(self, model: ModelVersion) -> RunRecords:
        """The same with the candidate in production, or on trial beside what is."""
        decision = self.decision
        if model.alias == "challenger":
            decision = decision.model_copy(update={"outcome": "canary"})
        return self.model_copy(update={"model": model, "decision": decision})


class RunInfo(Record):
    """The run itself: who it is, how long it took, and what its stages did."""

    flow_run_id: str
    flow_run_name: str
    name: str
    seconds: float
    stages: list[StageRun]
    hardware: str


def summarise(info: RunInfo, records: RunRecords) -> RunSummary:
    """The summary of a run that came to a decision."""
    decision, model = records.decision, records.model
    return RunSummary(
        flow_run_id=info.flow_run_id,
        flow_run_name=info.flow_run_name,
        name=info.name,
        status="completed",
        decision=decision.outcome,
        sentence=decision.sentence,
        reasons=decision.reasons,
        settling=decision.settling,
        stages=merge_stages(info.stages),
        metrics=_metrics(records),
        differences=decision.differences,
        model=_model(model, records.adapter),
        data=_data(records),
        lineage=_lineage(records),
        cost={**_cost(info, records.adapter), "judge_usd": _judge_usd(info, records)},
        judge=_judge(records.reports),
        calibration=records.reports["candidate"].calibration,
        comparison=records.comparison,
        approval=decision.approval,
        seconds=round(info.seconds, 1),
        overhead_seconds=_overhead(info),
        cautions=_cautions(records),
    )


def summarise_failure(info: RunInfo, reason: str, *, crashed: bool = False) -> RunSummary:
    """The summary of a run that did not come to a decision."""
    return RunSummary(
        flow_run_id=info.flow_run_id,
        flow_run_name=info.flow_run_name,
        name=info.name,
        status="crashed" if crashed else "failed",
        decision=None,
        reasons=[reason],
        stages=merge_stages(info.stages),
        seconds=round(info.seconds, 1),
        overhead_seconds=_overhead(info),
    )


def merge_stages(runs: Sequence[StageRun]) -> list[dict[str, Any]]:
    """One record a stage, in order of first appearance; its calls stand in ``parts``.

    A stage called for several contestants is ``cached`` only if every call was, and ``failed`` if
    any was.
    """
    order = {name: number for number, name in reversed(list(enumerate(r.name for r in runs)))}
    by_name = sorted(runs, key=lambda run: order[run.name])
    return [_merged(name, list(calls)) for name, calls in groupby(by_name, key=lambda r: r.name)]


def _merged(name: str, calls: Sequence[StageRun]) -> dict[str, Any]:
    merged: dict[str, Any] = {
        "name": name,
        "state": _state([call.state for call in calls]),
        "seconds": round(sum(call.seconds for call in calls), 3),
        "work_seconds": round(sum(call.work_seconds for call in calls), 3),
        "num_in": calls[-1].num_in,
        "num_out": calls[-1].num_out,
        "uri": calls[-1].uri,
    }
    errors = [call.error for call in calls if call.error]
    if errors:
        merged["error"] = errors[-1]
    if any(call.subject for call in calls):
        merged["parts"] = [call.model_dump() for call in calls]
    return merged


def _state(states: Sequence[StageState]) -> StageState:
    if "failed" in states:
        return "failed"
    return "completed" if "completed" in states else "cached"


def _model(model: ModelVersion | None, adapter: Adapter) -> dict[str, Any]:
    """Who is in production after this run; the candidate's digest beside it."""
    return {
        "name": model.name if model else None,
        "version": model.version if model else None,
        "alias": model.alias if model else None,
        "adapter_digest": model.adapter_digest if model else None,
        "candidate_adapter_digest": adapter.adapter_digest,
    }


def _data(records: RunRecords) -> dict[str, Any]:
    dataset, formatted = records.dataset, records.formatted
    return {
        "digest": dataset.digest,
        "uri": dataset.uri,
        "num_train": formatted.num_train,
        "num_val": formatted.num_validation,
        "num_test": dataset.num_test,
        "num_holdout": dataset.num_holdout,
        "num_golden": records.golden.num_out,
        "num_sealed": records.golden.num_sealed,
        "num_read": records.raw.num_in,
        "num_read_anew": records.raw.num_new,
        "num_quarantined": records.raw.num_quarantined,
        "num_forgotten": records.raw.num_forgotten,
        "num_rejected": {**dataset.num_rejected, **formatted.num_rejected},
        "num_redacted": dataset.num_redacted,
        "num_review": dataset.num_review,
        "golden_digest": records.golden.digest,
    }


def _lineage(records: RunRecords) -> dict[str, str | None]:
    base = records.adapter.base_model
    return {
        **records.lineage.model_dump(),
        "base_model": base.id,
        "base_revision": base.revision,
        "base_digest": base.digest,
        "base_license": base.license,
        "adapter_digest": records.adapter.adapter_digest,
        "adapter_uri": records.adapter.uri,
        "training_run_id": records.adapter.training_run_id,
        "decision_uri": records.decision.uri,
    }


def _cost(info: RunInfo, adapter: Adapter) -> dict[str, Any]:
    """Seconds of machine this run used; a cached training used none."""
    trained = any(run.name == "train" and run.state == "completed" for run in info.stages)
    return {
        "hardware": info.hardware,
        "machine_seconds": round(info.seconds, 1),
        "training_seconds": round(adapter.seconds, 1) if trained else 0.0,
    }


def _cautions(records: RunRecords) -> dict[str, str]:
    """What the stages want whoever decides to know, in the order of the stages."""
    drift = records.drift.cautions if records.drift else {}
    return {**records.dataset.cautions, **drift, **records.adapter.cautions}


def _metrics(records: RunRecords) -> dict[str, dict[str, Score]]:
    compared = records.comparison.metrics if records.comparison else {}
    return {
        role: {**report.metrics, **compared.get(role, {})}
        for role, report in records.reports.items()
    }


def _judge(reports: Mapping[Role, EvalReport]) -> str:
    return reports["candidate"].unmeasured.get("judge", "run")


def _judge_usd(info: RunInfo, records: RunRecords) -> float:
    """What this run paid for judgements; a cached evaluation paid nothing."""
    made = {(run.name, run.subject) for run in info.stages if run.state == "completed"}
    spent = sum(r.judge_usd for role, r in records.reports.items() if ("evaluate", role) in made)
    if records.comparison is not None and ("compare", None) in made:
        spent += records.comparison.spent_usd
    return round(spent, 6)


def _overhead(info: RunInfo) -> float:
    """Seconds of the run that no stage's own code can account for."""
    return round(max(0.0, info.seconds - sum(run.work_seconds for run in info.stages)), 1)
