"""What a replica answered, read from the bytes that went to the client.

A streamed answer is put together again, into what the same request would have got in one piece.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

_DATA = b"data:"
_DONE = b"[DONE]"


def events(raw: bytes) -> Iterator[dict[str, Any]]:
    """The objects of a stream of server-sent events; what is none is passed over."""
    for line in raw.splitlines():
        text = line.removeprefix(_DATA).strip()
        if line.startswith(_DATA) and text != _DONE:
            try:
                event = json.loads(text)
            except (ValueError, RecursionError):  # the last one of a stream that was cut
                continue
            if isinstance(event, dict):
                yield event


def whole(raw: bytes, *, streamed: bool) -> dict[str, Any]:
    """The answer as one object; empty for bytes that are none."""
    if streamed:
        return _assembled(events(raw))
    try:
        answer = json.loads(raw)
    except (ValueError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}


def usage(answer: dict[str, Any]) -> tuple[int | None, int | None]:
    """Tokens of the prompt and of the answer, where the replica told."""
    told = answer.get("usage")
    told = told if isinstance(told, dict) else {}
    counts = [told.get(name) for name in ("prompt_tokens", "completion_tokens")]
    prompt, completion = (c if isinstance(c, int) else None for c in counts)
    return prompt, completion


def first_choice(answer: dict[str, Any]) -> dict[str, Any]:
    """The choice that counts, of several; empty where there is none."""
    choices = answer.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        return choices[0]
    return {}


def text_of(choice: dict[str, Any]) -> str:
    """What was said: of a chat its message's content, of a completion its text."""
    message = choice.get("message")
    said = message.get("content") if isinstance(message, dict) else choice.get("text")
    return said if isinstance(said, str) else ""


def calls_of(choice: dict[str, Any]) -> list[Any]:
    """The tools that the answer calls."""
    message = choice.get("message")
    calls = message.get("tool_calls") if isinstance(message, dict) else None
    return calls if isinstance(calls, list) else []


def _assembled(chunks: Iterator[dict[str, Any]]) -> dict[str, Any]:
    answer: dict[str, Any] = {}
    choices: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        for name in ("id", "created", "model", "usage", "error"):
            if chunk.get(name) is not None:
                answer[name] = chunk[name]
        for part in _objects(chunk.get("choices")):
            index = part.get("index")
            if isinstance(index, int):
                _add(choices.setdefault(index, {"index": index}), part)
    if choices:
        answer["choices"] = [choices[index] for index in sorted(choices)]
        chat = any("message" in choice for choice in choices.values())
        answer["object"] = "chat.completion" if chat else "text_completion"
    return answer


def _add(choice: dict[str, Any], part: dict[str, Any]) -> None:
    """One chunk's part of a choice."""
    if part.get("finish_reason") is not None:
        choice["finish_reason"] = part["finish_reason"]
    if isinstance(part.get("text"), str):
        choice["text"] = choice.get("text", "") + part["text"]
    delta = part.get("delta")
    if isinstance(delta, dict):
        message = choice.setdefault("message", {"role": "assistant", "content": None})
        for name in ("content", "refusal"):
            if isinstance(delta.get(name), str):
                message[name] = (message.get(name) or "") + delta[name]
        for call in _objects(delta.get("tool_calls")):
            _add_call(message.setdefault("tool_calls", []), call)


def _add_call(calls: list[dict[str, Any]], part: dict[str, Any]) -> None:
    """A call comes in parts as well: its id and name first, then its arguments piece by piece."""
    index = part.get("index")
    call = next((c for c in calls if c["index"] == index), None)
    if call is None:
        call = {"index": index, "type": "function", "function": {"name": "", "arguments": ""}}
        calls.append(call)
    if isinstance(part.get("id"), str):
        call["id"] = part["id"]
    function = part.get("function")
    for name in ("name", "arguments"):
        if isinstance(function, dict) and isinstance(function.get(name), str):
            call["function"][name] += function[name]


def _objects(values: Any) -> Iterator[dict[str, Any]]:
    return (v for v in values if isinstance(v, dict)) if isinstance(values, list) else iter(())
