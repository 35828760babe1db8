"""The gateway's own log: what its users accepted or corrected becomes an example."""

import hashlib
from typing import Any

import pytest

from tasks.artifacts import TaskConfig
from tasks.example import Example
from tasks.ingest.config import SourceConfig
from tasks.ingest.mapping import Excluded, to_examples
from tasks.ingest.rows import BadRow, Row

TASK = TaskConfig()


def made(values: dict[str, Any], **config: Any) -> Example | BadRow | Excluded:
    source = SourceConfig.model_validate({"path": "x.jsonl", "shape": "gateway_log", **config})
    (one,) = to_examples(Row("x.jsonl", 3, values, b"the row"), source, TASK)
    return one


def example(values: dict[str, Any], **config: Any) -> Example:
    one = made(values, **config)
    assert isinstance(one, Example), one
    return one


def logged(*feedback: dict[str, Any], **more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": "On its way.", "refusal": None, "tool_calls": None}
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Where is my card?"},
    ]
    return {
        "request_id": "req-1",
        "created_at": "2026-11-24T10:00:00Z",
        "model": "tickets",
        "model_version": "7",
        "request": {"model": "tickets", "messages": messages, "temperature": 0},
        "response": {
            "id": "chatcmpl-1",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13},
        },
        "status": 200,
        "feedback": list(feedback),
        **more,
    }


def ended(reason: str, *feedback: dict[str, Any]) -> dict[str, Any]:
    row = logged(*feedback)
    row["response"]["choices"][0]["finish_reason"] = reason
    return row


YES, NO = {"accepted": True}, {"accepted": False}


def test_an_accepted_answer() -> None:
    row = example(logged(YES))
    assert [(m.role, m.content) for m in row.messages] == [
        ("system", "Be brief."),
        ("user", "Where is my card?"),
        ("assistant", "On its way."),
    ]
    assert (row.source, row.group) == ("production", "req-1")
    assert row.created_at is not None
    assert row.created_at.isoformat() == "2026-11-24T10:00:00+00:00"
    assert (row.meta["request_id"], row.meta["model_version"]) == ("req-1", "7")


def test_a_correction_is_the_answer() -> None:
    for feedback in (
        [{"correction": "Sent today."}],
        [NO, {"correction": "Sent today."}],
        [{"accepted": False, "correction": "Sent today."}, YES],
    ):
        assert example(logged(*feedback)).answer == "Sent today."


def test_the_last_correction_by_its_time() -> None:
    late = {"correction": "late", "created_at": "2026-11-25T00:00:00Z"}
    early = {"correction": "early", "created_at": "2026-11-24T23:00:00-02:00"}
    assert example(logged(late, early)).answer == "early"


def test_an_empty_correction_is_none() -> None:
    assert example(logged({"accepted": True, "correction": ""})).answer == "On its way."


def test_a_correction_does_not_care_how_the_answer_ended() -> None:
    assert example(ended("length", {"correction": "Sent today."})).answer == "Sent today."


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (logged(), "feedback_missing"),
        ({k: v for k, v in logged().items() if k != "feedback"}, "feedback_missing"),
        (logged({"created_at": "2026-11-24T10:00:00Z"}), "feedback_missing"),
        (logged(NO), "feedback_rejected"),
        (logged(YES, NO), "feedback_rejected"),
        (logged({"score": 0}), "feedback_rejected"),
        (ended("length", YES), "answer_truncated"),
        (ended("content_filter", YES), "answer_filtered"),
        (logged(YES, status=500), "status_not_200"),
        (logged({"correction": "x"}, status=429, response=None), "status_not_200"),
        ({"request_id": "req-1", "feedback": {"accepted": True}}, "feedback_late"),
    ],
    ids=range(11),
)
def test_what_is_not_learned_from_says_why(row: dict[str, Any], reason: str) -> None:
    assert made(row) == Excluded("x.jsonl", 3, reason)


def test_the_latest_verdict_decides() -> None:
    assert example(logged(NO, YES))
    first = {"accepted": True, "created_at": "2026-11-24T10:00:00Z"}
    second = {"accepted": False, "created_at": "2026-11-24T11:00:00Z"}
    for order in ((first, second), (second, first)):
        assert made(logged(*order)) == Excluded("x.jsonl", 3, "feedback_rejected")


def test_a_score_accepts_from_the_configured_one_on() -> None:
    assert example(logged({"score": 1}))
    assert example(logged({"score": 4}), min_score=4)
    assert isinstance(made(logged({"score": 3.9}), min_score=4), Excluded)


def test_without_feedback_where_the_config_allows_it() -> None:
    assert example(logged(), feedback="any").answer == "On its way."
    assert isinstance(made(logged(NO), feedback="any"), Excluded)
    assert isinstance(made(ended("length"), feedback="any"), Excluded)


def test_feedback_may_be_one_object() -> None:
    assert example({**logged(), "feedback": YES})


def test_of_several_choices_the_first_counts() -> None:
    row = logged(YES)
    other = {"index": 1, "message": {"role": "assistant", "content": "No."}}
    row["response"]["choices"].append(other)
    assert example(row).answer == "On its way."


def test_the_group_is_the_conversation_or_the_users_hash() -> None:
    hashed = "user:" + hashlib.sha256(b"u-1").hexdigest()
    assert example(logged(YES, conversation="c-1", user="u-1")).group == "c-1"
    assert example(logged(YES, user="u-1")).group == hashed
    row = logged(YES)
    row["request"]["user"] = "u-1"
    assert example(row).group == hashed
    assert example(logged(YES, tenant="t-1"), columns={"group": "tenant"}).group == "t-1"


def with_message(**message: Any) -> dict[str, Any]:
    row = logged(YES)
    row["response"]["choices"] = [{"message": {"role": "assistant", **message}}]
    return row


@pytest.mark.parametrize(
    ("row", "field", "reason"),
    [
        ({}, "status", "missing_field"),
        (logged(YES, request=None), "request", "wrong_type"),
        (logged(YES, request={}), "request.messages", "missing_field"),
        (logged(YES, response={"choices": []}), "response.choices", "missing_field"),
        (logged(YES, feedback="good"), "feedback", "wrong_type"),
        (logged({"accepted": "yes"}), "feedback.accepted", "wrong_type"),
        (logged({"score": "high"}), "feedback.score", "wrong_type"),
        (
            logged(YES, request={"messages": [], "tools": [{}]}),
            "request.tools[0].function.name",
            "missing_field",
        ),
        (
            with_message(content=None, tool_calls=[{"id": "1"}]),
            "response.choices[0].message.tool_calls[0].function",
            "missing_field",
        ),
        (with_message(content=None), "response.choices[0].message.content", "wrong_type"),
        (logged(YES, created_at="soon"), "created_at", "invalid_time"),
    ],
    ids=range(11),
)
def test_a_record_that_does_not_fit(row: dict[str, Any], field: str, reason: str) -> None:
    bad = made(row)
    assert isinstance(bad, BadRow)
    assert (bad.field, bad.reason) == (field, reason)
