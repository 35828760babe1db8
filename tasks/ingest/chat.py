"""Chat turns of other tools -> messages, or the reason why they cannot be kept as they are.

A message here is a role and a text, with the calls of tools that it makes or the id of the one that
it answers. So text parts are joined with nothing between them, as OpenAI and the chat templates
read them, ``developer`` is OpenAI's newer name of ``system``, and a turn with anything else that
the model would see or learn (images, audio, a refusal, a participant's name, the ``function_call``
that ``tool_calls`` replaced) is refused rather than cut down. Times, ids of turns and a model's
hidden reasoning are not part of what was said and are left aside, and so is the name in a tool's
turn where it repeats that of the call.

Forms: OpenAI's chat completion messages and fine-tuning files (platform.openai.com, API reference
and "Supervised fine-tuning"); ShareGPT's ``from`` and ``value`` with the role names of FastChat and
of LLaMA-Factory's ``data/README.md``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from tasks.example import Message
from tasks.ingest.draft import Left
from tasks.ingest.fields import FieldError, exact, shown
from tasks.ingest.tools import calls, is_nothing, spoken_calls

_ROLES = {"developer": "system"}
# What a message may hold beside its text that changes what the model sees or learns.
_REFUSED = {
    "function_call": "tool_calls_unsupported",
    "refusal": "refusal_unsupported",
    "audio": "unsupported_content",
    "name": "name_unsupported",
}

_SPEAKERS = {
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("gpt", "assistant", "chatgpt", "bot", "model"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("tool", "observation", "function_response", "tool_response"), "tool"),
}
_CALLS = ("function_call", "tool_call")
_AMBIGUOUS = "function"  # a call to some, the result of one to others


def chat_messages(turns: object, field: str) -> list[Message]:
    """OpenAI's chat messages; raises FieldError for a turn that cannot be kept whole."""
    listed = _turns(turns, field)
    messages = [chat_message(turn, f"{field}[{i}]") for i, turn in enumerate(listed)]
    for index, (turn, message) in enumerate(zip(listed, messages, strict=True)):
        name = turn.get("name")
        if message.role == "tool" and not is_nothing(name) and name != _called(messages, index):
            detail = f"expected the name of the call that it answers, came {shown(name)}"
            raise FieldError(f"{field}[{index}].name", "name_unsupported", detail)
    return messages


def chat_message(turn: object, field: str) -> Message:
    """One of them."""
    turn = _object(turn, field, "role", "content")
    role = _string(turn, "role", field)
    for key, reason in _REFUSED.items():
        if not is_nothing(turn.get(key)) and (key, role) != ("name", "tool"):
            raise FieldError(f"{field}.{key}", reason, f"expected a turn of text, came a {key}")
    made = None if is_nothing(turn.get("tool_calls")) else turn["tool_calls"]
    answered = (
        None if is_nothing(turn.get("tool_call_id")) else _string(turn, "tool_call_id", field)
    )
    for key, given, owner in (
        ("tool_calls", made, "assistant"), ("tool_call_id", answered, "tool")
    ):  # fmt: skip
        if given is not None and role != owner:
            detail = f"expected it in a turn of the role {owner}, came {shown(role)}"
            raise FieldError(f"{field}.{key}", f"{key}_misplaced", detail)
    if made is None:
        return Message(_ROLES.get(role, role), _content(turn, field), None, answered)
    content = "" if turn.get("content") is None else _content(turn, field)
    return Message(role, content, calls(made, f"{field}.tool_calls"))


def sharegpt_messages(turns: object, field: str) -> list[Message]:
    """ShareGPT's turns, a leading one of the assistant's too: whether it may stay, clean says."""
    return [
        _spoken(turn, "from", "value", f"{field}[{i}]")
        for i, turn in enumerate(_turns(turns, field))
    ]


def dialogue_messages(turns: object, field: str) -> list[Message]:
    """Chat messages, or the ``author`` and ``text`` of Label Studio's Paragraphs."""
    listed = _turns(turns, field)
    if all(isinstance(turn, dict) and "author" in turn for turn in listed):
        return [_spoken(turn, "author", "text", f"{field}[{i}]") for i, turn in enumerate(listed)]
    return chat_messages(listed, field)


