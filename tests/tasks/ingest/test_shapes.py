"""Chat, prompt and completion, Alpaca and ShareGPT rows, as their tools write them."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.artifacts import TaskConfig
from tasks.example import Example, Message
from tasks.ingest.config import SourceConfig
from tasks.ingest.mapping import Excluded, to_examples
from tasks.ingest.rows import BadRow, Row

TASK = TaskConfig()
Made = Example | BadRow | Excluded


def made(values: dict[str, Any], shape: str, **columns: str) -> Made:
    config = SourceConfig.model_validate({"path": "x.jsonl", "shape": shape, "columns": columns})
    (one,) = to_examples(Row("x.jsonl", 3, values, b"the row"), config, TASK)
    return one


def turns(values: dict[str, Any], shape: str, **columns: str) -> list[tuple[str, str]]:
    one = made(values, shape, **columns)
    assert isinstance(one, Example), one
    return [(m.role, m.content) for m in one.messages]


def refused(values: dict[str, Any], shape: str, **columns: str) -> tuple[str | None, str]:
    one = made(values, shape, **columns)
    assert isinstance(one, BadRow), one
    assert one.detail.startswith("expected ")
    return one.field, one.reason


def chat(*messages: dict[str, Any], **columns: Any) -> dict[str, Any]:
    return {"messages": list(messages), **columns}


USER = {"role": "user", "content": "Where is my card?"}
ANSWER = {"role": "assistant", "content": "On its way."}
CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "find_card", "arguments": '{"user": 7}'},
}


def test_a_line_of_a_fine_tuning_file() -> None:
    row = chat({"role": "system", "content": "Be brief."}, USER, {**ANSWER, "weight": 1})
    assert turns(row, "chat") == [
        ("system", "Be brief."),
        ("user", "Where is my card?"),
        ("assistant", "On its way."),
    ]


def test_text_parts_are_joined_with_nothing_between_them() -> None:
    parts = [{"type": "text", "text": "Where is "}, {"type": "text", "text": "my card?"}]
    row = chat({"role": "user", "content": parts}, ANSWER)
    assert turns(row, "chat") == turns(chat(USER, ANSWER), "chat")


def test_a_developer_turn_is_a_system_turn() -> None:
    row = chat({"role": "developer", "content": "Be brief."}, USER, ANSWER)
    assert turns(row, "chat")[0] == ("system", "Be brief.")


def test_null_keys_are_as_good_as_none() -> None:
    """Arrow gives every message every key that any message has."""
    empty = {
        "tool_calls": None,
        "name": None,
        "refusal": None,
        "function_call": None,
        "weight": None,
    }
    row = chat({**USER, **empty}, {**ANSWER, **empty, "tool_calls": []}, tools=None)
    assert turns(row, "chat") == turns(chat(USER, ANSWER), "chat")


@pytest.mark.parametrize(
    ("row", "field", "reason"),
    [
        (
            chat(USER, {"role": "assistant", "content": "", "function_call": {"name": "f"}}),
            "messages[1].function_call",
            "tool_calls_unsupported",
        ),
        (
            chat(USER, {**ANSWER, "tool_call_id": "call_1"}),
            "messages[1].tool_call_id",
            "tool_call_id_misplaced",
        ),
        (chat({**USER, "tool_calls": [CALL]}), "messages[0].tool_calls", "tool_calls_misplaced"),
        (
            chat(USER, ANSWER, tools=[{"type": "function"}]),
            "tools[0].function.name",
            "missing_field",
        ),
        (chat(USER, ANSWER, functions=[{"name": "f"}]), "functions", "tools_unsupported"),
        (chat(USER, {"role": "assistant", "content": None}), "messages[1].content", "wrong_type"),
        (chat(USER, {"role": "assistant"}), "messages[1].content", "missing_field"),
        (
            chat(USER, {"role": "assistant", "content": None, "refusal": "I cannot."}),
            "messages[1].refusal",
            "refusal_unsupported",
        ),
        (chat({**USER, "name": "Ann"}, ANSWER), "messages[0].name", "name_unsupported"),
        (
            chat({"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, ANSWER),
            "messages[0].content[0]",
            "unsupported_content",
        ),
        (
            chat({"role": "user", "content": ["text"]}, ANSWER),
            "messages[0].content[0]",
            "wrong_type",
        ),
        (
            chat({"role": "user", "content": [{"type": "text"}]}, ANSWER),
            "messages[0].content[0].text",
            "missing_field",
        ),
        (chat(USER, {**ANSWER, "content": "a\0b"}), "messages[1].content", "nul_character"),
        ({"message": []}, "messages", "missing_field"),
        ({"messages": "text"}, "messages", "wrong_type"),
        (chat(USER, {**ANSWER, "weight": 0.5}), "messages[1].weight", "wrong_type"),
    ],
    ids=range(16),
)
def test_what_a_message_cannot_hold_is_refused(
    row: dict[str, Any], field: str, reason: str
) -> None:
    assert refused(row, "chat") == (field, reason)


def test_a_weight_of_zero_on_every_answer_leaves_nothing_to_learn() -> None:
    for shape in ("chat", "columns"):
        one = made(chat(USER, {**ANSWER, "weight": 0}), shape)
        assert one == Excluded("x.jsonl", 3, "weight_zero")


def test_a_weight_of_zero_on_some_answers_cannot_be_kept() -> None:
    row = chat(USER, {**ANSWER, "weight": 0}, USER, {**ANSWER, "weight": 1})
    assert refused(row, "chat") == ("messages[1].weight", "weight_unsupported")


def test_prompt_and_completion() -> None:
    row = {"prompt": "The sky is", "completion": " blue."}
    assert turns(row, "prompt_completion") == [("user", "The sky is"), ("assistant", " blue.")]


def test_prompt_and_completion_as_lists_of_messages() -> None:
    row = {"prompt": [{"role": "system", "content": "Be brief."}, USER], "completion": [ANSWER]}
    assert [role for role, _ in turns(row, "prompt_completion")] == ["system", "user", "assistant"]
    mixed = {"prompt": [USER], "completion": "On its way."}
    assert turns(mixed, "prompt_completion") == turns(chat(USER, ANSWER), "chat")


def test_prompt_and_completion_under_other_names() -> None:
    row = {"input": {"text": "q"}, "output": {"n": 1}}
    assert turns(row, "prompt_completion", user="input.text", assistant="output") == [
        ("user", "q"),
        ("assistant", '{"n": 1}'),
    ]


@pytest.mark.parametrize(
    ("row", "field", "reason"),
    [
        ({"prompt": "x"}, "completion", "missing_field"),
        ({"prompt": "x", "completion": None}, "completion", "wrong_type"),
        ({"prompt": ["x"], "completion": "y"}, "prompt[0]", "wrong_type"),
        (
            {"prompt": "x", "completion": "y", "tools": [{}]},
            "tools[0].function.name",
            "missing_field",
        ),
    ],
)
def test_a_pair_that_does_not_fit(row: dict[str, Any], field: str, reason: str) -> None:
    assert refused(row, "prompt_completion") == (field, reason)


ALPACA = {"instruction": "Translate.", "input": "Hund", "output": "dog"}


def test_alpaca() -> None:
    assert turns(ALPACA, "alpaca") == [("user", "Translate.\n\nHund"), ("assistant", "dog")]


@pytest.mark.parametrize("nothing", [{"input": ""}, {"input": None}, {}])
def test_alpaca_without_input(nothing: dict[str, Any]) -> None:
    row = {"instruction": "Name a dog.", "output": "Rex", **nothing}
    assert turns(row, "alpaca")[0] == ("user", "Name a dog.")


def test_alpaca_with_system_and_history() -> None:
    row = {**ALPACA, "system": "Be brief.", "history": [["Translate.\n\nKatze", "cat"]]}
    assert turns(row, "alpaca") == [
        ("system", "Be brief."),
        ("user", "Translate.\n\nKatze"),
        ("assistant", "cat"),
        ("user", "Translate.\n\nHund"),
        ("assistant", "dog"),
    ]


def test_alpaca_with_its_original_preamble() -> None:
    template = "Below is an instruction.\n\n{{ instruction }}\n\n### Input:\n{{ input }}"
    question = turns(ALPACA, "alpaca", user=template)[0][1]
    assert question == "Below is an instruction.\n\nTranslate.\n\n### Input:\nHund"


@pytest.mark.parametrize(
    ("change", "field", "reason"),
    [
        ({"instruction": None}, "instruction", "wrong_type"),
        ({"history": "cat"}, "history", "wrong_type"),
        ({"history": [["only"]]}, "history[0]", "wrong_type"),
        ({"history": [["q", None]]}, "history[0]", "wrong_type"),
        ({"input": "a\0"}, "input", "nul_character"),
    ],
)
def test_alpaca_that_does_not_fit(change: dict[str, Any], field: str, reason: str) -> None:
    assert refused({**ALPACA, **change}, "alpaca") == (field, reason)


def test_a_mapped_input_must_be_there() -> None:
    assert refused(ALPACA, "alpaca", input="context") == ("context", "missing_field")


def share(*said: tuple[str, str], **columns: Any) -> dict[str, Any]:
    return {"conversations": [{"from": who, "value": what} for who, what in said], **columns}


def test_sharegpt() -> None:
    row = share(("human", "q"), ("gpt", "a"), ("User", "r"), ("assistant", "b"), system="Be brief.")
    assert turns(row, "sharegpt") == [
        ("system", "Be brief."),
        ("user", "q"),
        ("assistant", "a"),
        ("user", "r"),
        ("assistant", "b"),
    ]


def test_a_leading_turn_of_the_assistant_is_kept_for_clean_to_judge() -> None:
    row = share(("gpt", "Hello."), ("human", "q"), ("gpt", "a"))
    assert [role for role, _ in turns(row, "sharegpt")] == ["assistant", "user", "assistant"]


def test_an_observation_is_a_tool_turn() -> None:
    row = share(("human", "q"), ("observation", "7"), ("gpt", "a"))
    assert turns(row, "sharegpt")[1] == ("tool", "7")


def test_the_same_system_turn_twice_is_one() -> None:
    row = share(("system", "Be brief."), ("human", "q"), ("gpt", "a"), system="Be brief.")
    assert [role for role, _ in turns(row, "sharegpt")] == ["system", "user", "assistant"]


@pytest.mark.parametrize(
    ("row", "field", "reason"),
    [
        (share(("function_call", "{}")), "conversations[0].value", "tool_calls_unsupported"),
        (share(("function", "{}")), "conversations[0].from", "tool_calls_unsupported"),
        (share(("narrator", "x")), "conversations[0].from", "unknown_role"),
        (share(("human", "q"), tools='[{"name": ""}]'), "tools[0].function.name", "missing_field"),
        (
            share(("system", "Be long."), ("human", "q"), system="Be brief."),
            "conversations",
            "conflicting_system",
        ),
        ({"conversations": [{"from": "gpt"}]}, "conversations[0].value", "missing_field"),
        ({"conversations": ["x"]}, "conversations[0]", "wrong_type"),
        ({"conversations": None}, "conversations", "wrong_type"),
    ],
    ids=range(8),
)
def test_sharegpt_that_does_not_fit(row: dict[str, Any], field: str, reason: str) -> None:
    assert refused(row, "sharegpt") == (field, reason)


def test_no_tools_is_no_tools() -> None:
    for none in (None, "", "[]", []):
        assert turns(share(("human", "q"), ("gpt", "a"), tools=none), "sharegpt")


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
MESSAGES = st.lists(
    st.tuples(st.sampled_from(["system", "user", "assistant", "tool"]), TEXT), min_size=1
)


@given(MESSAGES)
def test_every_text_comes_back_as_it_was(said: list[tuple[str, str]]) -> None:
    row = json.loads(json.dumps(chat(*({"role": r, "content": c} for r, c in said))))
    assert turns(row, "chat") == said
    parted = [
        {"role": r, "content": [{"type": "text", "text": part} for part in (c[:3], c[3:])]}
        for r, c in said
    ]
    assert turns(chat(*parted), "chat") == said


@given(TEXT, TEXT, TEXT)
def test_every_pair_comes_back_as_it_was(question: str, given: str, answer: str) -> None:
    row = {"prompt": question, "completion": answer}
    assert turns(row, "prompt_completion") == [("user", question), ("assistant", answer)]
    row = {"instruction": question, "input": given, "output": answer}
    joined = f"{question}\n\n{given}" if given else question
    assert turns(row, "alpaca") == [("user", joined), ("assistant", answer)]


def test_group_label_and_time_of_any_shape() -> None:
    row = {**ALPACA, "who": {"id": 7}, "when": "2026-01-02T03:04:05Z", "kind": "nouns"}
    one = made(row, "alpaca", group="who.id", created_at="when", label="kind")
    assert isinstance(one, Example)
    assert (one.group, one.label) == ("7", "nouns")
    assert one.created_at is not None
    assert one.created_at.isoformat() == "2026-01-02T03:04:05+00:00"
    assert one.messages[-1] == Message("assistant", "dog")
