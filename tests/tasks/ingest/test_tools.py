"""Tool definitions and calls, in each form that rows have them in, arrive whole or are refused."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.artifacts import TaskConfig
from tasks.example import Example, Message, from_table, to_table
from tasks.ingest.config import GoldenConfig, SourceConfig
from tasks.ingest.jsonl import parse_json
from tasks.ingest.mapping import Excluded, to_examples
from tasks.ingest.rows import BadRow, Row
from tasks.ingest.snapshot import read_golden, read_source, rows_digest
from tests.tasks.ingest.test_gateway_log import YES, logged

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a town, in °C",
        "parameters": {"type": "object", "properties": {"town": {"type": "string"}}},
        "strict": True,
    },
}
USER = {"role": "user", "content": "How warm is it in Ulm?"}
CALLS = {"role": "assistant", "content": None}
RESULT = {"role": "tool", "tool_call_id": "call_1", "content": '{"celsius": 21.50}'}
ANSWER = {"role": "assistant", "content": "21.5 °C."}


def call(arguments: object = '{"town": "Ulm"}', **more: Any) -> dict[str, Any]:
    function = {"name": "get_weather", "arguments": arguments}
    return {"id": "call_1", "type": "function", "function": function, **more}


def calling(*calls: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {**CALLS, "tool_calls": list(calls or [call()]), **more}


def made(values: object, shape: str = "chat", **columns: str) -> Example | BadRow | Excluded:
    """Of a row as it is read from a line of JSON."""
    config = SourceConfig.model_validate({"path": "x.jsonl", "shape": shape, "columns": columns})
    row = parse_json("x.jsonl", 3, json.dumps(values).encode())
    assert isinstance(row, Row), row
    (one,) = to_examples(row, config, TaskConfig())
    return one


def example(values: object, shape: str = "chat", **columns: str) -> Example:
    one = made(values, shape, **columns)
    assert isinstance(one, Example), one
    return one


def refused(values: object, shape: str = "chat") -> tuple[str | None, str]:
    one = made(values, shape)
    assert isinstance(one, BadRow), one
    assert one.detail.startswith("expected ")
    return one.field, one.reason


def chat(*messages: dict[str, Any], **columns: Any) -> dict[str, Any]:
    return {"messages": list(messages), **columns}


ROW = chat(USER, calling(), RESULT, ANSWER, tools=[WEATHER], parallel_tool_calls=False)
PARSED = call({"town": "Ulm"})


def test_a_line_of_a_fine_tuning_file_with_tools() -> None:
    one = example(ROW)
    assert [m.as_chat() for m in one.messages] == [
        USER,
        {"role": "assistant", "content": "", "tool_calls": [PARSED]},
        RESULT,
        ANSWER,
    ]
    assert one.tools is not None
    assert json.loads(one.tools) == [WEATHER]
    assert "°C" in one.tools


def test_calls_beside_a_text_keep_it() -> None:
    message = example(chat(USER, calling(content="Let me look."))).messages[-1]
    assert (message.content, json.loads(message.tool_calls or "")) == ("Let me look.", [PARSED])


@pytest.mark.parametrize("arguments", [{"town": "Ulm"}, '{"town":"Ulm"}', ' { "town" : "Ulm" } '])
def test_arguments_have_one_spelling(arguments: object) -> None:
    assert example(chat(USER, calling(call(arguments)))).id == example(chat(USER, calling())).id


@pytest.mark.parametrize("arguments", ["", " ", None, {}, "{}"])
def test_no_arguments_are_an_empty_object(arguments: object) -> None:
    message = example(chat(USER, calling(call(arguments)))).messages[-1]
    assert message.as_chat()["tool_calls"][0]["function"]["arguments"] == {}


def test_members_keep_their_order_and_numbers_their_digits() -> None:
    text = '{"z": 1.0, "a": 12345678901234567890, "m": 0.10000000000000000000001, "e": "\\u00e9"}'
    calls = example(chat(USER, calling(call(text)))).messages[-1].tool_calls or ""
    places = [calls.index(part) for part in ("1.0", "12345678901234567890", "0.1000", '"é"')]
    assert places == sorted(places)
    assert "0.10000000000000000000001" in calls


def test_the_same_words_with_another_call_or_tool_are_another_example() -> None:
    other_tool = {"type": "function", "function": {"name": "get_weather"}}
    rows = [
        ROW,
        chat(USER, calling(call('{"town": "Bonn"}')), RESULT, ANSWER, tools=[WEATHER]),
        chat(USER, calling(), RESULT, ANSWER, tools=[other_tool]),
        chat(USER, calling(), RESULT, ANSWER),
    ]
    assert len({example(row).id for row in rows}) == len(rows)
    assert example(chat(USER, ANSWER)).id == example(chat(USER, ANSWER, tools=[])).id


def test_trl_rows_have_no_ids_and_the_tool_in_the_answer() -> None:
    """TRL's "Tool calling" rows; the name says again what the call says."""
    bare = {"type": "function", "function": {"name": "get_weather", "arguments": {"town": "Ulm"}}}
    result = {"role": "tool", "name": "get_weather", "content": "21.5"}
    one = example(chat(USER, calling(bare), result, ANSWER))
    assert one.messages[1].as_chat()["tool_calls"] == [bare]
    assert one.messages[2] == Message("tool", "21.5")


