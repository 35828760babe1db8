"""What tests of the registry share: adapters and decisions of no weight, and a client that dies."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from mlflow.tracking import MlflowClient

from tasks.artifacts import Adapter, BaseModelRef, Lineage
from tasks.evidence import GateDecision
from tasks.registry import versions
from tasks.trial import TRIAL, Measured, Trial, TrialOutcome, Verdict

LINEAGE = Lineage(flow_run_id="f", data_digest="d", config_digest="c", code_digest="k")


def adapter(digest: str) -> Adapter:
    return Adapter(
        uri=f"s3://retune/train/{digest}",
        digest=digest,
        base_model=BaseModelRef(id="base", digest="b", license="Apache-2.0"),
        adapter_digest=digest,
        training_run_id=_training_run(),
        num_steps=1,
        best_step=1,
        train_loss=1.0,
        validation_loss=1.0,
        tokens_per_second=1.0,
        seconds=1.0,
    )


def _training_run() -> str:
    return str(MlflowClient().create_run("0").info.run_id)


def decision(digest: str, against: str | None) -> GateDecision:
    return GateDecision(
        uri="s3://retune/gate/x",
        digest="x",
        outcome="promoted",
        reasons=["better"],
        differences=[],
        baseline="champion" if against else "base",
        baseline_adapter_digest=against,
        adapter_digest=digest,
    )


def promote(client: Any, name: str, digest: str, against: str | None) -> str:
    made = versions.promote(client, name, adapter(digest), decision(digest, against), LINEAGE)
    return made.version


def aliases(name: str) -> dict[str, str]:
    found = MlflowClient().get_registered_model(name).aliases
    return {alias: str(version) for alias, version in found.items()}


def verdict(name: str, outcome: TrialOutcome, now: datetime) -> Verdict:
    """What whoever watches version 2 would say, of its trial in the registry."""
    nothing = {"champion": None, "challenger": None, "num_champion": 0, "num_challenger": 0}
    tags = MlflowClient().get_model_version(name, "2").tags
    return Verdict(
        trial=Trial.model_validate_json(tags[TRIAL]),
        outcome=outcome,
        reasons=["as it was seen"],
        looked_at=now,
        success=Measured(name="accepted", evidence=0, **nothing),
        worse=0,
        bar=1.3,
        guards=[],
        guard_bar=2,
        num_requests=0,
    )


class Stopping:
    """The real client, that dies instead of making its ``after``-th change."""

    CHANGES = (
        "create_registered_model",
        "create_model_version",
        "set_registered_model_alias",
        "delete_registered_model_alias",
        "set_registered_model_tag",
        "delete_registered_model_tag",
        "set_model_version_tag",
        "delete_model_version_tag",
    )

    def __init__(self, after: int) -> None:
        self._client = MlflowClient()
        self._left = after

    def __getattr__(self, name: str) -> Any:
        real: Callable[..., Any] = getattr(self._client, name)
        if name not in self.CHANGES:
            return real

        def change(*args: Any, **kwargs: Any) -> Any:
            if self._left == 0:
                raise ConnectionError("killed")
            self._left -= 1
            return real(*args, **kwargs)

        return change
