"""Looks at a golden set are kept one by one and counted."""

from __future__ import annotations

from pathlib import Path

from tasks.artifacts import BaseModelRef, Contestant, GoldenSet
from tasks.looks import LookCount, count_looks, log_look, looks, wear
from tasks.objects import LocalStore

BASE = BaseModelRef(id="base", digest="b" * 64)
CANDIDATE = Contestant(role="candidate", base_model=BASE, adapter_digest="a" * 64)


def golden(version: int = 1, name: str = "set") -> GoldenSet:
    return GoldenSet(
        uri="u", digest="d", model="bot", name=name, version=version, rows_digest="r" * 64
    )


def test_every_look_is_kept(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    assert count_looks(store, golden()) == (0, 0)
    log_look(store, golden(), Contestant(role="base", base_model=BASE), "run-1")
    log_look(store, golden(), CANDIDATE, "run-1")
    log_look(store, golden(), CANDIDATE, None)
    found = list(looks(store, "bot", "set", 1))
    assert [(look.role, look.flow_run_id) for look in found] == [
        ("base", "run-1"),
        ("candidate", "run-1"),
        ("candidate", None),
    ]
    assert found[0].adapter_digest is None
    assert found[1].adapter_digest == "a" * 64
    assert {look.rows_digest for look in found} == {"r" * 64}
    assert count_looks(store, golden()) == (3, 2)


def test_versions_and_names_are_apart(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    for other in (golden(version=11), golden(name="set-v1")):
        log_look(store, other, CANDIDATE, None)
        assert count_looks(store, other).looks == 1
    assert count_looks(store, golden()).looks == 0


def test_a_set_that_many_models_were_looked_at_on_asks_for_fresh_rows() -> None:
    assert wear(LookCount(900, 20), golden(), 20) is None
    told = wear(LookCount(21, 21), golden(version=3), 20)
    assert told is not None
    assert "21 models were looked at on the golden set set version 3" in told
    assert "set golden.version to 4" in told
