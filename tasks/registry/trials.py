"""The trial of a candidate beside the champion: begun by a run, ended by what watches it.

Who is tried stands in the registry alone: the alias ``challenger``, which gateways route by, two
tags of the model for how, and a tag of the version with the trial itself.
"""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Any

from mlflow.tracking import MlflowClient

from tasks.artifacts import Adapter, Lineage, ModelVersion, ParityReference
from tasks.evidence import GateDecision
from tasks.registry.rollback import withdraw
from tasks.registry.versions import (
    CHALLENGER,
    CHAMPION,
    DECISION,
    PREVIOUS,
    REPLACED,
    checked_champion,
    find,
    promote,
    record_of,
    register,
    tags_of,
)
from tasks.trial import MODE, OUTCOME, SHARE, TRIAL, Trial, TrialTerms, Verdict

logger = logging.getLogger(__name__)
_BY = "canary"


def begin(
    client: MlflowClient,
    name: str,
    adapter: Adapter,
    decision: GateDecision,
    lineage: Lineage,
    parity: ParityReference | None,
    terms: TrialTerms,
    now: datetime,
) -> ModelVersion:
    """Register the adapter and make it challenger; champion at once where there is none yet.

    One that was on trial before is so no longer: its trial ends undecided. Safe to repeat and to
    stop anywhere. Raises StaleDecisionError as ``promote`` does.
    """
    champion = checked_champion(client, name, decision)
    if champion is None or champion.adapter_digest == adapter.adapter_digest:
        return promote(client, name, adapter, decision, lineage, parity)
    tags = tags_of(adapter, decision, lineage, parity) | {DECISION: "canary"}
    version = register(client, name, adapter, tags)
    before = find(client, name, CHALLENGER)
    if before is not None and before.version == str(version.version) and TRIAL in version.tags:
        return before
    if before is not None and before.version != str(version.version):
        _tag(client, name, before.version, OUTCOME, f"superseded by version {version.version}")
    trial = Trial(
        model=name,
        champion=champion.version,
        challenger=str(version.version),
        begun_at=now,
        settings=terms.settings,
    )
    _tag(client, name, trial.challenger, TRIAL, trial.model_dump_json())
    client.set_registered_model_tag(name, SHARE, str(terms.share))
    client.set_registered_model_tag(name, MODE, terms.mode)
    client.set_registered_model_alias(name, CHALLENGER, trial.challenger)
    logger.info("registry: %s version %s is challenger", name, trial.challenger)
    return record_of(client.get_model_version(name, trial.challenger), CHALLENGER)


def settle(client: MlflowClient, verdict: Verdict, now: datetime) -> Verdict:
    """Do what a trial has shown: promote the challenger, keep it out, or end the trial.

    Safe to repeat and to stop anywhere: gateways lose the challenger last, and the champion's alias
    moves at once. Nothing is done to a trial that another has taken the place of.
    """
    trial = verdict.trial
    challenger = find(client, trial.model, CHALLENGER)
    if verdict.outcome == "watch" or challenger is None or challenger.version != trial.challenger:
        return verdict
    if verdict.outcome == "promote" and (other := _promote(client, trial)) is not None:
        why = f"Version {other} became champion meanwhile: the trial was against {trial.champion}."
        verdict = verdict.model_copy(update={"outcome": "inconclusive", "reasons": [why]})
    if verdict.outcome == "roll_back":
        reason = " ".join(verdict.reasons)
        withdraw(client, trial.model, trial.challenger, _BY, reason, now)
    _tag(client, trial.model, trial.challenger, OUTCOME, verdict.sentence)
    _release(client, trial.model)
    logger.info("registry: %s", verdict.sentence)
    return verdict


def _promote(client: MlflowClient, trial: Trial) -> str | None:
    """Make the challenger champion; answers who is it, where that is another than was tried."""
    champion = find(client, trial.model, CHAMPION)
    version = champion.version if champion else "none"
    if version == trial.challenger:
        return None
    if version != trial.champion:
        return version
    _tag(client, trial.model, trial.challenger, REPLACED, version)
    _tag(client, trial.model, trial.challenger, DECISION, "promoted")
    client.set_registered_model_alias(trial.model, PREVIOUS, version)
    client.set_registered_model_alias(trial.model, CHAMPION, trial.challenger)
    return None


def _release(client: MlflowClient, name: str) -> None:
    """No challenger any more; the alias last, by which a repeat knows that there is one."""
    tags: Any = client.get_registered_model(name).tags
    for key in (SHARE, MODE):
        if key in tags:
            client.delete_registered_model_tag(name, key)
    client.delete_registered_model_alias(name, CHALLENGER)


def _tag(client: MlflowClient, name: str, version: str, key: str, value: str) -> None:
    client.set_model_version_tag(name, version, key, value[:4000])
