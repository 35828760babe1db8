"""Trials on a real MLflow server: begun, ended in each way, and stopped at every call."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from tasks.artifacts import ModelVersion
from tasks.errors import StaleDecisionError
from tasks.registry.rollback import heeded
from tasks.registry.trials import begin, settle
from tasks.trial import TRIAL, Trial, TrialOutcome, TrialTerms, Verdict
from tests.tasks.registry.makers import (
    LINEAGE,
    Stopping,
    adapter,
    aliases,
    decision,
    promote,
    verdict,
)

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("stack")]

NOW = datetime(2026, 11, 28, 3, 0, tzinfo=UTC)
TERMS = TrialTerms(share=0.2, mode="live", settings={"risk": 0.05})


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return str(request.node.name).replace("_", "-").replace("[", "-").rstrip("]")


@pytest.fixture
def client(name: str) -> MlflowClient:
    """A model with a champion."""
    client = MlflowClient()
    promote(client, name, "one", None)
    return client


def tried(client: Any, name: str, digest: str = "two", against: str | None = "one") -> ModelVersion:
    made = adapter(digest)
    return begin(client, name, made, decision(digest, against), LINEAGE, None, TERMS, NOW)


def ended(client: Any, name: str, outcome: TrialOutcome) -> Verdict:
    return settle(client, verdict(name, outcome, NOW), NOW)


def tags(name: str, version: str = "2") -> dict[str, str]:
    return dict(MlflowClient().get_model_version(name, version).tags)


def test_a_candidate_goes_on_trial_beside_the_champion(client: MlflowClient, name: str) -> None:
    made = tried(client, name)
    assert (made.version, made.alias) == ("2", "challenger")
    assert aliases(name) == {"champion": "1", "challenger": "2"}
    model = client.get_registered_model(name)
    assert model.tags == {"challenger_share": "0.2", "challenger_mode": "live"}
    trial = Trial.model_validate_json(tags(name)[TRIAL])
    assert (trial.champion, trial.challenger, trial.begun_at) == ("1", "2", NOW)
    assert trial.settings == {"risk": 0.05}
    assert tags(name)["decision"] == "canary"
    made, later = adapter("two"), datetime.now(UTC)
    again = begin(client, name, made, decision("two", "one"), LINEAGE, None, TERMS, later)
    assert again.version == "2"
    assert Trial.model_validate_json(tags(name)[TRIAL]).begun_at == NOW


def test_without_a_champion_it_is_champion_at_once(name: str, stack: object) -> None:
    assert tried(MlflowClient(), name, "one", None).alias == "champion"
    assert aliases(name) == {"champion": "1"}


def test_a_champion_that_changed_is_not_tried_against(client: MlflowClient, name: str) -> None:
    promote(client, name, "other", "one")
    with pytest.raises(StaleDecisionError):
        tried(client, name)


def test_a_newer_one_takes_its_place(client: MlflowClient, name: str) -> None:
    tried(client, name)
    tried(client, name, "three")
    assert aliases(name) == {"champion": "1", "challenger": "3"}
    assert tags(name)["canary_outcome"] == "superseded by version 3"
    assert ended(client, name, "promote").outcome == "promote"
    assert aliases(name) == {"champion": "1", "challenger": "3"}, "another trial was ended"


def test_one_that_is_better_is_champion(client: MlflowClient, name: str) -> None:
    tried(client, name)
    assert ended(client, name, "watch").outcome == "watch"
    assert aliases(name) == {"champion": "1", "challenger": "2"}
    ended(client, name, "promote")
    assert aliases(name) == {"champion": "2", "previous": "1"}
    assert client.get_registered_model(name).tags == {}
    found = tags(name)
    assert (found["decision"], found["replaced"]) == ("promoted", "1")
    assert found["canary_outcome"].endswith("version 2 is promoted. as it was seen")


def test_one_that_does_harm_stays_out(client: MlflowClient, name: str) -> None:
    tried(client, name)
    ended(client, name, "roll_back")
    assert aliases(name) == {"champion": "1"}
    assert tags(name)["rolled_back_by"] == "canary"
    assert tags(name)["rolled_back_reason"] == "as it was seen"
    assert heeded(client, decision("two", "one"), name).outcome == "blocked"


def test_one_that_stays_undecided_may_come_again(client: MlflowClient, name: str) -> None:
    tried(client, name)
    ended(client, name, "inconclusive")
    assert aliases(name) == {"champion": "1"}
    assert heeded(client, decision("two", "one"), name).outcome == "promoted"
    assert tried(client, name).version == "2"
    assert aliases(name) == {"champion": "1", "challenger": "2"}


def test_a_champion_that_changes_at_the_last_moment_stays(client: MlflowClient, name: str) -> None:
    tried(client, name)
    promote(client, name, "three", "one")
    done = ended(client, name, "promote")
    assert done.outcome == "inconclusive"
    assert done.reasons == ["Version 3 became champion meanwhile: the trial was against 1."]
    assert aliases(name) == {"champion": "3", "previous": "1"}


@pytest.mark.parametrize("after", range(9))
def test_begun_anew_where_it_was_stopped(client: MlflowClient, name: str, after: int) -> None:
    try:
        tried(Stopping(after), name)
    except ConnectionError:
        assert aliases(name) == {"champion": "1"}
    else:
        assert after >= 6, "nothing was stopped"
    tried(client, name)
    assert aliases(name) == {"champion": "1", "challenger": "2"}
    assert TRIAL in tags(name)


@pytest.mark.parametrize("outcome", ["promote", "roll_back", "inconclusive"])
@pytest.mark.parametrize("after", range(8))
def test_ended_anew_where_it_was_stopped(
    client: MlflowClient, name: str, after: int, outcome: TrialOutcome
) -> None:
    tried(client, name)
    try:
        ended(Stopping(after), name, outcome)
    except ConnectionError:
        assert aliases(name)["challenger"] == "2"
    ended(client, name, outcome)
    champion = "2" if outcome == "promote" else "1"
    assert aliases(name)["champion"] == champion
    assert "challenger" not in aliases(name)
    assert ("rolled_back_date" in tags(name)) == (outcome == "roll_back")