@pytest.mark.parametrize("asked", [calling(), USER])
def test_another_name_than_that_of_the_call_is_refused(asked: dict[str, Any]) -> None:
    result = {**RESULT, "name": "get_time"}
    assert refused(chat(USER, asked, result, ANSWER)) == ("messages[2].name", "name_unsupported")


def test_old_cookbooks_name_the_function_beside_the_id() -> None:
    two = [call(), {**call(), "id": "call_2"}]
    two[1]["function"] = {"name": "get_time", "arguments": "{}"}
    results = [
        {"role": "tool", "tool_call_id": "call_2", "name": "get_time", "content": "noon"},
        {**RESULT, "name": "get_weather"},
    ]
    one = example(chat(USER, calling(*two), *results, ANSWER))
    assert [m.tool_call_id for m in one.messages] == [None, None, "call_2", "call_1", None]


@pytest.mark.parametrize(
    ("given", "place", "reason"),
    [
        (call('{"town": '), "function.arguments", "arguments_not_json"),
        (call("Ulm"), "function.arguments", "arguments_not_json"),
        (call('{"n": NaN}'), "function.arguments", "arguments_not_json"),
        (call('["Ulm"]'), "function.arguments", "arguments_not_an_object"),
        (call(["Ulm"]), "function.arguments", "arguments_not_an_object"),
        (call(7), "function.arguments", "arguments_not_an_object"),
        (call('{"a": 1, "a": 2}'), "function.arguments", "duplicate_key"),
        (call('{"a":' * 200 + "1" + "}" * 200), "function.arguments", "too_deep"),
        (call("[" * 100_000), "function.arguments", "too_deep"),
        (call('{"n": 1e999999}'), "function.arguments", "number_out_of_range"),
        (call(type="custom"), "type", "tool_type_unsupported"),
        (call(function=None), "function", "wrong_type"),
        (call(function={"arguments": "{}"}), "function.name", "missing_field"),
        (call(function={"name": 7}), "function.name", "wrong_type"),
    ],
    ids=range(14),
)
def test_a_call_that_cannot_be_kept(given: dict[str, Any], place: str, reason: str) -> None:
    assert refused(chat(USER, calling(given))) == (f"messages[1].tool_calls[0].{place}", reason)


@pytest.mark.parametrize("character", ["\0", "\ud800"])
@pytest.mark.parametrize("where", ["key", "value"])
def test_what_cannot_be_stored_is_found_in_arguments_too(character: str, where: str) -> None:
    arguments = {character: 1} if where == "key" else {"a": [{"b": character}]}
    for form in (arguments, json.dumps(arguments)):
        field, reason = refused(chat(USER, calling(call(form))))
        assert (field or "").startswith("messages[1].tool_calls")
        assert reason == ("nul_character" if character == "\0" else "lone_surrogate")


