"""The stages round the model registry as Prefect sees them: never cached."""

from __future__ import annotations

from datetime import UTC, datetime

from tasks.artifacts import Adapter, Lineage, ModelVersion, ParityReference
from tasks.evidence import GateDecision, Rollback
from tasks.stage import stage
from tasks.trial import TrialTerms, Verdict


@stage("find_champion", timeout_seconds=300, cached=False)
def find_champion(name: str) -> ModelVersion | None:
    """Who is in production now, if anybody."""
    from mlflow.tracking import MlflowClient

    from tasks.registry import versions

    return versions.find(MlflowClient(), name, versions.CHAMPION)


@stage("heed_withdrawals", timeout_seconds=300, cached=False)
def heed_withdrawals(decision: GateDecision, name: str) -> GateDecision:
    """What was rolled back stays out, whatever its figures say."""
    from mlflow.tracking import MlflowClient

    from tasks.registry import rollback

    return rollback.heeded(MlflowClient(), decision, name)


@stage("promote", timeout_seconds=600, cached=False)
def promote(
    adapter: Adapter,
    decision: GateDecision,
    lineage: Lineage,
    parity: ParityReference | None,
    canary: TrialTerms | None,
    name: str,
) -> ModelVersion:
    """Register the candidate with its lineage, and make it champion, or challenger first."""
    from mlflow.tracking import MlflowClient

    from tasks.registry import trials, versions

    client, now = MlflowClient(), datetime.now(UTC)
    if canary is not None:
        return trials.begin(client, name, adapter, decision, lineage, parity, canary, now)
    return versions.promote(client, name, adapter, decision, lineage, parity)


@stage("settle", timeout_seconds=300, cached=False)
def settle(verdict: Verdict) -> Verdict:
    """Do what a trial on live traffic has shown."""
    from mlflow.tracking import MlflowClient

    from tasks.registry import trials

    return trials.settle(MlflowClient(), verdict, datetime.now(UTC))


@stage("restore", timeout_seconds=300, cached=False)
def restore(name: str, to: str | None, by: str, reason: str, readmit: bool) -> Rollback:
    """Make an earlier version champion, and withdraw the one that was."""
    from mlflow.tracking import MlflowClient

    from tasks.registry import rollback

    now = datetime.now(UTC)
    return rollback.roll_back(MlflowClient(), name, to, by, reason, now, readmit=readmit)
