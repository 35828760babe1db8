"""When collected rows start a run: enough of them, or one that waited; once for each cause."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tasks.collect.config import HookConfig
from tasks.collect.trigger import Start, due, start_if_due
from tasks.collected import CollectedRow, Generation, Hook
from tasks.errors import StorageError
from tasks.objects import LocalStore

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
CONFIG = HookConfig(min_rows=3, max_age_hours=24)
KEY = "generic-1-2026-11-20T11:00:00+00:00"


def generation(number: int, *changed: int, hours_ago: float = 1) -> Generation:
    received = (NOW - timedelta(hours=hours_ago)).isoformat()
    rows = {
        str(i): CollectedRow(id=str(i), changed=at, received=received, row={"id": i})
        for i, at in enumerate(changed)
    }
    return Generation(number, rows)


class Prefect:
    """Starts runs, one for each key, and may be away."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.away = False

    def __call__(self, hook: Hook, start: Start) -> str:
        if self.away:
            raise ConnectionError("away")
        self.asked.append(start.key(hook))
        return f"run-{start.key(hook)}"


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path)


def test_enough_new_rows_start_a_run() -> None:
    assert due(generation(1, 1, 1), 0, CONFIG, NOW) is None
    wanted = due(generation(1, 1, 1, 1), 0, CONFIG, NOW)
    assert wanted is not None
    assert (wanted.generation, wanted.num_rows) == (1, 3)
    assert "3 new rows, at least 3" in wanted.reason


def test_fewer_start_one_when_the_oldest_has_waited() -> None:
    assert due(generation(1, 1, hours_ago=23.9), 0, CONFIG, NOW) is None
    wanted = due(generation(1, 1, hours_ago=24), 0, CONFIG, NOW)
    assert wanted is not None
    assert "the oldest of 2026-11-19 12:00 UTC" in wanted.reason


def test_what_started_a_run_before_starts_no_other() -> None:
    assert due(generation(4, 1, 2, 3), 3, CONFIG, NOW) is None
    assert due(generation(4, 1, 2, 3, hours_ago=99), 3, CONFIG, NOW) is None


def test_rows_without_content_and_a_source_that_only_collects_start_none() -> None:
    hollow = generation(1, 1, 1, 1)
    empty = {k: r.model_copy(update={"row": {"annotations": []}}) for k, r in hollow.rows.items()}
    assert due(Generation(1, empty), 0, CONFIG, NOW) is None
    quiet = CONFIG.model_copy(update={"start_runs": False})
    assert due(hollow, 0, quiet, NOW) is None


def test_one_cause_starts_one_run(store: LocalStore) -> None:
    prefect = Prefect()
    rows = generation(1, 1, 1, 1)
    started = start_if_due(store, "generic", rows, CONFIG, NOW, prefect)
    assert started is not None
    assert started.flow_run_id == f"run-{KEY}"
    assert start_if_due(store, "generic", rows, CONFIG, NOW, prefect) is None
    more = generation(2, 1, 1, 1, 2, 2, 2)
    start_if_due(store, "generic", more, CONFIG, NOW, prefect)
    assert prefect.asked == [KEY, "generic-2-2026-11-20T11:00:00+00:00"]


def test_a_store_that_begins_anew_is_another_cause(store: LocalStore, tmp_path: Path) -> None:
    """Else Prefect would answer with the run that the store before it started."""
    prefect = Prefect()
    start_if_due(store, "generic", generation(1, 1, 1, 1, hours_ago=30), CONFIG, NOW, prefect)
    anew = LocalStore(tmp_path / "anew")
    start_if_due(anew, "generic", generation(1, 1, 1, 1), CONFIG, NOW, prefect)
    assert len(set(prefect.asked)) == 2


def test_prefect_away_is_asked_again_for_the_same_run(store: LocalStore) -> None:
    prefect = Prefect()
    prefect.away = True
    for _ in range(2):
        with pytest.raises(ConnectionError):
            start_if_due(store, "generic", generation(1, 1, 1, 1), CONFIG, NOW, prefect)
    prefect.away = False
    more = generation(2, 1, 1, 1, 2)  # what came meanwhile does not make it another cause
    started = start_if_due(store, "generic", more, CONFIG, NOW, prefect)
    assert started is not None
    assert prefect.asked == [KEY]
    assert start_if_due(store, "generic", more, CONFIG, NOW, prefect) is None


def test_a_kill_between_the_start_and_its_record_starts_the_same_run(store: LocalStore) -> None:
    asked: list[str] = []

    def killed(hook: Hook, start: Start) -> str:
        asked.append(start.key(hook))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        start_if_due(store, "generic", generation(1, 1, 1, 1), CONFIG, NOW, killed)
    prefect = Prefect()
    start_if_due(store, "generic", generation(3, 1, 1, 1, 3), CONFIG, NOW, prefect)
    assert asked == prefect.asked == [KEY]


def test_something_else_in_its_place_is_named(store: LocalStore) -> None:
    store.put_bytes("collected/generic/started.json", b"{}")
    with pytest.raises(StorageError, match=r"started\.json tells of no run"):
        start_if_due(store, "generic", generation(1, 1, 1, 1), CONFIG, NOW, Prefect())