def test_a_backslash_before_u0000_is_no_nul() -> None:
    message = example(chat(USER, calling(call({"path": "C:\\u0000"})))).messages[-1]
    assert message.as_chat()["tool_calls"][0]["function"]["arguments"] == {"path": "C:\\u0000"}


@pytest.mark.parametrize(
    ("tools", "field", "reason"),
    [
        ("not JSON", "tools", "invalid_json"),
        ('{"name": "f"}', "tools", "wrong_type"),
        (["f"], "tools[0]", "wrong_type"),
        ([WEATHER, WEATHER], "tools", "duplicate_tool"),
        ([{"type": "web_search"}], "tools[0].type", "tool_type_unsupported"),
        (
            [{"name": "f", "parameters": "x"}],
            "tools[0].function.parameters",
            "wrong_type",
        ),
        ('[{"name": "f", "name": "g"}]', "tools", "duplicate_key"),
    ],
    ids=range(7),
)
def test_definitions_that_cannot_be_kept(tools: object, field: str, reason: str) -> None:
    assert refused(chat(USER, ANSWER, tools=tools)) == (field, reason)


@pytest.mark.parametrize(
    "tools",
    [[WEATHER], json.dumps([WEATHER]), [WEATHER["function"]], [{"function": WEATHER["function"]}]],
)
@pytest.mark.parametrize("shape", ["chat", "columns", "sharegpt"])
def test_definitions_have_one_form(tools: object, shape: str) -> None:
    said = {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}
    row = {**chat(USER, ANSWER), **said, "tools": tools}
    assert example(row, shape).tools == example(ROW).tools


def test_definitions_in_a_column_of_another_name() -> None:
    row = {**chat(USER, ANSWER), "abilities": [WEATHER]}
    assert example(row, tools="abilities").tools == example(ROW).tools
    pair = {"q": "a", "a": "b", "abilities": [WEATHER], "tools": "hammer and saw"}
    assert example(pair, "columns", user="q", assistant="a").tools is None
    mapped = example(pair, "columns", user="q", assistant="a", tools="abilities")
    assert mapped.tools == example(ROW).tools


def test_prompt_and_completion_with_tools() -> None:
    row = {"prompt": [USER], "completion": [calling(), RESULT, ANSWER], "tools": [WEATHER]}
    assert example(row, "prompt_completion").messages == example(ROW).messages


def share(*turns: tuple[str, str]) -> dict[str, Any]:
    return {"conversations": [{"from": speaker, "value": said} for speaker, said in turns]}


def test_sharegpt_calls_are_a_turn_of_json() -> None:
    """The form of LLaMA-Factory's ``glaive_toolcall`` rows."""
    called = '{"name": "get_weather", "arguments": {"town": "Ulm"}}'
    row = share(("human", "q"), ("function_call", called), ("observation", "21"), ("gpt", "a"))
    turns = [m.as_chat() for m in example(row, "sharegpt").messages]
    bare = {"type": "function", "function": json.loads(called)}
    assert turns[1:3] == [
        {"role": "assistant", "content": "", "tool_calls": [bare]},
        {"role": "tool", "content": "21"},
    ]
    several = share(("human", "q"), ("function_call", f"[{called}, {called}]"))
    assert len(example(several, "sharegpt").messages[1].as_chat()["tool_calls"]) == 2


@pytest.mark.parametrize("said", ["<functioncall> {}", "[]", "[1]", "{}", "7", '"f"'])
def test_a_call_in_prose_stays_refused(said: str) -> None:
    row = share(("human", "q"), ("function_call", said))
    assert refused(row, "sharegpt") == ("conversations[1].value", "tool_calls_unsupported")


def test_the_gateways_log() -> None:
    """A response that calls a tool, and a request whose earlier turns did."""
    row = logged(YES)
    row["request"] = {"messages": [USER], "tools": [WEATHER], "tool_choice": "auto"}
    row["response"]["choices"] = [{"message": calling(refusal=None), "finish_reason": "tool_calls"}]
    one = example(row, "gateway_log")
    assert one.messages == example(ROW).messages[:2]
    assert one.tools == example(ROW).tools
    row = logged({"correction": "21.5 °C."})
    row["request"] = {"messages": [USER, calling(), RESULT], "tools": [WEATHER]}
    assert example(row, "gateway_log").messages == example(ROW).messages


