"""Answers in one piece and in many: what was said, called and counted."""

from __future__ import annotations

import json
from typing import Any

from tasks.serve.answer import calls_of, first_choice, text_of, usage, whole


def stream(*chunks: dict[str, Any]) -> bytes:
    return (
        b"".join(b"data: " + json.dumps(c).encode() + b"\n\n" for c in chunks) + b"data: [DONE]\n\n"
    )


def delta(index: int = 0, ended: str | None = None, **said: Any) -> dict[str, Any]:
    return {"id": "1", "choices": [{"index": index, "delta": said, "finish_reason": ended}]}


def test_a_stream_is_put_together() -> None:
    raw = stream(
        delta(role="assistant", content=""),
        delta(content="It is "),
        delta(1, content="other"),
        delta(content="näh", ended="stop"),
        {"id": "1", "choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}},
    )
    answer = whole(raw, streamed=True)
    choice = first_choice(answer)
    assert (text_of(choice), choice["finish_reason"]) == ("It is näh", "stop")
    assert answer["choices"][1]["message"]["content"] == "other"
    assert usage(answer) == (5, 2)
    assert answer["object"] == "chat.completion"


def test_calls_come_in_parts_too() -> None:
    def call(index: int, **function: str) -> dict[str, Any]:
        return {"index": index, "function": function}

    raw = stream(
        delta(tool_calls=[call(0, name="find", arguments="") | {"id": "c1"}]),
        delta(tool_calls=[call(0, arguments='{"id"'), call(1, name="tell") | {"id": "c2"}]),
        delta(tool_calls=[call(0, arguments=": 1}")], ended="tool_calls"),
    )
    first, second = calls_of(first_choice(whole(raw, streamed=True)))
    assert (first["id"], first["function"]) == ("c1", {"name": "find", "arguments": '{"id": 1}'})
    assert (second["id"], second["function"]["name"]) == ("c2", "tell")


def test_a_stream_that_was_cut_is_what_came_of_it() -> None:
    raw = stream(delta(content="It is "), delta(content="well"))[:-30]
    assert text_of(first_choice(whole(raw, streamed=True))) == "It is "


def test_a_completion_has_a_text() -> None:
    raw = stream({"choices": [{"index": 0, "text": "a"}]}, {"choices": [{"index": 0, "text": "b"}]})
    answer = whole(raw, streamed=True)
    assert (text_of(first_choice(answer)), answer["object"]) == ("ab", "text_completion")


def test_what_is_no_answer_is_empty() -> None:
    for raw in (b"", b"[]", b"nonsense", b'{"choices": 1}', b'{"choices": [1]}', b"\xff"):
        for streamed in (True, False):
            answer = whole(raw, streamed=streamed)
            assert text_of(first_choice(answer)) == ""
            assert calls_of(first_choice(answer)) == []
            assert usage(answer) == (None, None)
