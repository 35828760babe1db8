"""What a decision was made of and what it was, as files: all that a replay needs.

``inputs.json`` holds the config and each contestant's report, which names its scores by digest;
``decision.json`` the verdict. The same inputs give the same decision, byte for byte.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import pyarrow.parquet as pq
from pydantic import ValidationError

from tasks.artifacts import Role, serving_role
from tasks.errors import DataError
from tasks.evidence import Calibration, Comparison, EvalReport
from tasks.gate.config import JUDGE, PREFERENCE, GateConfig
from tasks.gate.decide import Verdict, decide
from tasks.gate.rules import ContestantScores
from tasks.objects import Store
from tasks.scores import MetricScores, from_columns
from tasks.storage import fetch

INPUTS, DECISION = "inputs.json", "decision.json"
Reports = Mapping[Role, EvalReport]


def decide_reports(
    store: Store, reports: Reports, comparison: Comparison, config: GateConfig
) -> tuple[Verdict, Role]:
    """The verdict on stored scores, and who served when it was made; raises as ``decide`` does."""
    compared = _compared(store, comparison)
    distrust = _distrust(reports["candidate"].calibration, config)
    contestants = {
        role: _scores(store, role, report, compared.get(role, {}), comparison, distrust)
        for role, report in reports.items()
    }
    return decide(contestants, config), serving_role(contestants)


def write(
    folder: Path,
    reports: Reports,
    comparison: Comparison,
    config: GateConfig,
    decided: tuple[Verdict, Role],
) -> None:
    """Write a decision and its inputs."""
    inputs = {
        "config": config.model_dump(mode="json"),
        "reports": {role: report.model_dump(mode="json") for role, report in reports.items()},
        "comparison": comparison.model_dump(mode="json"),
    }
    (folder / INPUTS).write_text(json.dumps(inputs, indent=1))
    (folder / DECISION).write_text(as_text(*decided))


def read_inputs(folder: Path) -> tuple[dict[Role, EvalReport], Comparison, GateConfig]:
    """What ``write`` wrote of the inputs; raises DataError for what another version wrote."""
    inputs = json.loads((folder / INPUTS).read_text())
    try:
        reports = {role: EvalReport.model_validate(r) for role, r in inputs["reports"].items()}
        comparison = Comparison.model_validate(inputs.get("comparison"))
        return reports, comparison, GateConfig.model_validate(inputs["config"])
    except ValidationError as error:
        raise DataError(
            f"The decision's {INPUTS} was written by a version of Retune with other fields; replay "
            f"it with that version: {error}"
        ) from error


def as_text(verdict: Verdict, serving: Role) -> str:
    """A verdict as ``decision.json`` holds it."""
    record = asdict(verdict) | {
        "differences": [d.model_dump(mode="json") for d in verdict.differences],
        "baseline": serving,
    }
    return json.dumps(record, indent=1)


def _scores(
    store: Store,
    role: Role,
    report: EvalReport,
    compared: Mapping[str, MetricScores],
    comparison: Comparison,
    distrust: str | None,
) -> ContestantScores:
    table = pq.read_table(fetch(store, report.uri, report.digest) / "scores.parquet")
    ids, scores = from_columns(table)
    why = comparison.unmeasured or f"compared were {' and '.join(comparison.roles)}"
    unmeasured = report.unmeasured if compared else {**report.unmeasured, PREFERENCE: why}
    scores = {**scores, **compared}
    if distrust is not None:
        judged = scores.keys() & {JUDGE, PREFERENCE}
        unmeasured = {**unmeasured, **dict.fromkeys(judged, distrust)}
        scores = {metric: s for metric, s in scores.items() if metric not in judged}
    return ContestantScores(role, report.adapter_digest, scores, ids, unmeasured)


def _distrust(calibration: Calibration | None, config: GateConfig) -> str | None:
    """Why the judge's grades do not count, though they were given."""
    least = config.min_judge_spearman
    if least is None or (calibration is not None and calibration.spearman >= least):
        return None
    asked = f"gate.min_judge_spearman asks for {least:g}"
    if calibration is None:
        return f"the judge was not calibrated, and {asked}: make calibrate-judge FILE=..."
    return (
        f"the judge agrees with people by a Spearman correlation of {calibration.spearman:.2f} on "
        f"{calibration.num_rows} answers, and {asked}"
    )


def _compared(store: Store, comparison: Comparison) -> dict[Role, dict[str, MetricScores]]:
    if comparison.unmeasured:
        return {}
    folder = fetch(store, comparison.uri, comparison.digest)
    read = {role: pq.read_table(folder / f"{role}.parquet") for role in comparison.roles}
    return {role: from_columns(table)[1] for role, table in read.items()}
