"""The stages of ingest as the flow calls them, without Prefect round them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tasks.artifacts import Sources, TaskConfig
from tasks.ingest.config import ColumnMapping, GoldenConfig, IngestConfig, SourceConfig
from tasks.ingest.task import find_sources, ingest, lock_golden
from tasks.objects import open_store
from tasks.storage import is_intact

TASK = TaskConfig(system_prompt="Answer.")


def write(path: Path, numbers: range) -> None:
    rows = [{"q": f"question {n}", "a": f"answer {n}"} for n in numbers]
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def configs(place: Path) -> tuple[IngestConfig, GoldenConfig]:
    columns = ColumnMapping(user="q", assistant="a")
    rows = SourceConfig(path=str(place / "rows.jsonl"), columns=columns)
    golden = SourceConfig(path=str(place / "golden.jsonl"), columns=columns)
    return IngestConfig(sources=(rows,)), GoldenConfig(source=golden)


@pytest.fixture(autouse=True)
def _own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETUNE_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("RETUNE_LOCAL", str(tmp_path / "local"))


def keys(sources: Sources, config: IngestConfig, golden: GoldenConfig) -> tuple[str, str]:
    rows = {"files": sources.rows, "config": config, "task": TASK}
    locked = {"files": sources.golden, "config": golden, "task": TASK, "model": "m"}
    return ingest.cache_key(rows), lock_golden.cache_key(locked)


def test_a_week_with_more_rows(tmp_path: Path) -> None:
    write(tmp_path / "data" / "rows.jsonl", range(8))
    write(tmp_path / "data" / "golden.jsonl", range(100, 104))
    config, golden = configs(tmp_path / "data")
    sources = find_sources.body(config, golden)
    raw = ingest.body(sources.rows, config, TASK)
    locked = lock_golden.body(sources.golden, golden, TASK, "m")
    assert (raw.num_in, raw.num_out, raw.num_new, locked.num_out) == (8, 8, 8, 4)
    assert is_intact(open_store(), raw)

    again = ingest.body(sources.rows, config, TASK)
    assert (again.digest, again.num_new) == (raw.digest, 0)

    write(tmp_path / "data" / "rows.jsonl", range(10))
    with (tmp_path / "data" / "rows.jsonl").open("a") as file:
        file.write("[]\n")
    more = ingest.body(find_sources.body(config, golden).rows, config, TASK)
    assert (more.num_in, more.num_out, more.num_new) == (11, 10, 3)
    assert more.num_quarantined_by_reason == {"not_an_object": 1}
    assert more.digest != raw.digest


def test_the_key_is_what_the_files_hold_not_where_they_lie(tmp_path: Path) -> None:
    for place in ("here", "there"):
        write(tmp_path / place / "rows.jsonl", range(3))
        write(tmp_path / place / "golden.jsonl", range(3))
    (here, there) = (configs(tmp_path / place) for place in ("here", "there"))
    assert keys(find_sources.body(*here), *here) == keys(find_sources.body(*there), *there)
    before = keys(find_sources.body(*here), *here)
    write(tmp_path / "here" / "rows.jsonl", range(4))
    rows, golden = keys(find_sources.body(*here), *here)
    assert rows != before[0]
    assert golden == before[1]
