"""Back to an earlier version, and what that does to the one it takes over from.

A version that was rolled back is withdrawn: it bears who did it, why and when, and no run promotes
its adapter again, however good its figures are. A person may let it in again, by name.
"""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Any

from mlflow.tracking import MlflowClient

from tasks.artifacts import ModelVersion
from tasks.errors import RegistryError
from tasks.evidence import GateDecision, Rollback
from tasks.registry.versions import CHAMPION, PREVIOUS, REPLACED, find, record_of

logger = logging.getLogger(__name__)
_BY, _REASON, _DATE = "rolled_back_by", "rolled_back_reason", "rolled_back_date"
# By these a decision would change what serves.
_PROMOTABLE = ("promoted", "canary", "inconclusive")


def roll_back(
    client: MlflowClient,
    name: str,
    to: str | None,
    by: str,
    reason: str,
    now: datetime,
    *,
    readmit: bool = False,
) -> Rollback:
    """Make ``to``, or the version before the champion, champion; withdraw the champion.

    With ``readmit``, ``to`` is a version that was withdrawn: it is champion again, and nothing is
    withdrawn. Safe to repeat and to stop anywhere: the champion's alias, which alone decides who
    serves, moves at once, after the mark that keeps the other version out.

    Raises RegistryError where there is no champion, no such version, none before it, or a version
    that is withdrawn and not to be readmitted.
    """
    champion = find(client, name, CHAMPION)
    if champion is None:
        raise RegistryError(f"{name}: no version is champion. Names of models: {_names(client)}.")
    target = _target(client, name, to, champion)
    mark = _withdrawal(client, name, target)
    if mark and not readmit:
        raise RegistryError(
            f"{name}: version {target.version} is itself withdrawn ({mark}). Name another version "
            "with `to`, or let this one in again with `readmit`."
        )
    if readmit and not mark and target.version != champion.version:
        raise RegistryError(
            f"{name}: version {target.version} was never withdrawn: leave `readmit` out."
        )
    moved = target.version != champion.version
    if readmit:
        _readmit(client, name, target, champion if moved else None)
    else:
        if moved:
            withdraw(client, name, champion.version, by, reason, now)
        client.set_registered_model_alias(name, CHAMPION, target.version)
        _set_previous(client, name, target)
    logger.info("registry: %s version %s is champion again", name, target.version)
    return Rollback(
        model=name,
        champion=target.version,
        withdrawn=champion.version if moved and not readmit else None,
        readmitted=readmit,
        by=by,
        reason=reason,
        date=now,
    )


def heeded(client: MlflowClient, decision: GateDecision, name: str) -> GateDecision:
    """The decision, blocked where its candidate is a version that was withdrawn."""
    if decision.outcome not in _PROMOTABLE:
        return decision
    for version in client.search_model_versions(f"name = '{name}'"):
        mark = _mark(version.tags)
        if mark and version.tags.get("adapter_digest") == decision.adapter_digest:
            said = (
                f"The candidate is version {version.version}, which was withdrawn ({mark}). "
                "To let it in again, name it in a rollback with `readmit`."
            )
            return decision.model_copy(
                update={
                    "outcome": "blocked",
                    "sentence": f"{said} (The evidence: {decision.outcome}.)",
                    # The page pairs reasons with differences by their order: ours comes last.
                    "reasons": [*decision.reasons, said],
                    "settling": [],
                }
            )
    return decision


def _target(
    client: MlflowClient, name: str, to: str | None, champion: ModelVersion
) -> ModelVersion:
    versions = {str(v.version): v for v in client.search_model_versions(f"name = '{name}'")}
    known = ", ".join(sorted(versions, key=int))
    if to is not None:
        if to not in versions:
            raise RegistryError(f"{name}: there is no version {to}; there are {known}.")
        return record_of(versions[to], None)
    previous = find(client, name, PREVIOUS)
    if previous is None:
        raise RegistryError(
            f"{name}: nothing was champion before version {champion.version}. Name a version with "
            f"`to`; there are {known}."
        )
    return previous


def withdraw(
    client: MlflowClient, name: str, version: str, by: str, reason: str, now: datetime
) -> None:
    """Mark a version so that no run promotes it again. Safe to repeat."""
    # The date, which is what counts as the mark, comes last.
    for key, value in {_BY: by, _REASON: reason, _DATE: now.isoformat()}.items():
        client.set_model_version_tag(name, version, key, value)


def _readmit(
    client: MlflowClient, name: str, version: ModelVersion, champion: ModelVersion | None
) -> None:
    if champion is not None:
        client.set_registered_model_alias(name, PREVIOUS, champion.version)
        client.set_registered_model_alias(name, CHAMPION, version.version)
    # The mark last, and of the mark the date first: stopped before, a repeat would be refused.
    tags = client.get_model_version(name, version.version).tags
    for key in (_DATE, _BY, _REASON):
        if key in tags:
            client.delete_model_version_tag(name, version.version, key)


def _withdrawal(client: MlflowClient, name: str, version: ModelVersion) -> str | None:
    return _mark(client.get_model_version(name, version.version).tags)


def _mark(tags: Any) -> str | None:
    """Who withdrew a version, when and why; None where nobody did."""
    if _DATE not in tags:
        return None
    return f"{tags.get(_BY)}, {tags[_DATE][:10]}: {tags.get(_REASON)}"


def _set_previous(client: MlflowClient, name: str, target: ModelVersion) -> None:
    """What a further rollback goes to: what was champion before ``target``, unless withdrawn."""
    before = client.get_model_version(name, target.version).tags.get(REPLACED)
    if before and _mark(client.get_model_version(name, before).tags) is None:
        client.set_registered_model_alias(name, PREVIOUS, before)
    elif find(client, name, PREVIOUS) is not None:
        client.delete_registered_model_alias(name, PREVIOUS)


def _names(client: MlflowClient) -> str:
    return ", ".join(sorted(model.name for model in client.search_registered_models())) or "none"
