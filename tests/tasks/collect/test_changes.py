"""What the events of each tool say of rows."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.collect.changes import Change, MalformedError, Unresolved, changes, without_secrets
from tasks.collected import Hook

TASK = {"id": 7, "data": {"text": "where is it"}, "project": 3, "annotations": [{"id": 1}]}
ANNOTATION = {
    "id": 21,
    "task": 7,
    "project": 3,
    "result": [{"from_name": "answer", "type": "textarea", "value": {"text": ["there"]}}],
    "updated_at": "2026-11-20T10:00:00.5Z",
}
PROJECT = {"id": 3, "title": "Support", "token": "secret-of-the-project", "task_number": 9}


def studio(action: str, **fields: Any) -> dict[str, Any]:
    return {"action": action, "project": PROJECT, **fields}


def one(hook: Hook, body: dict[str, Any]) -> Change:
    said = changes(hook, body)
    assert isinstance(said, list)
    (change,) = said
    return change


@pytest.mark.parametrize("action", ["ANNOTATION_CREATED", "ANNOTATION_UPDATED"])
def test_an_annotation_is_a_part_of_its_task_as_an_export_has_it(action: str) -> None:
    change = one("label-studio", studio(action, task=TASK, annotation=ANNOTATION))
    assert change.row_id == "3/7"
    assert change.row == {"id": 7, "data": {"text": "where is it"}}
    assert (change.parts, change.part_id, change.at) == (
        "annotations",
        "21",
        "2026-11-20T10:00:00.5Z",
    )
    assert change.part is not None
    assert change.part["result"] == ANNOTATION["result"]


def test_what_is_deleted_is_taken_back_as_of_when_it_was_told() -> None:
    said = changes("label-studio", studio("ANNOTATIONS_DELETED", annotations=[{"id": 21}]))
    assert isinstance(said, list)
    assert [(c.part_id, c.part, c.at) for c in said] == [("21", None, None)]
    gone = one("label-studio", studio("TASKS_DELETED", tasks=[{"id": 7}]))
    assert (gone.row_id, gone.gone, gone.at) == ("3/7", True, None)


@pytest.mark.parametrize(
    "body",
    [
        studio("TASKS_CREATED", tasks=[{"id": 1}]),
        studio("ANNOTATIONS_CREATED", annotations=[ANNOTATION]),
        {"action": "ANNOTATION_CREATED"},  # the webhook's payload is switched off
        {"action": "TASKS_DELETED", "tasks": [{"id": 7}]},  # all of a project, by the API
    ],
)
def test_an_event_of_ids_alone_says_that_the_tool_must_be_asked(body: dict[str, Any]) -> None:
    assert isinstance(changes("label-studio", body), Unresolved)


@pytest.mark.parametrize(
    ("hook", "body"),
    [
        ("label-studio", studio("PROJECT_UPDATED")),
        ("label-studio", {"action": "SOMETHING_NEW"}),
        ("argilla", {"type": "dataset.created", "data": {}}),
        ("s3", {"Records": [{"eventName": "ObjectRemoved:Delete"}]}),
        ("s3", {"key": "/buckets/b/k", "event_type": "delete", "message": {}}),
    ],
)
def test_other_events_are_of_no_interest(hook: Hook, body: dict[str, Any]) -> None:
    assert changes(hook, body) is None


def test_the_projects_token_is_not_kept() -> None:
    body = studio("ANNOTATION_CREATED", task=TASK, annotation=ANNOTATION)
    kept = without_secrets("label-studio", body)
    assert "secret-of-the-project" not in str(kept)
    assert kept["project"] == {"id": 3, "title": "Support"}
    assert changes("label-studio", kept) == changes("label-studio", body)


def response(kind: str) -> dict[str, Any]:
    record = {"id": "r1", "fields": {"text": "hi"}, "status": "completed", "dataset": {"id": "d"}}
    data = {
        "id": "a1",
        "status": "submitted",
        "values": {"label": {"value": "yes"}},
        "updated_at": "2026-11-20T10:00:00",
        "record": record,
        "user": {"id": "u1", "username": "ada"},
    }
    return {"type": kind, "version": 1, "timestamp": "2026-11-20T10:00:01Z", "data": data}


def test_argillas_response_is_a_part_of_its_record() -> None:
    change = one("argilla", response("response.created"))
    assert (change.row_id, change.parts, change.part_id) == ("r1", "responses", "a1")
    assert change.row == {"id": "r1", "fields": {"text": "hi"}, "status": "completed"}
    assert change.part is not None
    assert (change.part["values"], change.part["user_id"]) == ({"label": {"value": "yes"}}, "u1")
    deleted = one("argilla", response("response.deleted"))
    assert deleted.part is None
    assert deleted.at > change.at


def record(name: str, key: str) -> dict[str, Any]:
    thing = {"key": key, "eTag": "e", "size": 3, "sequencer": "0A"}
    s3 = {"bucket": {"name": "data"}, "object": thing}
    return {"eventName": name, "eventTime": "2026-11-20T10:00:00Z", "s3": s3}


@pytest.mark.parametrize("prefix", ["", "s3:"])
def test_an_object_that_was_made_is_named_with_its_place(prefix: str) -> None:
    body = {
        "Records": [
            record(f"{prefix}ObjectCreated:Put", "rows/a+b%2Bc.jsonl"),
            record(f"{prefix}ObjectRemoved:Delete", "rows/old.jsonl"),
        ]
    }
    change = one("s3", body)
    assert change.row_id == "s3://data/rows/a b+c.jsonl"
    assert change.row == {"object": "s3://data/rows/a b+c.jsonl", "etag": "e"}


def test_seaweedfs_names_its_objects_by_their_folder() -> None:
    entry = {"name": "a.jsonl", "attributes": {"mtime": 1700000000, "md5": "x"}}
    body = {
        "key": "/buckets/data/rows/a.jsonl",
        "event_type": "create",
        "message": {"new_entry": entry},
    }
    assert one("s3", body).row_id == "s3://data/rows/a.jsonl"
    folder = {**body, "message": {"new_entry": {"is_directory": True}}}
    assert changes("s3", folder) is None


def test_labelbox_counts_labels_whose_rows_an_export_has() -> None:
    assert one("labelbox", {"id": "cl1", "updated_at": "2026"}).row == {"label": "cl1"}


def test_a_generic_row_goes_by_its_id_else_by_what_it_holds() -> None:
    rows = [{"id": 5, "q": "a"}, {"q": "b"}, {"q": "b"}]
    said = changes("generic", {"rows": rows, "timestamp": "2026-11-20"})
    assert isinstance(said, list)
    assert said[0].row_id == "5"
    assert said[1].row_id == said[2].row_id != ""
    assert {c.at for c in said} == {"2026-11-20"}


@pytest.mark.parametrize(
    ("hook", "body", "words"),
    [
        ("label-studio", {}, "action: expected a text, came nothing"),
        ("label-studio", studio("ANNOTATION_CREATED", task=[], annotation={}), "task: expected an"),
        ("label-studio", studio("TASKS_DELETED", tasks=[{"id": True}]), "id: expected a text or"),
        ("argilla", {"type": "response.created", "data": {"record": 5}}, "record: expected an obj"),
        ("labelbox", {"id": ""}, "id: expected"),
        ("s3", {"Records": [{"eventName": "ObjectCreated:Put"}]}, "s3: expected an object"),
        ("s3", {"Records": 3}, "Records: expected a list"),
        ("generic", {"rows": ["text"]}, "rows: expected a list of objects"),
    ],
)
def test_what_its_tool_would_not_send_is_refused(
    hook: Hook, body: dict[str, Any], words: str
) -> None:
    with pytest.raises(MalformedError, match=words):
        changes(hook, body)
