"""Scale's tasks: text collection and other tasks on text, and threads of Generative AI."""

from typing import Any

import pytest

from tasks.artifacts import TaskConfig
from tasks.example import Example
from tasks.ingest.config import SourceConfig
from tasks.ingest.mapping import Excluded, to_examples
from tasks.ingest.rows import BadRow, Row

TASK = TaskConfig()


def made(values: dict[str, Any], **columns: str) -> list[Example | BadRow | Excluded]:
    config = {"path": "x.json", "shape": "scale", "columns": columns}
    source = SourceConfig.model_validate(config)
    return to_examples(Row("x.json", 3, values, b"the row"), source, TASK)


def example(values: dict[str, Any], **columns: str) -> Example:
    (one,) = made(values, **columns)
    assert isinstance(one, Example), one
    return one


def task(response: Any, params: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {
        "task_id": "5774cc78b01249ab09f089dd",
        "created_at": "2026-09-01T03:00:00.000Z",
        "completed_at": "2026-09-02T03:00:00.000Z",
        "type": "textcollection",
        "status": "completed",
        "instruction": "Choose the intent.",
        "params": params
        or {"attachments": [{"type": "text", "content": "Where is my card?"}], "fields": []},
        "response": response,
        "is_test": False,
        "urgency": "standard",
        "metadata": {"customer": "c-7"},
        "project": "tickets",
        **more,
    }


def field(name: str, response: Any) -> dict[str, Any]:
    return {name: {"type": "category", "field_id": name, "response": response}}


def test_a_text_collection() -> None:
    row = example(
        task({"annotations": field("intent", [["card_arrival"]])}),
        group="metadata.customer",
        system="instruction",
        label="intent",
    )
    assert [(m.role, m.content) for m in row.messages] == [
        ("system", "Choose the intent."),
        ("user", "Where is my card?"),
        ("assistant", "card_arrival"),
    ]
    assert (row.group, row.label, row.source) == ("c-7", "card_arrival", "annotation")
    assert row.created_at is not None
    assert row.created_at.isoformat() == "2026-09-02T03:00:00+00:00"


def test_several_values_are_a_list() -> None:
    row = example(task({"annotations": field("topics", [["card", "post"]])}))
    assert row.answer == '["card", "post"]'


def test_a_response_without_annotations() -> None:
    row = example(task({"category": "card"}, {"text": "Where is my card?"}))
    assert (row.prompt, row.answer) == ("Where is my card?", "card")


def test_named_entities_are_a_json_list() -> None:
    spans = [{"text": "card", "label": "product", "start": 12, "end": 16}]
    row = example(task({"annotations": spans}, {"text": "Where is my card?"}))
    assert row.answer == '[{"text": "card", "label": "product", "start": 12, "end": 16}]'


def test_fields_by_name() -> None:
    response = {"annotations": {**field("intent", [["a"]]), **field("reply", "On its way.")}}
    row = example(
        task(response), assistant="reply", label="intent", user="params.attachments.0.content"
    )
    assert (row.answer, row.label) == ("On its way.", "a")


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (task(None, status="pending"), "not_completed"),
        (task(None, status="canceled"), "not_completed"),
        (task({"annotations": {}}), "empty_annotation"),
        (task({"category": "a"}, customer_review_status="rejected"), "review_rejected"),
        ({"status": "completed", "threads": []}, "empty_annotation"),
    ],
)
def test_what_is_no_answer_is_left_out(given: dict[str, Any], reason: str) -> None:
    assert made(given) == [Excluded("x.json", 3, reason)]


ANSWER = {"category": "a"}


@pytest.mark.parametrize(
    ("given", "field", "reason"),
    [
        ({}, "status", "missing_field"),
        (task(None), "response", "wrong_type"),
        (task(ANSWER, {"x": 1}), "params.attachments", "ambiguous_prompt"),
        (
            task(ANSWER, {"attachments": [{"type": "image", "content": "http://x"}]}),
            "params.attachments[0]",
            "unsupported_content",
        ),
        (
            task(ANSWER, {"attachments": [{"type": "text", "content": "https://x.org/a.txt"}]}),
            "params.attachments[0].content",
            "remote_content",
        ),
        (task({"a": "x", "b": "y"}, {"text": "x"}), "assistant", "ambiguous_answer"),
    ],
    ids=range(6),
)
def test_a_task_that_does_not_fit(given: dict[str, Any], field: str, reason: str) -> None:
    (bad,) = made(given)
    assert isinstance(bad, BadRow)
    assert (bad.field, bad.reason) == (field, reason)


def threads(*contents: Any) -> dict[str, Any]:
    roles = ("user", "assistant")
    messages = [
        {"role": roles[i % 2], "content": content, "source_id": "s", "annotations": []}
        for i, content in enumerate(contents)
    ]
    thread = {
        "id": "thread_1",
        "turns": [{"id": f"t{i}", "messages": [m]} for i, m in enumerate(messages)],
    }
    return {
        "task_id": "task_abc123",
        "project": "project_abc123",
        "status": "completed",
        "completed_at": "2026-11-07T05:31:56Z",
        "threads": [thread, {**thread, "id": "thread_2"}],
    }


def test_each_thread_is_an_example() -> None:
    content = {"text": "Hi", "reference_texts": [], "attachments": []}
    rows = made(threads(content, {**content, "text": "Hello"}))
    assert [[m.content for m in r.messages] for r in rows if isinstance(r, Example)] == [
        ["Hi", "Hello"],
        ["Hi", "Hello"],
    ]
    assert {r.group for r in rows if isinstance(r, Example)} == {"task_abc123"}


def test_a_thread_with_an_attachment_is_refused() -> None:
    (bad,) = made(threads({"text": "Hi", "attachments": [{"mime_type": "image/png"}]}))
    assert isinstance(bad, BadRow)
    assert bad.reason == "unsupported_content"
