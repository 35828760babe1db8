"""Argilla's exports: nested and flattened records of version 2, feedback records of version 1."""

from typing import Any

import pytest

from tasks.artifacts import TaskConfig
from tasks.example import Example
from tasks.ingest.config import SourceConfig
from tasks.ingest.mapping import Excluded, to_examples
from tasks.ingest.rows import BadRow, Row

TASK = TaskConfig()
ANN, BOB, CAT = (f"0b6e1a2c-0000-4000-8000-00000000000{i}" for i in range(3))


def made(
    values: dict[str, Any], annotations: str = "latest", **columns: str
) -> list[Example | BadRow | Excluded]:
    config = {"path": "x.json", "shape": "argilla", "annotations": annotations}
    source = SourceConfig.model_validate({**config, "columns": columns})
    return to_examples(Row("x.json", 3, values, b"the row"), source, TASK)


def answers(values: dict[str, Any], *how: str, **columns: str) -> list[str]:
    return [o.answer for o in made(values, *how, **columns) if isinstance(o, Example)]


def reasons(values: dict[str, Any], *how: str, **columns: str) -> list[str]:
    return [o.reason for o in made(values, *how, **columns) if isinstance(o, Excluded)]


def nested(responses: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "id": "r-1",
        "fields": {"text": "Great card!"},
        "metadata": {"customer": "c-7"},
        "suggestions": {"label": {"value": "negative", "score": 0.9, "agent": "model"}},
        "responses": responses,
        "vectors": {},
        "status": "completed",
        "_server_id": "8f7c0f1e-0000-4000-8000-000000000000",
        **more,
    }


def given(*pairs: tuple[str, Any], **more: Any) -> list[dict[str, Any]]:
    return [{"value": value, "user_id": user, **more} for user, value in pairs]


def test_a_nested_record() -> None:
    (row,) = made(nested({"label": given((ANN, "positive"))}), group="customer", label="label")
    assert isinstance(row, Example)
    assert [(m.role, m.content) for m in row.messages] == [
        ("user", "Great card!"),
        ("assistant", "positive"),
    ]
    assert (row.group, row.label, row.source) == ("c-7", "positive", "annotation")
    assert row.meta["record"] == "r-1"


def test_a_suggestion_is_no_answer() -> None:
    assert reasons(nested({})) == ["not_annotated"]


def test_several_annotators() -> None:
    record = nested({"label": given((ANN, "a"), (BOB, "b"), (CAT, "a"))})
    assert answers(record) == ["a"]
    assert answers(record, "majority") == ["a"]
    assert answers(record, "all") == ["a", "b", "a"]
    assert reasons(record, "majority") == ["outvoted", "confirmed"]


def test_several_questions_of_one_annotator_belong_together() -> None:
    record = nested(
        {"label": given((ANN, "a"), (BOB, "b")), "reply": given((BOB, "B."), (ANN, "A."))}
    )
    (row,) = [o for o in made(record, assistant="reply", label="label") if isinstance(o, Example)]
    assert (row.answer, row.label) == ("B.", "b")


def test_a_pending_record_without_statuses_does_not_count() -> None:
    record = nested({"label": given((ANN, "a"))}, status="pending")
    assert reasons(record) == ["record_pending"]
    submitted = nested({"label": given((ANN, "a"), status="submitted")}, status="pending")
    assert answers(submitted) == ["a"]


@pytest.mark.parametrize(
    ("value", "answer"),
    [
        (4, "4"),
        (["x", "y"], '["x", "y"]'),
        ([{"value": "r1", "rank": 1}], '[{"value": "r1", "rank": 1}]'),
        ("two\nlines", "two\nlines"),
    ],
)
def test_kinds_of_questions(value: Any, answer: str) -> None:
    assert answers(nested({"q": given((ANN, value))})) == [answer]


def test_a_chat_field() -> None:
    turns = [{"role": "user", "content": "Hi"}]
    record = nested({"q": given((ANN, "Hello"))}, fields={"conversation": turns})
    assert answers(record, messages="conversation") == ["Hello"]
    assert answers({**record, "fields": {"prompt": turns}}) == ["Hello"]


def flat(statuses: list[str | None]) -> dict[str, Any]:
    return {
        "id": "r-1",
        "status": "pending",
        "_server_id": "8f7c0f1e-0000-4000-8000-000000000000",
        "text": "Great card!",
        "customer": "c-7",
        "label.responses": ["a", "b"],
        "label.responses.users": [ANN, BOB],
        "label.responses.status": statuses,
        "label.suggestion": "c",
        "label.suggestion.score": 0.5,
        "label.suggestion.agent": None,
    }


def test_a_flattened_record() -> None:
    record = flat(["submitted", "submitted"])
    assert answers(record, "all", group="customer") == ["a", "b"]
    assert answers(flat(["submitted", "discarded"]), "all") == ["a"]


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("draft", "response_draft"),
        ("discarded", "response_discarded"),
        ("pending", "response_pending"),
        ("some other", "response_pending"),
    ],
)
def test_only_a_submitted_response_counts(status: str, reason: str) -> None:
    assert reasons(flat(["submitted", status])) == [reason]


def test_a_flattened_record_without_responses() -> None:
    record = {**flat([]), "label.responses": None, "label.responses.users": None}
    assert reasons({**record, "label.responses.status": None}) == ["not_annotated"]


def test_a_flattened_record_that_does_not_add_up() -> None:
    (bad,) = made(flat(["submitted"]))
    assert isinstance(bad, BadRow)
    assert (bad.field, bad.reason) == ("label.responses", "wrong_type")


def test_a_feedback_record_of_the_api_of_version_1() -> None:
    record = {
        "id": "6f0a",
        "external_id": "entry-1",
        "fields": {"text": "Great card!"},
        "metadata": None,
        "responses": [
            {"user_id": ANN, "status": "submitted", "values": {"label": {"value": "a"}}},
            {"user_id": BOB, "status": "discarded", "values": {}},
            {"user_id": CAT, "status": "draft", "values": {"label": {"value": "b"}}},
        ],
    }
    assert answers(record) == ["a"]
    assert reasons(record) == ["response_discarded", "response_draft"]


def test_a_pushed_record_of_version_1() -> None:
    listed = {
        "text": "Great card!",
        "label": [{"user_id": ANN, "value": "a", "status": "submitted"}],
        "label-suggestion": "b",
        "external_id": "entry-1",
        "metadata": '{"customer": "c-7"}',
    }
    columns = {"user_id": [None], "value": ["a"], "status": ["submitted"]}
    for record in (listed, {**listed, "label": columns}):
        (row,) = made(record, group="customer")
        assert isinstance(row, Example)
        assert (row.answer, row.group, row.meta["record"]) == ("a", "c-7", "entry-1")


def test_a_record_with_two_fields_needs_a_mapping() -> None:
    record = nested({"q": given((ANN, "x"))}, fields={"question": "Q", "context": "C"})
    (bad,) = made(record)
    assert isinstance(bad, BadRow)
    assert bad.reason == "ambiguous_prompt"
    assert answers(record, user="{{ context }}\n\n{{ question }}") == ["x"]
