"""Labelbox's export of data rows (NDJSON)."""

from typing import Any

import pytest

from tasks.artifacts import TaskConfig
from tasks.example import Example
from tasks.ingest.config import SourceConfig
from tasks.ingest.mapping import Excluded, to_examples
from tasks.ingest.rows import BadRow, Row

TASK = TaskConfig()


def made(
    values: dict[str, Any], annotations: str = "latest", **columns: str
) -> list[Example | BadRow | Excluded]:
    config = {"path": "x.ndjson", "shape": "labelbox", "annotations": annotations}
    source = SourceConfig.model_validate({**config, "columns": columns})
    return to_examples(Row("x.ndjson", 3, values, b"the row"), source, TASK)


def example(values: dict[str, Any], *how: str, **columns: str) -> Example:
    (one,) = [o for o in made(values, *how, **columns) if isinstance(o, Example)]
    return one


def option(value: str, **more: Any) -> dict[str, Any]:
    return {
        "feature_id": "clutx70x20onx148px2679qsp",
        "feature_schema_id": "clutx6n1h00ra07y100njafnj",
        "name": value.replace("_", " ").title(),
        "value": value,
        "classifications": [],
        **more,
    }


def question(name: str, **answer: Any) -> dict[str, Any]:
    ids = {"feature_id": "clutx70x20onw148p7mlgpq90", "feature_schema_id": "clutx6n1h00r907y1"}
    return {**ids, "name": name, "value": name, **answer}


def label(*classifications: dict[str, Any], day: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "label_kind": "Default",
        "version": "1.0.0",
        "id": f"label-{day}",
        "label_details": {
            "created_at": f"2026-04-{day:02}T16:21:26.000+00:00",
            "updated_at": f"2026-04-{day:02}T16:34:02.000+00:00",
            "created_by": "ann@example.com",
            "reviews": [],
        },
        "performance_details": {"seconds_to_create": 4, "seconds_to_review": 0, "skipped": False},
        "annotations": {
            "objects": [],
            "classifications": list(classifications),
            "relationships": [],
        },
        **more,
    }


def data_row(*labels: dict[str, Any], row_data: Any = "Where is my card?") -> dict[str, Any]:
    return {
        "data_row": {
            "id": "clf9spzxq029m071nehy60a6v",
            "global_key": "ticket-1",
            "row_data": row_data,
            "details": {"dataset_name": "tickets", "created_by": "ann@example.com"},
        },
        "media_attributes": {"mime_type": "text/plain", "asset_type": "text"},
        "attachments": [],
        "metadata_fields": [{"name": "customer", "value": "c-7"}],
        "projects": {
            "cltd3vkju021907u63w2odj69": {
                "name": "Tickets",
                "labels": list(labels),
                "project_details": {"workflow_status": "DONE"},
            }
        },
    }


RADIO = question("intent", radio_answer=option("card_arrival"))
CHECKS = question("topics", checklist_answers=[option("card"), option("post")])
TEXT = question("reply", text_answer={"content": "On its way."})


def test_a_radio() -> None:
    row = example(data_row(label(RADIO)))
    assert [(m.role, m.content) for m in row.messages] == [
        ("user", "Where is my card?"),
        ("assistant", "card_arrival"),
    ]
    assert row.created_at is not None
    assert row.created_at.isoformat() == "2026-04-01T16:34:02+00:00"
    assert row.source == "annotation"
    assert row.meta["global_key"] == "ticket-1"
    assert "ann@example.com" not in str(row)


def test_questions_by_name() -> None:
    given = data_row(label(RADIO, CHECKS, TEXT))
    row = example(given, assistant="reply", label="intent", group="data_row.global_key")
    assert (row.answer, row.label, row.group) == ("On its way.", "card_arrival", "ticket-1")
    assert example(given, assistant="topics").answer == '["card", "post"]'
    template = '{"intent": {{ intent | tojson }}, "topics": {{ topics | tojson }}}'
    wanted = '{"intent": "card_arrival", "topics": ["card", "post"]}'
    assert example(given, assistant=template).answer == wanted


def test_a_nested_question_stands_beside_its_parent() -> None:
    inner = question("which", radio_answer=option("debit"))
    outer = question("intent", radio_answer=option("card", classifications=[inner]))
    assert example(data_row(label(outer)), assistant="which", label="intent").answer == "debit"


def test_a_conversational_radio() -> None:
    asked = question("mood", conversational_radio_answer=option("calm"), message_id="m1")
    assert example(data_row(label(asked))).answer == "calm"


def test_spans_by_template() -> None:
    span = {"name": "city", "location": {"start": 0, "end": 5, "token": "Paris"}}
    given = label(annotations={"objects": [span], "classifications": []})
    template = "{{ objects | map(attribute='location.token') | join(', ') }}"
    assert example(data_row(given), assistant=template).answer == "Paris"


def test_several_labels() -> None:
    other = question("intent", radio_answer=option("lost_card"))
    given = data_row(label(RADIO, day=1), label(other, day=2))
    assert example(given).answer == "lost_card"
    assert len(made(given, "all")) == 2
    assert [o.reason for o in made(given, "majority") if isinstance(o, Excluded)] == [
        "annotators_disagree",
        "annotators_disagree",
    ]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (data_row(), "not_annotated"),
        (data_row(label()), "empty_annotation"),
        (data_row(label(RADIO, performance_details={"skipped": True})), "annotation_cancelled"),
    ],
)
def test_what_is_no_answer_is_left_out(given: dict[str, Any], reason: str) -> None:
    assert made(given) == [Excluded("x.ndjson", 3, reason)]


@pytest.mark.parametrize(
    ("given", "field", "reason"),
    [
        (
            data_row(label(RADIO), row_data="https://storage.x/a.txt"),
            "data_row.row_data",
            "remote_content",
        ),
        (data_row(label(RADIO), row_data=None), "data_row.row_data", "wrong_type"),
        (data_row(label(RADIO, TEXT)), "assistant", "ambiguous_answer"),
        (
            data_row(label(question("x"))),
            "projects.cltd3vkju021907u63w2odj69.labels[0].classifications[0]",
            "unsupported_annotation",
        ),
        ({"data_row": {}}, "projects", "missing_field"),
        ({"projects": {}}, "data_row", "missing_field"),
        ({"data_row": {}, "projects": {"p": []}}, "projects.p", "wrong_type"),
    ],
    ids=range(7),
)
def test_a_row_that_does_not_fit(given: dict[str, Any], field: str, reason: str) -> None:
    (bad,) = made(given)
    assert isinstance(bad, BadRow)
    assert (bad.field, bad.reason) == (field, reason)
