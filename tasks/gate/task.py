"""The stage ``gate`` as Prefect sees it."""

from __future__ import annotations

import json

import pyarrow.parquet as pq

from tasks.artifacts import EvalReport, GateDecision, Role
from tasks.gate.config import GateConfig
from tasks.gate.decide import ContestantScores, decide
from tasks.objects import Store, open_store
from tasks.scores import from_columns
from tasks.stage import stage
from tasks.storage import commit, fetch, scratch


@stage("gate", timeout_seconds=1800, libraries=("scipy", "numpy"))
def gate(reports: dict[Role, EvalReport], config: GateConfig) -> GateDecision:
    """Decide whether the candidate may replace the champion, or the base when there is none."""
    store = open_store()
    baseline: Role = "champion" if "champion" in reports else "base"
    candidate = _scores(store, "candidate", reports["candidate"])
    verdict = decide(candidate, _scores(store, baseline, reports[baseline]), config)
    with scratch() as folder:
        record = {
            "outcome": verdict.outcome,
            "reasons": verdict.reasons,
            "baseline": baseline,
            "differences": [d.model_dump() for d in verdict.differences],
        }
        (folder / "decision.json").write_text(json.dumps(record, indent=1))
        uri, digest = commit(store, "gate", folder)
    return GateDecision(
        uri=uri,
        digest=digest,
        num_in=len(candidate.ids),
        num_out=len(candidate.ids),
        outcome=verdict.outcome,
        reasons=verdict.reasons,
        differences=verdict.differences,
        baseline=baseline,
        baseline_adapter_digest=reports[baseline].adapter_digest,
        adapter_digest=reports["candidate"].adapter_digest or "",
    )


def _scores(store: Store, role: Role, report: EvalReport) -> ContestantScores:
    table = pq.read_table(fetch(store, report.uri, report.digest) / "scores.parquet")
    ids, scores = from_columns(table)
    return ContestantScores(role, report.adapter_digest, scores, ids, report.judge)
