"""A record of the gateway's own log -> a draft of an example. Its schema is the contract here.

The gateway writes JSON lines, one object per answered request::

    {"request_id": "req-1",                      unique
     "created_at": "2026-11-24T10:00:00Z",       ISO 8601
     "model": "tickets", "model_version": "7",   as in the registry
     "request": {"messages": [...], "user": ...},   OpenAI's chat completion request
     "response": {"choices": [{"message": {...}, "finish_reason": "stop"}], "usage": {...}},
     "user": "u-1", "conversation": "c-1",       optional
     "status": 200,
     "feedback": [{"score": 1, "accepted": true, "correction": "...", "created_at": "..."}]}

A streamed answer is logged assembled, as the same object. Of several choices the first counts.
``feedback`` is optional, a list or one object, each with any of score, accepted and correction.

An example is the request's messages with the last correction as the answer, else with the response
where the latest verdict accepts it: ``accepted``, or without it a score of at least ``min_score``.
The request's tools are the example's, and a response may call them; a correction is a text. With
one it does not matter how the response ended; an empty correction is none. What is not learned from
is left out and counted: ``status_not_200``, ``feedback_missing``, ``feedback_rejected``,
``answer_truncated``, ``answer_filtered``.

The log is joined to late feedback by the gateway, not here: it writes a record once the time for
its feedback is over, so that reading needs the memory of one record. A line with feedback alone is
``feedback_late``: counted, and not joined. The group is the conversation, else the user's hash
(the log's readers need not know who it is), else the request.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from tasks.example import Message
from tasks.ingest.chat import chat_message, chat_messages, refuse_functions, with_system
from tasks.ingest.config import SourceConfig
from tasks.ingest.draft import Draft, Left, Made
from tasks.ingest.fields import (
    FieldError,
    an_object,
    as_text,
    as_time,
    column,
    exact,
    names,
    objects,
    optional_text,
    shown,
    time,
)
from tasks.ingest.tools import definitions

_ENDINGS = {"length": "answer_truncated", "content_filter": "answer_filtered"}


def gateway_log(values: dict[str, Any], source: SourceConfig) -> Iterator[Made]:
    """The example that a logged request makes, or why it makes none."""
    if "request" not in values and "feedback" in values:
        yield Left("feedback_late")
        return
    if column(values, "status") != 200:
        yield Left("status_not_200")
        return
    feedback = _feedback(values)
    correction = _correction(feedback)
    reason = None if correction is not None else _unwanted(values, feedback, source)
    if reason is not None:
        yield Left(reason)
        return
    request = an_object(values, "request")
    refuse_functions(request, "request.")
    prompt = chat_messages(column(values, "request.messages"), "request.messages")
    answer = _answer(values) if correction is None else Message("assistant", correction)
    columns = source.columns
    system = optional_text(values, columns.system)
    yield Draft(
        with_system(system, [*prompt, answer], "request.messages"),
        label=optional_text(values, columns.label),
        group=optional_text(values, columns.group) or _group(values, request),
        created_at=time(values, columns.created_at or "created_at"),
        meta=names(**{key: values.get(key) for key in ("request_id", "model", "model_version")}),
        tools=definitions(request.get("tools"), "request.tools"),
    )


def _unwanted(
    values: dict[str, Any], feedback: list[dict[str, Any]], source: SourceConfig
) -> str | None:
    """Why the response is not to be learned from."""
    ending = _ENDINGS.get(str(_choice(values).get("finish_reason")))
    if ending is not None:
        return ending
    verdicts = [v for entry in feedback if (v := _verdict(entry, source)) is not None]
    if verdicts:
        return None if verdicts[-1] else "feedback_rejected"
    return "feedback_missing" if source.feedback == "required" else None


def _feedback(values: dict[str, Any]) -> list[dict[str, Any]]:
    """The entries, the latest last."""
    given = values.get("feedback")
    entries = objects([given] if isinstance(given, dict) else given or [], "feedback")
    moments = [as_time(e.get("created_at"), "feedback.created_at") for e in entries]
    times = [m.timestamp() if m else float("-inf") for m in moments]
    return [entries[i] for i in sorted(range(len(entries)), key=lambda i: times[i])]


def _correction(feedback: list[dict[str, Any]]) -> str | None:
    given = [e["correction"] for e in feedback if e.get("correction") not in (None, "")]
    return as_text(given[-1], "feedback.correction") if given else None


def _verdict(entry: dict[str, Any], source: SourceConfig) -> bool | None:
    accepted, score = entry.get("accepted"), entry.get("score")
    if accepted is not None:
        if not isinstance(accepted, bool):
            detail = f"expected true or false, came {type(accepted).__name__}"
            raise FieldError("feedback.accepted", "wrong_type", detail)
        return accepted
    if score is None:
        return None
    if isinstance(score, bool) or not isinstance(score, int | float | Decimal):
        detail = f"expected a number, came {type(score).__name__}"
        raise FieldError("feedback.score", "wrong_type", detail)
    return bool(score >= source.min_score)


def _choice(values: dict[str, Any]) -> dict[str, Any]:
    choices = objects(column(values, "response.choices"), "response.choices")
    if not choices:
        raise FieldError("response.choices", "missing_field", "expected a choice, came none")
    return choices[0]


def _answer(values: dict[str, Any]) -> Message:
    place = "response.choices[0].message"
    message = chat_message(_choice(values).get("message"), place)
    if message.role != "assistant":
        detail = f"expected the assistant's message, came {shown(message.role)}"
        raise FieldError(f"{place}.role", "unknown_role", detail)
    return message


def _group(values: dict[str, Any], request: dict[str, Any]) -> str | None:
    conversation = values.get("conversation")
    if conversation not in (None, ""):
        return as_text(conversation, "conversation")
    user = values.get("user") or request.get("user")
    if user:
        hashed = hashlib.sha256(as_text(user, "user").encode()).hexdigest()
        return f"user:{hashed}"
    request_id = values.get("request_id")
    return exact(request_id, "request_id") if isinstance(request_id, str) and request_id else None
