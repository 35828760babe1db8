"""Promotion on a real MLflow server, stopped at every call it makes and started again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from tasks.artifacts import Adapter, BaseModelRef, Lineage
from tasks.errors import StaleDecisionError
from tasks.evidence import GateDecision
from tasks.registry import versions

pytestmark = pytest.mark.integration

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


def test_the_old_champion_becomes_previous(stack: Path) -> None:
    client = MlflowClient()
    assert versions.find(client, "registry-a", "champion") is None
    first = promote(client, "registry-a", "one", None)
    assert aliases("registry-a") == {"champion": first}
    second = promote(client, "registry-a", "two", "one")
    assert aliases("registry-a") == {"champion": second, "previous": first}
    assert promote(client, "registry-a", "two", "one") == second, "a repeat made another version"
    assert aliases("registry-a") == {"champion": second, "previous": first}
    tags = client.get_model_version("registry-a", second).tags
    assert {
        **LINEAGE.model_dump(),
        "decision": "promoted",
        "base_model": "base",
    }.items() <= tags.items()


def test_a_decision_against_another_champion_is_refused(stack: Path) -> None:
    client = MlflowClient()
    promote(client, "registry-b", "one", None)
    with pytest.raises(StaleDecisionError, match=r"made against the champion none.*is now one"):
        promote(client, "registry-b", "two", None)
    assert len(client.search_model_versions("name = 'registry-b'")) == 1


class Stopping:
    """The real client, that dies instead of making its ``after``-th change."""

    CHANGES = ("create_registered_model", "create_model_version", "set_registered_model_alias")

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


@pytest.mark.parametrize("after", range(4))
def test_stopped_anywhere_the_champion_is_old_or_new_and_a_repeat_finishes(
    stack: Path, after: int
) -> None:
    name = f"registry-stop-{after}"
    first = promote(MlflowClient(), name, "one", None)
    stopped = Stopping(after)
    try:
        promote(stopped, name, "two", "one")
    except ConnectionError:
        assert aliases(name)["champion"] == first
    else:
        assert after > 3, "nothing was stopped"
    second = promote(MlflowClient(), name, "two", "one")
    assert aliases(name) == {"champion": second, "previous": first}
    assert len(MlflowClient().search_model_versions(f"name = '{name}'")) == 2
