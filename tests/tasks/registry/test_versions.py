"""Promotion on a real MLflow server, stopped at every call it makes and started again."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from tasks.errors import StaleDecisionError
from tasks.registry import versions
from tests.tasks.registry.makers import LINEAGE, Stopping, aliases, promote

pytestmark = pytest.mark.integration


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