def test_an_annotators_prompt_with_calls() -> None:
    data = {"messages": [USER, calling(), RESULT], "tools": [WEATHER]}
    result = [{"from_name": "a", "type": "textarea", "value": {"text": ["21.5 °C."]}}]
    row = {"id": 1, "data": data, "annotations": [{"id": 2, "result": result}]}
    one = example(row, "label_studio", messages="messages", assistant="a")
    assert one.messages == example(ROW).messages
    assert one.tools == example(ROW).tools


NAME = st.text("abcdefg_", min_size=1, max_size=6)
WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
VALUE = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | WORDS
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
ARGUMENTS = st.dictionaries(WORDS, VALUE, max_size=4)
CALL = st.builds(
    lambda name, arguments, identity: {
        "id": identity, "type": "function", "function": {"name": name, "arguments": arguments}
    },
    NAME, ARGUMENTS, NAME,
)  # fmt: skip


@settings(deadline=None)
@given(
    st.lists(CALL, min_size=1, max_size=3),
    st.lists(ARGUMENTS, max_size=2),
    WORDS,
    st.booleans(),
)
def test_nothing_of_a_call_or_a_definition_is_lost(
    calls: list[dict[str, Any]], schemas: list[dict[str, Any]], said: str, is_text: bool
) -> None:
    """Arguments as an object or as text, through Arrow and back."""
    tools = [
        {"type": "function", "function": {"name": f"f{i}", "parameters": schema}}
        for i, schema in enumerate(schemas)
    ]
    sent = json.loads(json.dumps(calls))
    for one in sent if is_text else []:
        one["function"]["arguments"] = json.dumps(one["function"]["arguments"])
    result = {"role": "tool", "tool_call_id": calls[0]["id"], "content": said}
    turn = {"role": "assistant", "content": said, "tool_calls": sent}
    (back,) = from_table(to_table([example(chat(USER, turn, result, ANSWER, tools=tools))]))
    assert [m.as_chat() for m in back.messages] == [
        USER, {**turn, "tool_calls": calls}, result, ANSWER
    ]  # fmt: skip
    assert json.loads(back.tools or "[]") == tools


def test_a_file_to_parquet_and_back(tmp_path: Path) -> None:
    rows = [ROW, chat(USER, ANSWER), chat(USER, calling(call('{"a": "x"' * 2)))]
    huge = chat(USER, calling(call(json.dumps({"body": "ä" * 2_000_000}))))
    lines = [json.dumps(row) + "\n" for row in (*rows, huge)]
    (tmp_path / "rows.jsonl").write_text("".join(lines), encoding="utf-8")
    source = SourceConfig(path=str(tmp_path / "rows.jsonl"), shape="chat")
    good, bad = read_source(source, TaskConfig())
    assert [(b.line, b.reason) for b in bad] == [(3, "arguments_not_json")]
    pq.write_table(to_table(good), tmp_path / "examples.parquet")
    assert from_table(pq.read_table(tmp_path / "examples.parquet")) == good
    assert [e.messages for e in good[:2]] == [example(r).messages for r in rows[:2]]
    assert len(good[2].messages[1].tool_calls or "") > 2_000_000


def test_a_golden_row_may_answer_with_a_call(tmp_path: Path) -> None:
    def golden(*rows: dict[str, Any]) -> list[Example]:
        lines = [json.dumps(row) + "\n" for row in rows]
        (tmp_path / "golden.jsonl").write_text("".join(lines), encoding="utf-8")
        source = SourceConfig(path=str(tmp_path / "golden.jsonl"), shape="chat")
        return read_golden(GoldenConfig(source=source), TaskConfig())

    first = golden(chat(USER, calling(), tools=[WEATHER]))
    other = golden(chat(USER, calling(call('{"town": "Bonn"}')), tools=[WEATHER]))
    without = golden(chat(USER, calling()))
    digests = {rows_digest(rows) for rows in (first, other, without)}
    assert len(digests) == 3, "a locked set whose calls or tools changed is another set"
