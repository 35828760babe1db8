"""Golden rows in storage, of which some are sealed."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tasks.artifacts import GoldenSet
from tasks.example import Example, Message, content_id
from tasks.golden_rows import golden_rows, golden_table, is_sealed
from tasks.objects import Store, open_store
from tasks.storage import commit


def row(number: int, system: str | None = None) -> Example:
    turns = [Message("user", f"question {number}"), Message("assistant", f"answer {number}")]
    messages = tuple([Message("system", system), *turns] if system else turns)
    return Example(content_id(messages), messages, source="human", group=str(number))


def stored(store: Store, folder: Path, rows: list[Example], share: float) -> GoldenSet:
    folder.mkdir()
    table = golden_table(rows, share)
    pq.write_table(table, folder / "examples.parquet")
    uri, digest = commit(store, "golden", folder)
    return GoldenSet(
        uri=uri,
        digest=digest,
        model="m",
        name="g",
        version=1,
        rows_digest="r",
        num_sealed=sum(table["sealed"].to_pylist()),
    )


def test_every_row_stands_in_one_part(tmp_path: Path) -> None:
    store, rows = open_store(str(tmp_path / "store")), [row(i) for i in range(400)]
    golden = stored(store, tmp_path / "golden", rows, 0.25)
    first, second = golden_rows(store, golden), golden_rows(store, golden.sealed)
    assert len(second) == golden.num_sealed
    assert {e.id for e in first} | {e.id for e in second} == {e.id for e in rows}
    assert len(first) + len(second) == len(rows)
    assert len(second) == pytest.approx(100, abs=30)  # 3.5 standard deviations


def test_without_a_share_nothing_is_sealed(tmp_path: Path) -> None:
    store, rows = open_store(str(tmp_path / "store")), [row(i) for i in range(40)]
    golden = stored(store, tmp_path / "golden", rows, 0.0)
    assert golden_rows(store, golden) == rows
    assert golden_rows(store, golden.sealed) == []


def test_another_system_prompt_moves_no_row() -> None:
    """Else a row that was looked at might be taken for a fresh one."""
    places = [(is_sealed(row(i), 0.3), is_sealed(row(i, "Be brief."), 0.3)) for i in range(200)]
    assert all(before == after for before, after in places)
    assert {before for before, _ in places} == {True, False}


def test_a_larger_share_seals_all_that_the_smaller_did() -> None:
    rows = [row(i) for i in range(200)]
    fewer, more = ({e.id for e in rows if is_sealed(e, share)} for share in (0.1, 0.4))
    assert fewer < more


def test_the_two_parts_are_different_inputs_of_a_stage(tmp_path: Path) -> None:
    golden = stored(open_store(str(tmp_path / "s")), tmp_path / "g", [row(1), row(2)], 0.5)
    assert golden.fingerprint() != golden.sealed.fingerprint()
