"""What is read of the traffic: each record once, late ones too, and nobody else's."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from tasks.objects import LocalStore
from tasks.serve.canary.observed import Traffic
from tests.tasks.serve.canary.makers import BEGUN, exchange, said, written

NOW = BEGUN + timedelta(minutes=5)


def ids(found: list) -> list[str]:
    return [one.request_id for one in found]


def test_each_record_is_read_once_in_the_order_of_its_time(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    traffic = Traffic(store, "tickets", BEGUN)
    assert traffic.look(NOW) == ([], [])
    # The first two are of 5 o'clock, the others of 6.
    written(store, [exchange(n) for n in (61, 0, 1, 60)])
    said(store, exchange(60), accepted=True)
    said(store, exchange(1), score=0.5)
    seen = traffic.look(NOW)
    assert ids(seen.answered) == ["req-0", "req-1", "req-60", "req-61"]
    assert ids(seen.feedback) == ["req-1", "req-60"]
    written(store, [exchange(62)])
    seen = traffic.look(NOW)
    assert (ids(seen.answered), seen.feedback) == (["req-62"], [])


def test_other_models_and_what_was_before_are_left(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    written(store, [exchange(1), exchange(2, model="other"), exchange(-1), exchange(-100)])
    assert ids(Traffic(store, "tickets", BEGUN).look(NOW).answered) == ["req-1"]


def test_what_was_written_hours_late_is_found(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    traffic = Traffic(store, "tickets", BEGUN)
    later = BEGUN + timedelta(hours=5)
    traffic.look(later)
    written(store, [exchange(1)])
    found = [ids(traffic.look(later).answered) for _ in range(40)]
    assert [one for one in found if one] == [["req-1"]]


def test_a_look_that_failed_loses_nothing(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    traffic = Traffic(store, "tickets", BEGUN)
    written(store, [exchange(1)])
    said(store, exchange(1), accepted=True)
    (key,) = store.keys_under("traffic/feedback/")
    body = store.get_bytes(key)
    store.put_bytes(key, b"{}")
    try:
        traffic.look(NOW)
    except ValueError:
        pass
    else:
        raise AssertionError("what is no feedback was read")
    store.put_bytes(key, body)
    seen = traffic.look(NOW)
    assert (ids(seen.answered), ids(seen.feedback)) == (["req-1"], ["req-1"])
