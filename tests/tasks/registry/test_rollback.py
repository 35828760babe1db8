"""Rolling back on a real MLflow server: to what, stopped at every call, and what stays out."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from tasks.errors import RegistryError
from tasks.evidence import Rollback
from tasks.registry.rollback import heeded, roll_back
from tests.tasks.registry.makers import Stopping, aliases, decision, promote

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("stack")]

NOW = datetime(2026, 11, 28, 3, 0, tzinfo=UTC)


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return str(request.node.name).replace("_", "-").replace("[", "-").rstrip("]")


@pytest.fixture
def three(name: str) -> MlflowClient:
    """Three versions, each promoted over the one before."""
    client = MlflowClient()
    for digest, against in (("one", None), ("two", "one"), ("three", "two")):
        promote(client, name, digest, against)
    assert aliases(name) == {"champion": "3", "previous": "2"}
    return client


def back(client: Any, name: str, to: str | None = None, **more: Any) -> Rollback:
    return roll_back(client, name, to, "ada", "it times out", NOW, **more)


def test_back_to_the_one_before_and_once_more(three: MlflowClient, name: str) -> None:
    done = back(three, name)
    assert (done.champion, done.withdrawn) == ("2", "3")
    assert done.sentence == "ada: version 2 is champion again, version 3 stays out. it times out"
    assert aliases(name) == {"champion": "2", "previous": "1"}
    tags = three.get_model_version(name, "3").tags
    assert tags["rolled_back_by"] == "ada"
    assert tags["rolled_back_reason"] == "it times out"
    assert tags["rolled_back_date"] == NOW.isoformat()

    assert back(three, name).champion == "1"
    assert aliases(name) == {"champion": "1"}
    with pytest.raises(RegistryError, match=r"before version 1\. Name a version.*are 1, 2, 3"):
        back(three, name)


def test_to_a_named_version(three: MlflowClient, name: str) -> None:
    assert back(three, name, "1").withdrawn == "3"
    assert aliases(name) == {"champion": "1"}
    with pytest.raises(RegistryError, match="no version 7; there are 1, 2, 3"):
        back(three, name, "7")


def test_of_a_model_that_is_not_there_the_others_are_named(three: MlflowClient, name: str) -> None:
    with pytest.raises(RegistryError, match=rf"nowhere: no version is champion.*{name}"):
        back(three, "nowhere")


def test_what_was_withdrawn_comes_back_by_name_alone(three: MlflowClient, name: str) -> None:
    back(three, name)
    with pytest.raises(RegistryError, match=r"3 is itself withdrawn \(ada, 2026-11-28: it times"):
        back(three, name, "3")
    with pytest.raises(RegistryError, match="1 was never withdrawn: leave `readmit` out"):
        back(three, name, "1", readmit=True)
    done = back(three, name, "3", readmit=True)
    assert (done.champion, done.withdrawn, done.readmitted) == ("3", None, True)
    assert "version 3, which had been withdrawn, is champion again" in done.sentence
    assert aliases(name) == {"champion": "3", "previous": "2"}
    assert "rolled_back_date" not in three.get_model_version(name, "3").tags


def test_the_one_before_is_never_one_that_was_withdrawn(three: MlflowClient, name: str) -> None:
    back(three, name)
    promote(three, name, "four", "two")
    assert aliases(name) == {"champion": "4", "previous": "2"}
    back(three, name, "1")
    back(three, name, "4", readmit=True)
    back(three, name, "2")
    assert aliases(name) == {"champion": "2", "previous": "1"}


@pytest.mark.parametrize("outcome", ["promoted", "inconclusive", "canary"])
def test_no_run_promotes_what_was_withdrawn(three: MlflowClient, name: str, outcome: str) -> None:
    made = decision("three", "two").model_copy(update={"outcome": outcome})
    assert heeded(three, made, name) == made
    back(three, name)
    blocked = heeded(three, made, name)
    assert blocked.outcome == "blocked"
    assert blocked.reasons[:-1] == made.reasons
    assert "version 3, which was withdrawn (ada, 2026-11-28: it times out)" in blocked.reasons[-1]
    assert blocked.sentence.endswith(f"(The evidence: {outcome}.)")
    other = decision("four", "two")
    assert heeded(three, other, name) == other
    back(three, name, "3", readmit=True)
    assert heeded(three, made, name) == made


def test_what_is_blocked_or_the_same_stays_as_it_is(three: MlflowClient, name: str) -> None:
    back(three, name)
    for outcome in ("blocked", "no_change"):
        made = decision("three", "two").model_copy(update={"outcome": outcome})
        assert heeded(three, made, name) == made


@pytest.mark.parametrize("after", range(6))
def test_stopped_anywhere_a_repeat_finishes(three: MlflowClient, name: str, after: int) -> None:
    try:
        back(Stopping(after), name)
    except ConnectionError:
        assert aliases(name)["champion"] in ("2", "3")
    else:
        assert after > 4, "nothing was stopped"
    back(three, name, None if aliases(name)["champion"] == "3" or after < 5 else "2")
    assert aliases(name) == {"champion": "2", "previous": "1"}
    assert "rolled_back_date" in three.get_model_version(name, "3").tags


@pytest.mark.parametrize("after", range(6))
def test_a_readmission_too(three: MlflowClient, name: str, after: int) -> None:
    back(three, name)
    try:
        back(Stopping(after), name, "3", readmit=True)
    except ConnectionError:
        assert aliases(name)["champion"] in ("2", "3")
    else:
        assert after > 4, "nothing was stopped"
    back(three, name, "3", readmit=True)
    assert aliases(name) == {"champion": "3", "previous": "2"}
    assert "rolled_back_date" not in three.get_model_version(name, "3").tags
