"""Whatever stands in a row, it makes examples, a bad row or exclusions, and each can be stored."""

import json
from contextlib import suppress

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.artifacts import TaskConfig
from tasks.errors import DataError
from tasks.example import Example, to_table
from tasks.ingest.config import SourceConfig
from tasks.ingest.mapping import Excluded, check_columns, is_wanted, to_examples
from tasks.ingest.rows import BadRow, Row

TASK = TaskConfig(system_prompt="Be brief.")
SHAPES = [
    "columns", "chat", "prompt_completion", "alpaca", "sharegpt",
    "label_studio", "argilla", "labelbox", "scale", "gateway_log",
]  # fmt: skip

QUICK = settings(max_examples=40, deadline=None)

# The words of the formats, so that the fuzz gets past their first field.
KEYS = st.sampled_from(
    [
        "messages", "role", "content", "type", "text", "prompt", "completion", "instruction",
        "input", "output", "system", "history", "conversations", "from", "value", "tools",
        "weight", "data", "annotations", "result", "from_name", "to_name", "choices",
        "was_cancelled", "ground_truth", "updated_at", "annotation_id", "reviews", "accepted",
        "fields", "responses", "status", "user_id", "values", "metadata", "label",
        "label.responses", "label.responses.users", "label.responses.status", "data_row",
        "row_data", "projects", "labels", "classifications", "name", "radio_answer",
        "checklist_answers", "text_answer", "objects", "params", "attachments", "response",
        "threads", "turns", "request", "message", "finish_reason", "feedback", "score",
        "correction", "created_at", "conversation", "user", "id", "task_id", "completed_at",
        "tool_calls", "tool_call_id", "function", "arguments", "parameters",
        "chatmessage", "author", "customer_review_status", "label_details", "skipped",
    ]
)  # fmt: skip
WORDS = st.sampled_from(
    [
        "user", "assistant", "tool", "human", "gpt", "function_call", '{"name": "f"}',
        "text", "completed", "submitted", "stop", "length",
        "choices", "textarea", "chatmessage", "2026-01-02T03:04:05Z", "", "a\0b", "\ud800",
        "https://x.org/a",
    ]
)  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.sampled_from([0, 1, 200, 10**30]) | st.floats() | WORDS
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | WORDS, inner, max_size=5),
    max_leaves=8,
)  # fmt: skip
ROWS = st.dictionaries(KEYS | st.text(max_size=3), VALUES, max_size=6)


def check(shape: str, values: dict[str, object], **config: object) -> None:
    source = SourceConfig.model_validate({"path": "x.jsonl", "shape": shape, **config})
    made = to_examples(Row("x.jsonl", 3, values, b"the row"), source, TASK)
    assert made
    for one in made:
        if isinstance(one, BadRow):
            assert len(made) == 1
            assert one.reason.isidentifier()
            assert one.detail.startswith("expected ")
            pa.array([one.field, one.detail], pa.string())
        elif isinstance(one, Excluded):
            assert one.reason.isidentifier()
        else:
            assert isinstance(one, Example)
            to_table([one])
            assert all("\0" not in str(m.as_chat()) for m in one.messages)
            assert one.tools is None or isinstance(json.loads(one.tools), list)
    is_wanted(Row("x.jsonl", 3, values, b""), source)


@pytest.mark.parametrize("shape", SHAPES)
@QUICK
@given(values=ROWS)
def test_any_row(shape: str, values: dict[str, object]) -> None:
    check(shape, values)


LIST = {"messages": "messages", "user": "text", "assistant": "output", "label": "label"}


@QUICK
@given(
    values=ROWS,
    user=st.none() | KEYS,
    assistant=st.none() | KEYS | st.just("{{ text | tojson }}"),
    label=st.none() | KEYS,
    group=st.none() | st.just("metadata.customer") | KEYS,
    created_at=st.none() | KEYS,
    how=st.sampled_from(["latest", "all"]),
    shape=st.sampled_from(["label_studio", "argilla", "labelbox", "scale"]),
)
def test_any_row_with_any_mapping(
    values: dict[str, object], shape: str, how: str, **columns: str | None
) -> None:
    check(shape, values, annotations=how, columns=columns)


@pytest.mark.parametrize("shape", SHAPES)
@QUICK
@given(values=ROWS)
def test_a_table_is_accepted_or_refused_by_its_columns(
    shape: str, values: dict[str, object]
) -> None:
    source = SourceConfig.model_validate({"path": "x.csv", "shape": shape})
    with suppress(DataError):
        check_columns(Row("x.csv", 2, values, b""), source)


RESULT = st.fixed_dictionaries({"from_name": KEYS, "type": WORDS, "value": ROWS})
ANSWER = st.fixed_dictionaries(
    {"result": st.lists(RESULT, max_size=2)},
    optional={"was_cancelled": VALUES, "ground_truth": VALUES, "updated_at": VALUES, "id": VALUES},
)
CLOSE = {
    "chat": st.fixed_dictionaries({"messages": st.lists(ROWS, max_size=3)}),
    "sharegpt": st.fixed_dictionaries({"conversations": st.lists(ROWS, max_size=3)}),
    "label_studio": st.fixed_dictionaries(
        {"data": st.just({"text": "x"}) | ROWS, "annotations": st.lists(ANSWER, max_size=3)}
    ),
    "argilla": st.fixed_dictionaries({"fields": ROWS, "responses": ROWS}),
    "labelbox": st.fixed_dictionaries(
        {
            "data_row": ROWS,
            "projects": st.fixed_dictionaries(
                {"p": st.fixed_dictionaries({"labels": st.lists(ROWS, max_size=2)})}
            ),
        }
    ),
    "scale": st.fixed_dictionaries(
        {"status": st.just("completed"), "params": ROWS, "response": ROWS},
        optional={"threads": st.lists(ROWS, max_size=2)},
    ),
    "gateway_log": st.fixed_dictionaries(
        {"status": st.just(200), "request": ROWS, "response": ROWS, "feedback": st.lists(ROWS)}
    ),
}  # fmt: skip


@pytest.mark.parametrize("shape", CLOSE)
@QUICK
@given(data=st.data())
def test_a_row_that_is_nearly_right(shape: str, data: st.DataObject) -> None:
    check(shape, data.draw(CLOSE[shape]))
