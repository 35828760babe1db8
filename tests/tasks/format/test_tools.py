"""Calls of tools, by templates that have them and by those that do not."""

from __future__ import annotations

import json

import pytest

from tasks.errors import TemplateError
from tasks.example import Example, Message
from tasks.format.complete import left_out
from tasks.format.render import IGNORED, Refusal, render
from tasks.format.template import Conversation, Template
from tests.tasks.format.conftest import family

TOOLS = json.dumps(
    [
        {
            "type": "function",
            "function": {
                "name": "find_order",
                "description": "An order by its number.",
                "parameters": {"type": "object", "properties": {"number": {"type": "string"}}},
            },
        }
    ]
)
CALL = json.dumps(
    [
        {
            "id": "call12345",
            "type": "function",
            "function": {"name": "find_order", "arguments": {"number": "A-7"}},
        }
    ]
)
CALLING = Example(
    "id",
    (
        Message("user", "Where is A-7?"),
        Message("assistant", "", CALL),
        Message("tool", '{"place": "Ulm"}', None, "call12345"),
        Message("assistant", "In Ulm."),
    ),
    "human",
    "g",
    tools=TOOLS,
)


def texts(example: Example, template: Template) -> list[str]:
    """What is trained, a stretch each."""
    [found] = render([Conversation.of_example(example)], template)
    assert not isinstance(found, Refusal), found
    stretches: list[list[int]] = []
    for row in found:
        before = IGNORED
        for label in row.labels:
            if label != IGNORED:
                if before == IGNORED:
                    stretches.append([])
                stretches[-1].append(label)
            before = label
    return [template.tokenizer.decode(ids) for ids in stretches]


@pytest.mark.parametrize("name", ["qwen2.5", "qwen3"])
def test_a_call_and_the_answer_after_it_are_trained(name: str) -> None:
    call, answer = texts(CALLING, family(name))
    assert '"name": "find_order"' in call
    assert '"A-7"' in call
    assert "In Ulm." in answer
    assert "Ulm" not in call, "the tool's own answer is not the model's to learn"


def test_a_call_that_is_the_answer() -> None:
    example = Example("id", CALLING.messages[:2], "human", "g", tools=TOOLS)
    [call] = texts(example, family("mistral"))
    assert call.startswith("[TOOL_CALLS] [")
    assert call.endswith("]</s>")


def test_a_template_that_cannot_call_says_so() -> None:
    [refused] = render([Conversation.of_example(CALLING)], family("chatml"))
    assert isinstance(refused, Refusal)
    assert refused.reason == "dropped_turn"
    assert "a call of turn 2 (assistant), 'find_order'" in refused.detail


def test_ids_that_a_template_wants_otherwise_are_named() -> None:
    wrong = CALL.replace("call12345", "1")
    example = Example(
        "id",
        (Message("user", "Where?"), Message("assistant", "", wrong)),
        "human",
        "g",
        tools=TOOLS,
    )
    with pytest.raises(TemplateError, match=r"user, assistant with tool calls.*length 9"):
        render([Conversation.of_example(example)], family("mistral"))


def test_definitions_that_are_left_out_are_missed() -> None:
    conversation = Conversation([{"role": "user", "content": "Where?"}], TOOLS)
    assert left_out(conversation, "Where?") == "the definition of the tool 'find_order'"
    assert left_out(conversation, f"{TOOLS} Where?") is None


@pytest.mark.parametrize(
    ("turns", "text", "missing"),
    [
        ([("user", " Yes \n")], "<u>Yes</u>", None),
        ([("user", 'say "a"\n')], 'say \\"a\\"', None),
        ([("user", "größe")], "gr\\u00f6\\u00dfe", None),
        ([("user", "Yes"), ("assistant", "Yes")], "<u>Yes</u><a></a>", "turn 2 (assistant)"),
        ([("user", "")], "", None),
        ([("user", "x"), ("assistant", "<think>a</think>b"), ("user", "c")], "x b c", None),
        ([("user", "x"), ("assistant", "<think>a</think>b")], "x b", "turn 2 (assistant)"),
    ],
)
def test_what_a_rendering_lacks(
    turns: list[tuple[str, str]], text: str, missing: str | None
) -> None:
    conversation = Conversation([{"role": role, "content": said} for role, said in turns])
    found = left_out(conversation, text)
    assert found is None if missing is None else (found is not None and missing in found)
