"""What a receiver that was down missed, and what events of ids alone do not tell."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from deployments.services.drain import Drainer
from deployments.services.reconcile import Reconciliation
from tasks import collected
from tasks.collect import inbox
from tasks.collect.config import HookConfig, WebhookConfig
from tasks.collect.inbox import Event
from tasks.objects import LocalStore

ENVIRON = {"RETUNE_WEBHOOK_LABEL_STUDIO_SECRET": "s"}
HOOK = HookConfig(label_studio_url="http://127.0.0.1:9", label_studio_project=1, start_runs=False)


def task(number: int, *annotations: dict[str, Any]) -> dict[str, Any]:
    return {"id": number, "data": {"text": f"q {number}"}, "annotations": list(annotations)}


def annotation(number: int, says: str, at: str = "2026-11-20T10:00:00Z") -> dict[str, Any]:
    return {"id": number, "result": [{"value": {"text": [says]}}], "updated_at": at}


class Studio:
    """A project that can be exported, and a clock."""

    def __init__(self, *tasks: dict[str, Any]) -> None:
        self.tasks = list(tasks)
        self.asked = 0
        self.away = False
        self.now = 0.0

    def export(self, url: str, project: int, target: Path) -> None:
        self.asked += 1
        if self.away:
            raise ConnectionError("Label Studio is away")
        assert (url, project) == ("http://127.0.0.1:9", 1)
        target.write_text(json.dumps(self.tasks))


@pytest.fixture(autouse=True)
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETUNE_LOCAL", str(tmp_path / "local"))


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def drainer(store: LocalStore, studio: Studio, hook: HookConfig = HOOK) -> Drainer:
    config = WebhookConfig(hooks={"label-studio": hook})
    asking = Reconciliation(studio.export, lambda: studio.now)
    return Drainer(config, store, environ=ENVIRON, reconciliation=asking)


def said(store: LocalStore) -> dict[str, list[str]]:
    number = collected.newest_number(store, "label-studio")
    rows = collected.load(store, "label-studio", number).rows
    return {
        row_id: [a["result"][0]["value"]["text"][0] for a in row.row.get("annotations", ())]
        for row_id, row in rows.items()
    }


def test_a_receiver_that_was_down_finds_what_it_missed(store: LocalStore) -> None:
    studio = Studio(task(1, annotation(11, "one")), task(2, annotation(21, "two")), task(3))
    drainer(store, studio).drain_once()
    assert said(store) == {"1/1": ["one"], "1/2": ["two"]}
    assert inbox.keys(store, "label-studio") == []


def test_it_asks_again_after_its_time_and_writes_only_what_is_new(store: LocalStore) -> None:
    studio = Studio(task(1, annotation(11, "one")))
    behind = drainer(store, studio)
    for _ in range(3):
        behind.drain_once()
    assert studio.asked == 1
    number = collected.newest_number(store, "label-studio")
    studio.now = 3600.0
    behind.drain_once()
    assert studio.asked == 2
    assert collected.newest_number(store, "label-studio") == number  # nothing was new
    studio.tasks = [task(1, annotation(11, "mended", "2026-11-21T10:00:00Z"))]
    studio.now = 7200.0
    behind.drain_once()
    assert said(store) == {"1/1": ["mended"]}


def test_what_was_deleted_meanwhile_is_taken_back(store: LocalStore) -> None:
    studio = Studio(task(1, annotation(11, "one"), annotation(12, "two")))
    behind = drainer(store, studio)
    behind.drain_once()
    studio.tasks, studio.now = [task(1, annotation(12, "two"))], 3600.0
    behind.drain_once()
    assert said(store) == {"1/1": ["two"]}
    studio.now = 7200.0
    number = collected.newest_number(store, "label-studio")
    behind.drain_once()
    assert collected.newest_number(store, "label-studio") == number


def test_the_last_annotation_of_a_task_is_missed_too(store: LocalStore) -> None:
    """Label Studio leaves a task that nobody annotated out of its export, like one that is gone."""
    studio = Studio(task(1, annotation(11, "one")), task(2, annotation(21, "two")))
    behind = drainer(store, studio)
    behind.drain_once()
    other = {"action": "ANNOTATION_CREATED", "project": {"id": 2}, "task": task(3)}
    body = {**other, "annotation": annotation(31, "another project's")}
    inbox.write(store, "label-studio", [Event.of(body, datetime.now(UTC))])
    studio.tasks, studio.now = [task(2, annotation(21, "two"))], 3600.0
    behind.drain_once()
    assert said(store) == {"1/1": [], "1/2": ["two"], "2/3": ["another project's"]}
    studio.now = 7200.0
    number = collected.newest_number(store, "label-studio")
    behind.drain_once()
    assert collected.newest_number(store, "label-studio") == number


def test_an_event_of_ids_alone_is_asked_about_at_once_and_until_it_is_answered(
    store: LocalStore,
) -> None:
    studio = Studio()
    behind = drainer(store, studio)
    behind.drain_once()
    body = {"action": "TASKS_CREATED", "project": {"id": 1}, "tasks": [{"id": 5}]}
    inbox.write(store, "label-studio", [Event.of(body, datetime.now(UTC))])
    studio.tasks, studio.away = [task(5, annotation(51, "five"))], True
    behind.drain_once()
    assert said(store) == {}
    studio.away = False
    behind.drain_once()
    assert said(store) == {"1/5": ["five"]}
    assert studio.asked == 3


def test_where_no_server_is_named_it_says_what_is_missing(
    store: LocalStore, caplog: pytest.LogCaptureFixture
) -> None:
    studio = Studio()
    body = {"action": "ANNOTATION_CREATED"}
    inbox.write(store, "label-studio", [Event.of(body, datetime.now(UTC))])
    with caplog.at_level(logging.WARNING):
        drainer(store, studio, HookConfig(start_runs=False)).drain_once()
    assert studio.asked == 0
    assert "set label_studio_url for it to be asked" in caplog.text


def test_an_export_that_is_none_changes_nothing(
    store: LocalStore, caplog: pytest.LogCaptureFixture
) -> None:
    studio = Studio()
    studio.tasks = [{"id": 1}]
    drainer(store, studio).drain_once()
    assert "expected the tasks of an export" in caplog.text
    assert said(store) == {}


def test_a_server_needs_its_project() -> None:
    with pytest.raises(ValidationError, match="give both"):
        HookConfig(label_studio_url="http://127.0.0.1:9")
