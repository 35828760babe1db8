"""Tool definitions and tool calls of a row -> the canonical JSON texts of an example.

Forms: OpenAI's ``tools`` and ``tool_calls`` (API reference, "Chat completions"), the same without
ids as TRL's "Dataset formats and types" has them, and LLaMA-Factory's ShareGPT, whose calls are a
turn of JSON and whose definitions stand without ``type``.

Canonical means one spelling: definitions in a list, each with its ``type``; of a call ``id`` (left
out where the row has none), ``type`` and ``function`` in this order, and its arguments an object,
which templates render, even where the row has them as JSON text. Members keep their order and
numbers their digits, since templates write both as they come and requests in production do too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tasks.ingest.fields import (
    FieldError,
    an_object,
    as_text,
    column,
    exact,
    holds,
    objects,
    optional_text,
    shown,
)
from tasks.ingest.jsonl import JSONTextError, decoded

NOTHING: tuple[object, ...] = (None, "", [], {}, "[]")
_OUTER = ("type", "function")
_ARGUMENT_REASONS = {
    "invalid_json": "arguments_not_json",
    "not_an_object": "arguments_not_an_object",
}


def is_nothing(value: object) -> bool:
    """Whether a key is there but says nothing, as Arrow gives every row every key."""
    return any(value == nothing and type(value) is type(nothing) for nothing in NOTHING)


def tools_of(values: Mapping[str, Any], mapped: str | None, usual: str | None) -> str | None:
    """The definitions in the mapped column, which must be there, else in the usual one, if any.

    Raises FieldError for what is no function's definition, and for two of one name.
    """
    name = mapped or (usual if usual is not None and holds(values, usual) else None)
    if name is None:
        return None
    return definitions(column(values, name), name)


def definitions(given: object, field: str) -> str | None:
    """The same of a value, which may be a list or its JSON text."""
    if is_nothing(given):
        return None
    parsed = _parsed(given, field) if isinstance(given, str) else given
    tools = [_definition(tool, f"{field}[{i}]") for i, tool in enumerate(objects(parsed, field))]
    names = [tool["function"]["name"] for tool in tools]
    twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if twice is not None:
        raise FieldError(field, "duplicate_tool", f"expected each name once, came {shown(twice)}")
    return _canonical(tools, field)


def calls(given: object, field: str) -> str:
    """OpenAI's ``tool_calls``, not empty; raises FieldError for a call that cannot be kept."""
    listed = [_call(call, f"{field}[{i}]") for i, call in enumerate(objects(given, field))]
    return _canonical(listed, field)


def spoken_calls(said: str, field: str) -> str:
    """ShareGPT's turn of calls: the JSON text of one ``{"name", "arguments"}``, or of a list.

    A call in the prose of a model's own format is refused: which format it is, nothing says.
    """
    try:
        parsed = decoded(exact(said, field).encode())
    except JSONTextError as error:
        detail = f"expected a call as JSON with name and arguments: {error.detail}"
        reason = "tool_calls_unsupported" if error.reason == "invalid_json" else error.reason
        raise FieldError(field, reason, detail) from error
    listed = parsed if isinstance(parsed, list) else [parsed]
    if not listed or not all(isinstance(one, dict) and "name" in one for one in listed):
        detail = f"expected a call as JSON with name and arguments, came {shown(said)}"
        raise FieldError(field, "tool_calls_unsupported", detail)
    return calls([{"function": one} for one in listed], field)


def _definition(tool: dict[str, Any], field: str) -> dict[str, Any]:
    kind = tool.get("type") or "function"
    if kind != "function":
        detail = f"expected a tool of type function, came {shown(kind)}"
        raise FieldError(f"{field}.type", "tool_type_unsupported", detail)
    if is_nothing(tool.get("function")):  # bare, as ShareGPT and OpenAI's Responses API have it
        tool = {"type": kind, "function": {k: v for k, v in tool.items() if k not in _OUTER}}
    function = _function(tool, field)
    if not isinstance(function.get("parameters", {}), dict | None):
        came = type(function["parameters"]).__name__
        detail = f"expected a JSON Schema, came {came}"
        raise FieldError(f"{field}.function.parameters", "wrong_type", detail)
    return {"type": kind, **{k: v for k, v in tool.items() if k != "type"}}


def _call(call: dict[str, Any], field: str) -> dict[str, Any]:
    kind = call.get("type")
    if kind not in (None, "function"):
        detail = f"expected a call of type function, came {shown(kind)}"
        raise FieldError(f"{field}.type", "tool_type_unsupported", detail)
    function = _function(call, field)
    given = optional_text(call, "id") if "id" in call else None
    made = {
        "type": "function",
        "function": {
            "name": function["name"],
            "arguments": _arguments(function.get("arguments"), f"{field}.function.arguments"),
        },
    }
    return made if given is None else {"id": given, **made}


def _function(values: dict[str, Any], field: str) -> dict[str, Any]:
    """What is defined or called: an object with a name."""
    try:
        function = an_object(values, "function")
    except FieldError as error:
        raise FieldError(f"{field}.function", error.reason, error.detail) from error
    name = function.get("name")
    if not isinstance(name, str) or not name.strip():
        reason = "missing_field" if name is None or isinstance(name, str) else "wrong_type"
        detail = f"expected a function's name, came {shown(name)}"
        raise FieldError(f"{field}.function.name", reason, detail)
    return function


def _arguments(given: object, field: str) -> dict[str, Any]:
    """An object, or its JSON text; nothing is the call of a function without arguments."""
    if given is None or (isinstance(given, str) and not given.strip()):
        return {}
    if isinstance(given, str):
        given = _parsed(given, field)
    if not isinstance(given, dict):
        detail = f"expected an object, came {type(given).__name__}"
        raise FieldError(field, "arguments_not_an_object", detail)
    return given


def _parsed(text: str, field: str) -> Any:
    try:
        return decoded(exact(text, field).encode())
    except JSONTextError as error:
        reason = error.reason
        if field.endswith(".arguments"):
            reason = _ARGUMENT_REASONS.get(reason, reason)
        raise FieldError(field, reason, f"expected {error.detail}") from error


def _canonical(value: list[dict[str, Any]], field: str) -> str:
    text = as_text(value, field)
    if "\\u0000" in text:  # perhaps an escaped NUL, perhaps a backslash before it
        for string in _strings(value):
            exact(string, field)
    return text


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _strings(item)
