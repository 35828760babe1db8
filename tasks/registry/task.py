"""The stages ``find_champion`` and ``promote`` as Prefect sees them: never cached."""

from __future__ import annotations

from tasks.artifacts import Adapter, Lineage, ModelVersion
from tasks.evidence import GateDecision
from tasks.stage import stage


@stage("find_champion", timeout_seconds=300, cached=False)
def find_champion(name: str) -> ModelVersion | None:
    """Who is in production now, if anybody."""
    from mlflow.tracking import MlflowClient

    from tasks.registry import versions

    return versions.find(MlflowClient(), name, versions.CHAMPION)


@stage("promote", timeout_seconds=600, cached=False)
def promote(adapter: Adapter, decision: GateDecision, lineage: Lineage, name: str) -> ModelVersion:
    """Register the candidate with its lineage, and make it champion."""
    from mlflow.tracking import MlflowClient

    from tasks.registry import versions

    return versions.promote(MlflowClient(), name, adapter, decision, lineage)
