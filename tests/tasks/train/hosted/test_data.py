"""The files for a fine-tuning API: their form, and what is refused before anything is sent."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tasks.errors import DataError
from tasks.example import Example, Message
from tasks.train.hosted import data as hosted_data
from tasks.train.hosted.data import upload_file
from tests.examples import make_example

CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "weather", "arguments": {"city": "Köln"}},
}
TOOLS = '[{"function":{"name":"weather","parameters":{}},"type":"function"}]'


def rows(count: int = 10) -> list[Example]:
    return [make_example(f"question {i}", f"answer {i}") for i in range(count)]


def example(*messages: Message, tools: str | None = None) -> Example:
    return replace(make_example("x"), messages=messages, tools=tools)


def words(text: str) -> int:
    return len(text.split())


def test_a_row_a_line_in_order() -> None:
    file = upload_file("train", rows(), words)
    lines = file.body.decode().splitlines()
    assert json.loads(lines[3]) == {
        "messages": [
            {"role": "user", "content": "question 3"},
            {"role": "assistant", "content": "answer 3"},
        ]
    }
    assert (len(lines), file.num_rows) == (10, 10)
    assert file.body.endswith(b"}\n")


def test_text_stays_as_it_is() -> None:
    told = 'Zürich\u2028\n"quoted" \U0001f600'
    file = upload_file("validation", [make_example(told)], words)
    line, rest = file.body.decode().split("\n", 1)
    assert rest == ""
    assert json.loads(line)["messages"][0]["content"] == told
    assert "Zürich" in line


def test_tools_and_calls_are_in_the_form_of_the_api() -> None:
    """Arguments are JSON text there, and a turn that only calls has no content."""
    row = example(
        Message("user", "How is the weather?"),
        Message("assistant", "", tool_calls=json.dumps([CALL])),
        Message("tool", "sunny", tool_call_id="call_1"),
        Message("assistant", "Sunny."),
        tools=TOOLS,
    )
    read = json.loads(upload_file("validation", [row], words).body)
    assert read["tools"] == json.loads(TOOLS)
    assert read["messages"][1] == {
        "role": "assistant",
        "tool_calls": [
            {**CALL, "function": {"name": "weather", "arguments": '{"city":"Köln"}'}},
        ],
    }
    assert read["messages"][2] == {"role": "tool", "content": "sunny", "tool_call_id": "call_1"}


def test_the_name_tells_the_content() -> None:
    one, same = upload_file("train", rows(), words), upload_file("train", rows(), words)
    assert one == same
    other = upload_file("train", rows(11), words)
    assert other.name != one.name
    assert one.name.startswith("retune-train-")
    assert one.name.endswith(".jsonl")


def test_tokens_count_texts_calls_and_tools() -> None:
    plain = upload_file("validation", [make_example("two words", "one")], words)
    assert plain.num_tokens == 3 + 4 * 3
    calling = example(
        Message("user", "go"),
        Message("assistant", "", tool_calls=json.dumps([CALL])),
        tools="a b c",
    )
    calls = words(json.dumps([CALL]))
    calling = replace(calling, tools='["a", "b", "c"]')
    assert upload_file("validation", [calling], words).num_tokens == 1 + calls + 3 + 4 * 3


@pytest.mark.parametrize(
    ("messages", "told"),
    [
        ((), "came no turn at all"),
        ((Message("user", "hi"),), "expected an answer of the assistant last, came user"),
        ((Message("bard", "hi"), Message("assistant", "x")), r"messages\[0\].role: .* 'bard'"),
        ((Message("user", "hi"), Message("assistant", "")), "teaches silence"),
        (
            (Message("user", "hi"), Message("tool", "x"), Message("assistant", "x")),
            r"messages\[1\]: a tool's turn without tool_call_id",
        ),
        (
            (Message("user", "hi"), Message("assistant", "", '[{"function":{}}]')),
            r"messages\[1\].tool_calls: a call without an id",
        ),
    ],
)
def test_a_row_that_cannot_be_trained_on_is_named(messages: tuple[Message, ...], told: str) -> None:
    broken = example(*messages)
    with pytest.raises(DataError, match=f"train row 3 \\(example {broken.id[:12]}\\).*{told}"):
        upload_file("train", [*rows(3), broken, *rows()], words)


def test_too_few_rows() -> None:
    with pytest.raises(DataError, match=r"has 9 rows.*at least 10"):
        upload_file("train", rows(9), words)
    assert upload_file("validation", rows(1), words).num_rows == 1


def test_a_row_that_would_be_cut() -> None:
    limit = hosted_data.MAX_ROW_TOKENS - 4 * 3
    assert upload_file("validation", rows(1), lambda _: limit // 2).num_rows == 1
    with pytest.raises(DataError, match=r"validation row 0 .*cuts rows off behind 65,536"):
        upload_file("validation", rows(1), lambda _: limit // 2 + 1)


def test_a_file_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(upload_file("train", rows(), words).body)
    monkeypatch.setattr(hosted_data, "MAX_BYTES", size)
    assert upload_file("train", rows(), words).num_rows == 10
    monkeypatch.setattr(hosted_data, "MAX_BYTES", size - 1)
    with pytest.raises(DataError, match=f"{size:,} bytes"):
        upload_file("train", rows(), words)
