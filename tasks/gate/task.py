"""The stages ``gate`` and ``confirm`` as Prefect sees them."""

from __future__ import annotations

from tasks.artifacts import Role
from tasks.evidence import Comparison, EvalReport, GateDecision
from tasks.gate.config import GateConfig
from tasks.gate.decide import Verdict
from tasks.gate.record import decide_reports, write
from tasks.gate.sealed import held_against, on_sealed_rows
from tasks.objects import open_store
from tasks.stage import stage
from tasks.storage import commit, scratch


@stage("gate", timeout_seconds=1800, libraries=("scipy", "numpy"))
def gate(
    reports: dict[Role, EvalReport], comparison: Comparison, config: GateConfig
) -> GateDecision:
    """Decide whether the candidate may replace the champion, or the base when there is none."""
    verdict, serving, (uri, digest) = _decided("gate", reports, comparison, config)
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


@stage("confirm", timeout_seconds=1800, libraries=("scipy", "numpy"))
def confirm(
    decision: GateDecision,
    reports: dict[Role, EvalReport],
    comparison: Comparison,
    config: GateConfig,
) -> GateDecision:
    """Hold a decision to promote against the sealed rows, by the rules that these must confirm."""
    verdict, _, (uri, digest) = _decided("confirm", reports, comparison, config)
    count = reports["candidate"].num_out
    changed = held_against(decision, on_sealed_rows(verdict), count)
    place = {"uri": uri, "digest": digest, "num_in": count, "num_out": count}
    return decision.model_copy(update=changed | place)


def _decided(
    stage_name: str, reports: dict[Role, EvalReport], comparison: Comparison, config: GateConfig
) -> tuple[Verdict, Role, tuple[str, str]]:
    """The verdict, who serves, and where both were stored with what they were made of."""
    store = open_store()
    verdict, serving = decided = decide_reports(store, reports, comparison, config)
    with scratch() as folder:
        write(folder, reports, comparison, config, decided)
        stored = commit(store, stage_name, folder)
    return verdict, serving, stored
