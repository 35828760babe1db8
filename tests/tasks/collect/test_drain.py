"""The inbox into rows: each event once, in any order, through kills and beside itself."""

from __future__ import annotations

import itertools
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks import collected
from tasks.collect import drain as drain_module
from tasks.collect import inbox
from tasks.collect.changes import UNKNOWN, Change
from tasks.collect.config import HookConfig
from tasks.collect.drain import drain
from tasks.collect.inbox import Event
from tasks.collect.merge import Rows
from tasks.collect.trigger import start_if_due
from tasks.collected import ready
from tasks.errors import StorageError
from tasks.objects import LocalStore

NOW = datetime(2026, 11, 20, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path)


def event(number: int, **fields: Any) -> Event:
    rows = [{"id": number, "q": f"question {number}", **fields}]
    return Event.of({"rows": rows}, NOW + timedelta(seconds=number))


def put(store: LocalStore, *events: Event) -> str:
    return inbox.write(store, "generic", events)


def rows_of(store: LocalStore) -> dict[str, dict[str, Any]]:
    number = collected.newest_number(store, "generic")
    return {k: r.row for k, r in collected.load(store, "generic", number).rows.items()}


def test_events_become_rows_and_leave_the_inbox(store: LocalStore) -> None:
    put(store, event(1))
    put(store, event(2), event(3))
    found = drain(store, "generic")
    assert (found.num_events, found.outcomes) == (3, {"news": 3})
    assert set(rows_of(store)) == {"1", "2", "3"}
    assert inbox.keys(store, "generic") == []
    assert drain(store, "generic").generation.number == found.generation.number


def test_the_same_event_is_the_same_object_and_the_same_row(store: LocalStore) -> None:
    assert put(store, event(1)) == put(store, event(1))
    assert len(inbox.keys(store, "generic")) == 1
    first = drain(store, "generic").generation
    put(store, event(1), event(2))  # come again, among others
    found = drain(store, "generic", first)
    assert found.outcomes == {"news": 1, "repeated": 1}
    assert found.generation.rows["1"].changed == 1
    assert found.generation.rows["2"].changed == 2


def test_a_kill_before_the_inbox_is_emptied_costs_nothing(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, event(1))

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(LocalStore, "delete", killed)
        with pytest.raises(KeyboardInterrupt):
            drain(store, "generic")
    assert len(inbox.keys(store, "generic")) == 1
    found = drain(store, "generic")
    assert found.num_events == 0
    assert found.generation.number == 1
    assert inbox.keys(store, "generic") == []
    assert set(rows_of(store)) == {"1"}


def test_drains_beside_each_other_lose_and_double_nothing(store: LocalStore) -> None:
    errors: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(6):
                drain(store, "generic")
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    for number in range(40):
        put(store, event(number))
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(40, 80):
        put(store, event(number))
    for thread in threads:
        thread.join()
    drain(store, "generic")
    assert not [e for e in errors if not isinstance(e, RuntimeError)]
    assert set(rows_of(store)) == {str(n) for n in range(80)}
    assert inbox.keys(store, "generic") == []


