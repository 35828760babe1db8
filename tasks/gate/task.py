"""The stage ``gate`` as Prefect sees it."""

from __future__ import annotations

from tasks.artifacts import Role
from tasks.evidence import Comparison, EvalReport, GateDecision
from tasks.gate.config import GateConfig
from tasks.gate.record import decide_reports, write
from tasks.objects import open_store
from tasks.stage import stage
from tasks.storage import commit, scratch


@stage("gate", timeout_seconds=1800, libraries=("scipy", "numpy"))
def gate(
    reports: dict[Role, EvalReport], comparison: Comparison, config: GateConfig
) -> GateDecision:
    """Decide whether the candidate may replace the champion, or the base when there is none."""
    store = open_store()
    verdict, serving = decided = decide_reports(store, reports, comparison, config)
    with scratch() as folder:
        write(folder, reports, comparison, config, decided)
        uri, digest = commit(store, "gate", folder)
    candidate = reports["candidate"]
    return GateDecision(
        uri=uri,
        digest=digest,
        num_in=candidate.num_out,
        num_out=candidate.num_out,
        outcome=verdict.outcome,
        sentence=verdict.sentence,
        reasons=verdict.reasons,
        settling=verdict.settling,
        differences=verdict.differences,
        baseline=serving,
        baseline_adapter_digest=reports[serving].adapter_digest,
        adapter_digest=candidate.adapter_digest or "",
    )
