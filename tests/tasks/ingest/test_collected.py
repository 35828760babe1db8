"""Rows that webhooks collected, as a source of a run."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from tasks.artifacts import TaskConfig
from tasks.collect import inbox
from tasks.collect.drain import drain
from tasks.collect.inbox import Event
from tasks.collected import Hook
from tasks.ingest.config import ColumnMapping, IngestConfig, SourceConfig
from tasks.ingest.files import find
from tasks.ingest.parts import Parts
from tasks.ingest.snapshot import read_source, write_snapshot
from tasks.objects import Store, open_store

TASK = TaskConfig()


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("RETUNE_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("RETUNE_LOCAL", str(tmp_path / "local"))
    return open_store()


def arrive(store: Store, hook: Hook, *bodies: dict[str, Any]) -> None:
    inbox.write(store, hook, [Event.of(body, datetime.now(UTC)) for body in bodies])
    drain(store, hook)


def annotated(task: int, says: str, at: str = "2026-11-20T10:00:00Z") -> dict[str, Any]:
    value = {"from_name": "answer", "to_name": "text", "type": "textarea"}
    return {
        "action": "ANNOTATION_UPDATED",
        "project": {"id": 1},
        "task": {"id": task, "data": {"text": f"question {task}"}},
        "annotation": {
            "id": 100 + task,
            "result": [{**value, "value": {"text": [says]}}],
            "updated_at": at,
        },
    }


def test_label_studios_events_are_read_as_its_export(store: Store) -> None:
    arrive(store, "label-studio", annotated(1, "first"), annotated(2, "second"))
    arrive(store, "label-studio", annotated(1, "mended", at="2026-11-21T10:00:00Z"))
    good, bad = read_source(SourceConfig(collected="label-studio"), TASK)
    assert sorted((e.prompt, e.answer) for e in good) == [
        ("question 1", "mended"),
        ("question 2", "second"),
    ]
    assert {e.source for e in good} == {"annotation"}
    assert bad == []


def test_argillas_events_are_read_as_its_records(store: Store) -> None:
    record = {"id": "r1", "fields": {"text": "what now"}, "status": "completed"}
    data = {
        "id": "a1",
        "status": "submitted",
        "values": {"answer": {"value": "this"}},
        "updated_at": "2026-11-20T10:00:00",
        "record": record,
        "user": {"id": "u1"},
    }
    arrive(store, "argilla", {"type": "response.created", "data": data})
    columns = ColumnMapping(user="text", assistant="answer")
    good, bad = read_source(SourceConfig(collected="argilla", columns=columns), TASK)
    assert [(e.prompt, e.answer) for e in good] == [("what now", "this")], bad


def test_generic_rows_are_read_as_the_config_maps_them(store: Store) -> None:
    arrive(store, "generic", {"rows": [{"id": 1, "q": "one", "a": "yes"}, {"q": "two"}]})
    columns = ColumnMapping(user="q", assistant="a")
    good, bad = read_source(SourceConfig(collected="generic", columns=columns), TASK)
    assert [(e.prompt, e.answer) for e in good] == [("one", "yes")]
    assert [b.reason for b in bad] == ["missing_field"]


def test_before_the_first_event_there_is_nothing_and_the_other_sources_are_read(
    store: Store, tmp_path: Path
) -> None:
    (tmp_path / "rows.jsonl").write_text('{"q": "one", "a": "yes"}\n')
    columns = ColumnMapping(user="q", assistant="a")
    config = IngestConfig(
        sources=[
            SourceConfig(collected="generic", columns=columns),
            SourceConfig(path=str(tmp_path / "rows.jsonl"), columns=columns),
        ]
    )
    files = [find(source) for source in config.sources]
    assert files[0] == ()
    parts = Parts(store, TASK, "code", lambda table: np.ones(len(table), dtype=bool))
    assert write_snapshot(files, config, parts, tmp_path).num_read == 1
    arrive(store, "generic", {"rows": [{"id": 1, "q": "two", "a": "no"}]})
    files = [find(source) for source in config.sources]
    assert write_snapshot(files, config, parts, tmp_path).num_read == 2


def test_rows_that_did_not_change_are_the_same_file(store: Store) -> None:
    arrive(store, "label-studio", annotated(1, "first"))
    (before,) = find(SourceConfig(collected="label-studio"))
    arrive(store, "label-studio", annotated(1, "first"), annotated(2, "second"))
    (after,) = find(SourceConfig(collected="label-studio"))
    arrive(store, "label-studio", annotated(2, "second"))
    (same,) = find(SourceConfig(collected="label-studio"))
    assert before.fingerprint() != after.fingerprint() == same.fingerprint()


@pytest.mark.parametrize(
    "values",
    [
        {"collected": "generic", "path": "rows.jsonl"},
        {"collected": "s3"},
        {
            "collected": "label-studio",
            "label_studio_url": "http://127.0.0.1:8080",
            "label_studio_project": 1,
        },
    ],
)
def test_a_source_has_one_place(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SourceConfig.model_validate(values)
