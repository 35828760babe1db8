"""What a rendered conversation lacks of what was said: a template may drop a turn silently."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

from tasks.format.template import Conversation

# Reasoning models' templates show earlier answers without their thinking, as they are meant to.
_END_OF_THINKING = "</think>"


def left_out(conversation: Conversation, text: str) -> str | None:
    """Which turn, or part of one, ``text`` does not hold; None when all is there.

    Templates may trim what they show and write it as JSON. Of turns that say the same, as many must
    be there as were said.
    """
    needed: Counter[str] = Counter()
    for number, turn in enumerate(conversation.turns):
        is_history = turn["role"] == "assistant" and number + 1 < len(conversation.turns)
        for what, wanted in _parts(turn, is_history):
            needed[wanted] += 1
            if max(text.count(form) for form in _forms(wanted)) < needed[wanted]:
                return f"{what} of turn {number + 1} ({turn['role']}), {_short(wanted)}"
    for name in _defined(conversation.tools):
        if name not in text:
            return f"the definition of the tool {name!r}"
    return None


def _parts(turn: dict[str, Any], is_history: bool) -> Iterator[tuple[str, str]]:
    said = str(turn["content"])
    if is_history and _END_OF_THINKING in said:
        said = said.rpartition(_END_OF_THINKING)[2]
    if said.strip():
        yield "the text", said.strip()
    for call in turn.get("tool_calls", ()):
        yield "a call", str(call["function"]["name"])


def _forms(wanted: str) -> set[str]:
    as_json = (json.dumps(wanted, ensure_ascii=ascii)[1:-1] for ascii in (True, False))
    return {wanted, *as_json}


def _defined(tools: str | None) -> list[str]:
    return [] if tools is None else [tool["function"]["name"] for tool in json.loads(tools)]


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:40]}...")
