"""MLflow's model registry: versions with their lineage, and the aliases that say who serves."""

from __future__ import annotations

import logging
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode
from mlflow.tracking import MlflowClient

from tasks.artifacts import Adapter, Lineage, ModelVersion, ParityReference
from tasks.errors import StaleDecisionError
from tasks.evidence import GateDecision, approval_tags

logger = logging.getLogger(__name__)
CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
DECISION = "decision"  # what let a version in
REPLACED = "replaced"  # the version that was champion when this one was promoted


def find(client: MlflowClient, name: str, alias: str) -> ModelVersion | None:
    """The version that carries an alias, or None where there is no such model or alias."""
    for model in client.search_registered_models(f"name = '{name}'"):
        version = model.aliases.get(alias)
        if version is not None:
            return record_of(client.get_model_version(name, version), alias)
    return None


def promote(
    client: MlflowClient,
    name: str,
    adapter: Adapter,
    decision: GateDecision,
    lineage: Lineage,
    parity: ParityReference | None = None,
) -> ModelVersion:
    """Register the adapter and make it champion; what was champion becomes ``previous``.

    Safe to repeat and to stop anywhere: a version is made once per adapter, and the champion's
    alias, which alone decides who serves, moves last and at once. Raises StaleDecisionError when
    the champion is no longer the one that the decision compared with.
    """
    champion = checked_champion(client, name, decision)
    if champion is not None and champion.adapter_digest == adapter.adapter_digest:
        return champion
    replaced = {} if champion is None else {REPLACED: champion.version}
    tags = tags_of(adapter, decision, lineage, parity) | replaced
    version = register(client, name, adapter, tags)
    if champion is not None:
        client.set_registered_model_alias(name, PREVIOUS, champion.version)
    client.set_registered_model_alias(name, CHAMPION, version.version)
    logger.info("registry: %s version %s is champion", name, version.version)
    return record_of(version, CHAMPION)


def checked_champion(
    client: MlflowClient, name: str, decision: GateDecision
) -> ModelVersion | None:
    """Who is champion, if anybody; it may be the candidate itself, after an interrupted attempt.

    Raises StaleDecisionError for any other than the one that the decision compared with.
    """
    champion = find(client, name, CHAMPION)
    found = champion.adapter_digest if champion else None
    if found not in (decision.baseline_adapter_digest, decision.adapter_digest):
        raise StaleDecisionError(
            f"{name}: the decision was made against the champion "
            f"{_short(decision.baseline_adapter_digest)}, but the champion is now {_short(found)}. "
            "Start the run again; all stages up to the gate are cached."
        )
    return champion


def register(client: MlflowClient, name: str, adapter: Adapter, tags: dict[str, str]) -> Any:
    """The version of this adapter: the one that an interrupted attempt left, or a new one."""
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
            raise
    for version in client.search_model_versions(f"name = '{name}'"):
        if version.tags.get("adapter_digest") == adapter.adapter_digest:
            for key, value in tags.items():
                client.set_model_version_tag(name, version.version, key, value)
            return client.get_model_version(name, version.version)
    return client.create_model_version(
        name, source=adapter.uri, run_id=adapter.training_run_id, tags=tags
    )


def tags_of(
    adapter: Adapter, decision: GateDecision, lineage: Lineage, parity: ParityReference | None
) -> dict[str, str]:
    """What a version says of itself."""
    tags = {
        **lineage.model_dump(),
        "adapter_digest": adapter.adapter_digest,
        "adapter_uri": adapter.uri,
        "adapter_artifact_digest": adapter.digest,
        "base_model": adapter.base_model.id,
        "base_digest": adapter.base_model.digest,
        "base_revision": adapter.base_model.revision,
        "base_license": adapter.base_model.license,
        DECISION: decision.outcome,
        "decision_uri": decision.uri,
        "parity_uri": parity.uri if parity else None,
        "parity_digest": parity.digest if parity else None,
        "served_dtype": parity.dtype if parity else None,
        **approval_tags(decision.approval),
    }
    return {key: str(value) for key, value in tags.items() if value is not None}


def record_of(version: Any, alias: str | None) -> ModelVersion:
    """What the tags of a version in MLflow say of it."""
    return ModelVersion.of(version.name, str(version.version), alias, version.tags)


def _short(digest: str | None) -> str:
    return digest[:12] if digest else "none"
