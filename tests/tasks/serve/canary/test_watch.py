"""Watching: what is on trial by MLflow's own client, until when, and through absences."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from tasks.errors import StorageError
from tasks.objects import LocalStore
from tasks.serve.canary.watch import watch
from tasks.trial import TRIAL, Verdict
from tests.tasks.serve.canary.makers import BEGUN, exchange, said, trial, written


@pytest.fixture
def client(tmp_path: Path) -> MlflowClient:
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    client.create_registered_model("tickets")
    for number in (1, 2, 3):
        client.create_model_version("tickets", source=f"s3://{number}")
    client.set_registered_model_alias("tickets", "champion", "1")
    return client


def begin(client: MlflowClient, **settings: Any) -> None:
    client.set_model_version_tag("tickets", "2", TRIAL, trial(**settings).model_dump_json())
    client.set_registered_model_alias("tickets", "challenger", "2")


class Clock:
    """Time that passes while one sleeps; ``then`` happens at the sleep of a number."""

    def __init__(self, **then: Callable[[], None]) -> None:
        self.now = BEGUN
        self.slept: list[float] = []
        self._then = {int(name[1:]): act for name, act in then.items()}

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += timedelta(seconds=seconds)
        self._then.get(len(self.slept), lambda: None)()

    def time(self) -> datetime:
        return self.now


def watched(
    store: LocalStore, client: MlflowClient, clock: Clock, minutes: float = 15
) -> list[Verdict]:
    until = BEGUN + timedelta(minutes=minutes)
    return watch(store, client, until, now=clock.time, sleep=clock.sleep)


def better(store: LocalStore) -> None:
    """A hundred users of each, of whom only the challenger's are content."""
    asked = [exchange(n, "challenger" if n % 2 else "champion") for n in range(200)]
    written(store, asked)
    for one in asked:
        said(store, one, accepted=one.side == "challenger")


def test_where_nothing_is_on_trial_it_ends_at_once(tmp_path: Path, client: MlflowClient) -> None:
    clock = Clock()
    assert watched(LocalStore(tmp_path), client, clock) == []
    # A challenger by hand, of which nobody said how it is to be tried.
    client.set_registered_model_alias("tickets", "challenger", "3")
    assert watched(LocalStore(tmp_path), client, clock) == []
    assert clock.slept == []


def test_it_looks_until_something_is_shown(tmp_path: Path, client: MlflowClient) -> None:
    store = LocalStore(tmp_path / "store")
    begin(client, look_seconds=20)
    clock = Clock(_3=lambda: better(store))
    (verdict,) = watched(store, client, clock)
    assert verdict.outcome == "promote"
    assert clock.slept == [20, 20, 20]


def test_at_the_end_of_the_watch_it_says_what_is_known(
    tmp_path: Path, client: MlflowClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="tasks")
    begin(client, look_seconds=60)
    clock = Clock()
    (verdict,) = watched(LocalStore(tmp_path / "store"), client, clock, minutes=3)
    assert (verdict.outcome, len(clock.slept)) == ("watch", 3)
    assert caplog.text.count("version 2 is watched on") == 3


def test_one_that_begins_meanwhile_is_watched_too(tmp_path: Path, client: MlflowClient) -> None:
    store = LocalStore(tmp_path / "store")
    client.create_registered_model("other")
    client.create_model_version("other", source="s3://1")
    client.set_registered_model_alias("other", "champion", "1")
    other = trial().model_copy(update={"model": "other", "challenger": "1", "champion": "0"})
    client.set_model_version_tag("other", "1", TRIAL, other.model_dump_json())

    def start() -> None:
        client.set_registered_model_alias("other", "challenger", "1")

    begin(client)
    clock = Clock(_2=start)
    (verdict,) = watched(store, client, clock)
    assert (verdict.trial.model, len(clock.slept)) == ("other", 2)


def test_of_very_many_models_none_is_left_out(tmp_path: Path, client: MlflowClient) -> None:
    for number in range(101):
        client.create_registered_model(f"a{number}")
    begin(client)
    assert len(watched(LocalStore(tmp_path / "store"), client, Clock(), minutes=0)) == 1


def test_a_champion_that_changes_ends_the_trial(tmp_path: Path, client: MlflowClient) -> None:
    begin(client)
    clock = Clock(_1=lambda: client.set_registered_model_alias("tickets", "champion", "3"))
    (verdict,) = watched(LocalStore(tmp_path / "store"), client, clock)
    assert verdict.outcome == "inconclusive"
    assert verdict.reasons == ["Version 3 is champion now: it was tried against version 1."]


def test_one_that_is_champion_already_is_promoted(tmp_path: Path, client: MlflowClient) -> None:
    begin(client)
    client.set_registered_model_alias("tickets", "champion", "2")
    (verdict,) = watched(LocalStore(tmp_path / "store"), client, Clock())
    assert (verdict.outcome, verdict.reasons) == ("promote", ["It is champion already."])


def test_one_without_parity_is_taken_out(tmp_path: Path, client: MlflowClient) -> None:
    begin(client)
    client.set_model_version_tag("tickets", "2", "parity", "failed: token 3 is 17, not 9")
    (verdict,) = watched(LocalStore(tmp_path / "store"), client, Clock())
    assert verdict.outcome == "roll_back"
    assert verdict.reasons == ["failed: token 3 is 17, not 9"]


def test_storage_that_is_away_is_waited_for(
    tmp_path: Path, client: MlflowClient, caplog: pytest.LogCaptureFixture
) -> None:
    class Away(LocalStore):
        away = True

        def keys_under(self, prefix: str) -> Any:
            if self.away:
                raise ConnectionError("no route")
            return super().keys_under(prefix)

    store = Away(tmp_path / "store")
    begin(client)
    better(store)

    def back() -> None:
        store.away = False

    (verdict,) = watched(store, client, Clock(_2=back))
    assert verdict.outcome == "promote"
    assert caplog.text.count("registry or storage is away: no route") == 2
    store.away = True
    with pytest.raises(ConnectionError):
        watched(store, client, Clock(), minutes=1)


def test_what_cannot_pass_is_raised(tmp_path: Path, client: MlflowClient) -> None:
    class Broken(LocalStore):
        def keys_under(self, prefix: str) -> Any:
            raise StorageError("access denied")

    begin(client)
    with pytest.raises(StorageError, match="denied"):
        watched(Broken(tmp_path / "store"), client, Clock())