def with_system(system: str | None, messages: list[Message], field: str) -> list[Message]:
    """The messages behind the system turn of a column of its own; both must not contradict."""
    if not system:
        return messages
    own = [m.content for m in messages if m.role == "system"]
    if not own:
        return [Message("system", system), *messages]
    if own != [system]:
        detail = "expected one system turn, came one in the column and another in the messages"
        raise FieldError(field, "conflicting_system", detail)
    return messages


def refuse_functions(values: dict[str, Any], prefix: str = "") -> None:
    """Raises FieldError for definitions in the form that ``tools`` replaced."""
    if not is_nothing(values.get("functions")):
        detail = "expected `tools`, came the `functions` that they replaced: write them anew"
        raise FieldError(f"{prefix}functions", "tools_unsupported", detail)


def weights(turns: object, field: str) -> Left | None:
    """What OpenAI's ``weight`` says: nothing to learn here, or raises where it says it of a part.

    Training takes every turn of the assistant's; an example cannot leave one of them out.
    """
    given = [
        (turn.get("weight"), f"{field}[{i}].weight")
        for i, turn in enumerate(_turns(turns, field))
        if isinstance(turn, dict) and turn.get("role") == "assistant"
    ]
    for weight, place in given:
        if weight is not None and (isinstance(weight, bool) or weight not in (0, 1)):
            raise FieldError(place, "wrong_type", f"expected 0 or 1, came {shown(weight)}")
    ignored = [place for weight, place in given if weight == 0]
    if ignored and len(ignored) == len(given):
        return Left("weight_zero")
    if ignored:
        detail = "expected the same weight on every assistant turn: all of them are trained on"
        raise FieldError(ignored[0], "weight_unsupported", detail)
    return None


def _turns(turns: object, field: str) -> list[Any]:
    if not isinstance(turns, Iterable) or isinstance(turns, str | bytes | dict):
        detail = f"expected a list of messages, came {type(turns).__name__}"
        raise FieldError(field, "wrong_type", detail)
    return turns if isinstance(turns, list) else list(turns)


def _content(turn: dict[str, Any], field: str) -> str:
    content = turn.get("content")
    if not isinstance(content, list):
        return _string(turn, "content", field)
    texts = []
    for index, part in enumerate(content):
        place = f"{field}.content[{index}]"
        kind = _string(_object(part, place, "type"), "type", place)
        if kind != "text":
            detail = f"expected a part of type text, came {shown(kind)}"
            raise FieldError(place, "unsupported_content", detail)
        texts.append(_string(part, "text", place))
    return "".join(texts)


def _spoken(turn: object, speaker: str, said: str, field: str) -> Message:
    turn = _object(turn, field, speaker, said)
    name = _string(turn, speaker, field)
    if name.lower() in _CALLS:
        return Message("assistant", "", spoken_calls(_string(turn, said, field), f"{field}.{said}"))
    if name.lower() == _AMBIGUOUS:
        detail = f"expected {' or '.join(_CALLS)}, or tool, came {name}, which may be either"
        raise FieldError(f"{field}.{speaker}", "tool_calls_unsupported", detail)
    if name.lower() not in _SPEAKERS:
        detail = f"expected one of {', '.join(_SPEAKERS)}, came {shown(name)}"
        raise FieldError(f"{field}.{speaker}", "unknown_role", detail)
    return Message(_SPEAKERS[name.lower()], _string(turn, said, field))


def _object(value: object, field: str, *keys: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        detail = f"expected an object with {' and '.join(keys)}, came {type(value).__name__}"
        raise FieldError(field, "wrong_type", detail)
    return value


def _string(values: dict[str, Any], key: str, field: str) -> str:
    if key not in values:
        raise FieldError(f"{field}.{key}", "missing_field", "expected a string, came nothing")
    if not isinstance(values[key], str):
        detail = f"expected a string, came {type(values[key]).__name__}"
        raise FieldError(f"{field}.{key}", "wrong_type", detail)
    return exact(values[key], f"{field}.{key}")


def _called(messages: Sequence[Message], index: int) -> str | None:
    """The function that a tool's turn answers: by its id, without one by its place."""
    first = index
    while first and messages[first - 1].role == "tool":
        first -= 1
    if not first or messages[first - 1].tool_calls is None:
        return None
    made = json.loads(messages[first - 1].tool_calls or "[]")
    sought = messages[index].tool_call_id
    if sought is None:
        found = made[index - first : index - first + 1]
    else:
        found = [call for call in made if call.get("id") == sought]
    return str(found[0]["function"]["name"]) if found else None