def test_what_is_written_is_as_much_as_what_came(store: LocalStore) -> None:
    """Not all rows for each that changes: else collecting n of them would cost n squared."""
    put(store, *(event(number) for number in range(200)))
    known = drain(store, "generic").generation
    for number in range(200, 260):
        put(store, event(number))
        known = drain(store, "generic", known).generation
    files = [k for k in store.keys_under("collected/") if k.endswith(".jsonl")]
    lines = [len(store.get_bytes(key).splitlines()) - 1 for key in files]
    assert sum(lines) < 3 * 260
    assert sorted(lines)[: len(lines) // 2] == [1] * (len(lines) // 2)
    assert collected.load(store, "generic", known.number) == known
    assert set(rows_of(store)) == {str(n) for n in range(260)}


def test_old_files_go_and_what_was_listed_a_while_ago_is_still_there(store: LocalStore) -> None:
    listed = known = drain(store, "generic").generation
    for number in range(130):
        put(store, event(number % 40, turn=number))
        known = drain(store, "generic", known).generation
        if number == 100:
            listed = known
    files = [k for k in store.keys_under("collected/") if k.endswith(".jsonl")]
    assert len(files) < 110
    assert collected.load(store, "generic", listed.number) == listed
    assert rows_of(store)["9"]["turn"] == 129


def test_something_else_in_the_place_of_an_event_is_named(store: LocalStore) -> None:
    key = put(store, event(1))
    store.put_bytes(key, b'{"no": "event"}')
    with pytest.raises(StorageError, match=rf"{key} holds no events"):
        drain(store, "generic")
    store.put_bytes("collected/argilla/00000001.jsonl", b"[]\n[]\n")
    with pytest.raises(StorageError, match="is no generation of collected rows"):
        drain(store, "argilla")


def test_what_cannot_be_read_is_counted_and_holds_up_nothing(store: LocalStore) -> None:
    inbox.write(store, "label-studio", [Event.of({"action": 3}, NOW)])
    inbox.write(store, "label-studio", [Event.of({"action": "ANNOTATION_CREATED"}, NOW)])
    inbox.write(store, "label-studio", [Event.of({"action": "PROJECT_UPDATED"}, NOW)])
    found = drain(store, "label-studio")
    assert found.outcomes == {"malformed": 1, "unresolved": 1, "ignored": 1}
    assert "payload" in found.unresolved[0]


def test_a_writer_that_is_always_first_is_told(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, event(1))
    monkeypatch.setattr(drain_module.collected, "write", lambda *_: None)
    with pytest.raises(RuntimeError, match="too many processes"):
        drain(store, "generic")


PART = Change("t", "2", {"id": 1}, "annotations", "a", {"id": "a", "says": "two"})
CHANGES = [
    Change("t", "1", {"id": 1}, "annotations", "a", {"id": "a", "says": "one"}),
    PART,
    Change("t", "3", {"id": 1}, "annotations", "b", {"id": "b", "says": "three"}),
    Change("t", "4", {"id": 1}, "annotations", "c", {"id": "c", "says": "four"}),
]


@given(st.permutations([*CHANGES, PART]))
def test_rows_do_not_depend_on_the_order_in_which_events_come(order: list[Change]) -> None:
    rows = Rows({}, 1)
    for change in order:
        rows.apply(change, "now")
    (row,) = rows.rows.values()
    said = {part["id"]: part["says"] for part in row.row["annotations"]}
    assert said == {"a": "two", "b": "three", "c": "four"}


def test_what_was_taken_back_does_not_come_again() -> None:
    rows = Rows({}, 1)
    rows.apply(PART, "now")
    assert rows.apply(Change(UNKNOWN, "~", parts="annotations", part_id="a"), "now")
    assert rows.rows["t"].row["annotations"] == []
    assert ready(rows.rows.values()) == []
    assert not rows.apply(PART, "now")
    assert not rows.apply(Change("t", "9", {"id": 1}, "annotations", "a", {"id": "a"}), "now")
    assert rows.rows["t"].row["annotations"] == []


def test_a_deleted_task_does_not_come_again() -> None:
    rows = Rows({}, 1)
    rows.apply(PART, "now")
    assert rows.apply(Change("t", "~", gone=True), "now")
    assert not rows.apply(Change("t", "9", {"id": 1}, "annotations", "b", {"id": "b"}), "now")
    assert ready(rows.rows.values()) == []


def test_a_task_in_the_place_of_a_deleted_one_is_a_new_one(store: LocalStore) -> None:
    """On SQLite Label Studio gives the ids of the newest tasks, once deleted, to the next ones."""
    tell(store, 0, "ANNOTATION_CREATED", task=TASK, annotation=annotation(21, 0))
    tell(store, 1, "TASKS_DELETED", tasks=[{"id": 7}])
    assert annotations(store) == []
    tell(store, 2, "ANNOTATION_UPDATED", task=TASK, annotation=annotation(21, 0))  # came late
    assert annotations(store) == []
    tell(store, 3, "ANNOTATION_CREATED", task=TASK, annotation=annotation(22, 3))
    assert annotations(store) == [22]


def test_a_task_deleted_before_it_was_annotated_bars_no_other(store: LocalStore) -> None:
    tell(store, 1, "TASKS_DELETED", tasks=[{"id": 7}])
    tell(store, 3, "ANNOTATION_CREATED", task=TASK, annotation=annotation(21, 3))
    assert annotations(store) == [21]


@pytest.mark.parametrize(
    ("action", "named"),
    [
        ("ANNOTATIONS_DELETED", {"annotations": [{"id": 21}]}),
        ("TASKS_DELETED", {"tasks": [{"id": 7}]}),
    ],
)
def test_what_is_deleted_goes_though_the_tools_clock_is_ahead(
    store: LocalStore, action: str, named: dict[str, Any]
) -> None:
    made = annotation(21, 5)
    tell(store, 0, "ANNOTATION_CREATED", task=TASK, annotation=made)
    tell(store, 1, action, **named)
    tell(store, 2, "ANNOTATION_CREATED", task=TASK, annotation=made)  # came again
    assert annotations(store) == []


TASK = {"id": 7, "data": {"text": "where is it"}}


def annotation(number: int, days: int) -> dict[str, Any]:
    return {"id": number, "result": [], "updated_at": f"{at(days):%Y-%m-%dT%H:%M:%S.%fZ}"}


def tell(store: LocalStore, days: int, action: str, **fields: Any) -> None:
    body = {"action": action, "project": {"id": 3}, **fields}
    inbox.write(store, "label-studio", [Event.of(body, at(days))])
    drain(store, "label-studio")


def annotations(store: LocalStore) -> list[int]:
    number = collected.newest_number(store, "label-studio")
    rows = ready(collected.load(store, "label-studio", number).rows.values())
    return [part["id"] for row in rows for part in row.row["annotations"]]


DELETED_A = Change(UNKNOWN, "~", parts="annotations", part_id="a")


@given(st.permutations([*CHANGES, PART, DELETED_A]))
def test_what_was_taken_back_stays_so_whenever_that_was_told(order: list[Change]) -> None:
    rows = Rows({}, 1)
    for change in order:
        again = Rows(rows.rows, 1)  # as after each event a generation of its own
        again.apply(change, "now")
        rows = again
    (row,) = ready(rows.rows.values())
    assert {part["id"] for part in row.row["annotations"]} == {"b", "c"}


@given(st.permutations([*CHANGES, Change("t", "~", gone=True)]))
def test_a_row_deleted_stays_so_whenever_that_was_told(order: list[Change]) -> None:
    rows = Rows({}, 1)
    for change in order:
        rows.apply(change, "now")
    assert ready(rows.rows.values()) == []


def test_what_was_never_there_is_no_row() -> None:
    rows = Rows({}, 1)
    assert not rows.apply(Change("t", "~", gone=True), "now")
    assert not rows.apply(DELETED_A, "now")
    assert ready(rows.rows.values()) == []
    assert not rows.apply(DELETED_A, "now")


def test_a_row_waits_since_its_first_change_after_the_last_run(store: LocalStore) -> None:
    """Renewed at each change, one that changes every day would never start a run by its age."""
    known = None
    for turn in range(3):
        inbox.write(store, "generic", [Event.of({"rows": [{"id": 1, "turn": turn}]}, at(turn))])
        known = drain(store, "generic", known).generation
    assert known is not None
    (row,) = known.rows.values()
    assert (row.row["turn"], row.changed, row.received) == (2, 3, at(0).isoformat())
    start_if_due(store, "generic", known, HookConfig(min_rows=1), at(3), lambda *_: "run")
    inbox.write(store, "generic", [Event.of({"rows": [{"id": 1, "turn": 4}]}, at(4))])
    (row,) = drain(store, "generic", known).generation.rows.values()
    assert row.received == at(4).isoformat()


def at(days: int) -> datetime:
    return NOW + timedelta(days=days)


def test_a_generic_row_without_a_time_is_as_it_came_last() -> None:
    rows = Rows({}, 1)
    for text in ("one", "two"):
        assert rows.apply(Change("5", "", {"id": 5, "q": text}), "now")
    assert not rows.apply(Change("5", "", {"id": 5, "q": "two"}), "now")
    assert rows.rows["5"].row["q"] == "two"
    later, earlier = Change("5", "2", {"q": "new"}), Change("5", "1", {"q": "old"})
    for change in itertools.chain([later], [earlier]):
        rows.apply(change, "now")
    assert rows.rows["5"].row["q"] == "new"
