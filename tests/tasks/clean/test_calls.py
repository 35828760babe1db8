"""Rows with tools: their form, what of them is compared, and that nothing of a call is lost."""

import json
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.artifacts import TaskConfig
from tasks.clean.account import Account
from tasks.clean.config import CleanConfig, UnicodeConfig
from tasks.clean.form import form_findings
from tasks.clean.pipeline import clean_rows
from tasks.clean.quality.checks import quality_findings
from tasks.clean.rows import Rows
from tasks.clean.unicode import repair
from tasks.example import SCHEMA, Example, Message, content_id, from_table, to_table
from tests.tasks.ingest.test_tools import ARGUMENTS, WEATHER, WORDS, chat
from tests.tasks.ingest.test_tools import example as ingested

Q, A = Message("user", "question"), Message("assistant", "answer")
TOOLS = json.dumps([WEATHER])


def calls(*ids: str | None, name: str = "get_weather", **arguments: object) -> Message:
    made: list[dict[str, Any]] = [
        {"type": "function", "function": {"name": name, "arguments": arguments}} for _ in ids
    ]
    named = [c if i is None else {"id": i, **c} for i, c in zip(ids, made, strict=True)]
    return Message("assistant", "", json.dumps(named, ensure_ascii=False))


def result(identity: str | None, content: str = "21.5") -> Message:
    return Message("tool", content, None, identity)


def row(*messages: Message, tools: str | None = None, group: str | None = None) -> Example:
    identity = content_id(messages, tools)
    meta = {"file": "rows.jsonl", "line": "1"}
    return Example(identity, messages, "human", group or identity, meta=meta, tools=tools)


def rows_of(*examples: Example) -> Rows:
    return Rows(to_table(examples))


TWO = calls("a", "b")
CASES: list[tuple[tuple[Message, ...], str | None]] = [
    ((Q, calls("a")), None),
    ((Q, calls("a"), result("a"), A), None),
    ((Q, calls("a"), result("a"), calls("a"), result("a"), A, Q, A), None),
    ((Q, TWO, result("b"), result("a"), A), None),
    ((Q, calls("a"), result("a"), calls("b")), None),
    ((Q, A, Q, calls("a"), result("a"), A), None),
    ((Message("system", "s"), Q, calls("a"), result("a"), A), None),
    ((Q, calls(None), result(None), A), None),
    ((Q, calls(None, None), result(None), result(None), A), None),
    ((Q, calls(None, None), result(None), A), None),
    ((Q, result("a"), A), "tool_turn_without_call"),
    ((result("a"), Q, A), "tool_turn_without_call"),
    ((Q, A, result("a"), A), "tool_turn_without_call"),
    ((Q, calls("a"), A), "tool_call_unanswered"),
    ((Q, calls("a"), Q, A), "tool_call_unanswered"),
    ((Q, TWO, result("a"), A), "tool_call_unanswered"),
    ((Q, TWO, result("a"), calls("c")), "tool_call_unanswered"),
    ((Q, calls("a"), result("b"), A), "unknown_tool_call_id"),
    ((Q, calls("a"), result(None), A), "unknown_tool_call_id"),
    ((Q, calls(None), result("a"), A), "unknown_tool_call_id"),
    ((Q, TWO, result("a"), result("a"), A), "unknown_tool_call_id"),
    ((Q, calls(None), result(None), result(None), A), "unknown_tool_call_id"),
    ((Q, calls("a"), result("a"), calls("b"), result("a"), A), "unknown_tool_call_id"),
    ((Q, calls("a", "a"), result("a"), result("a"), A), "duplicate_tool_call_id"),
    ((Q, calls("a"), result("a")), "turns_out_of_order"),
    ((Q, calls("a"), result("a"), Q, A), "turns_out_of_order"),
    ((calls("a"), result("a"), A), "turns_out_of_order"),
    ((Q, Message("assistant", ""), Q, A), "empty_assistant_turn"),
    ((Q, calls("a"), result("a", " "), A), "empty_tool_turn"),
]


@pytest.mark.parametrize(("messages", "reason"), CASES, ids=range(len(CASES)))
def test_the_form_of_calls_and_answers(messages: tuple[Message, ...], reason: str | None) -> None:
    found = form_findings(rows_of(row(*messages)), TaskConfig(), 8192, None)
    assert [f.reason for f in found] == ([reason] if reason else [])
    assert all(f.detail.startswith("expected ") for f in found)


def test_many_rows_at_once_are_each_judged_alone() -> None:
    found = form_findings(rows_of(*(row(*m) for m, _ in CASES)), TaskConfig(), 8192, None)
    reasons = {f.index: f.reason for f in found}
    assert [reasons.get(i) for i in range(len(CASES))] == [reason for _, reason in CASES]


def test_what_is_called_is_defined() -> None:
    undefined = row(Q, calls("a", name="get_time"), tools=TOOLS)
    rows = rows_of(row(Q, calls("a"), tools=TOOLS), undefined, row(Q, calls("a", name="f")))
    (found,) = form_findings(rows, TaskConfig(), 8192, None)
    assert (found.index, found.reason) == (1, "tool_not_defined")
    assert found.detail == "expected a call of one of get_weather, came 'get_time'"


def test_of_a_structured_task_a_call_is_not_held_against_the_schema() -> None:
    schema = {"type": "object", "required": ["n"]}
    task = TaskConfig(kind="structured", answer_schema=schema)
    rows = rows_of(row(Q, calls("a")), row(Q, A), row(Q, Message("assistant", '{"n": 1}')))
    assert [(f.index, f.reason) for f in form_findings(rows, task, 8192, None)] == [
        (1, "answer_not_json")
    ]


def test_calls_and_definitions_count_as_tokens() -> None:
    def count(texts: list[str]) -> list[int]:
        return [len(text) for text in texts]

    long = "x" * 200
    rows = rows_of(
        row(Q, A),
        row(Q, calls("a", town=long)),
        row(Q, A, tools=json.dumps([{"type": "function", "function": {"name": long}}])),
    )
    found = form_findings(rows, TaskConfig(), 100, count)
    assert [(f.index, f.reason) for f in found] == [(1, "too_long"), (2, "too_long")]


def test_a_table_from_before_there_were_tools() -> None:
    old = pa.struct([("role", pa.string()), ("content", pa.large_string())])
    table = to_table([row(Q, A)]).drop_columns(["tools"])
    messages = pa.array([[{"role": "user", "content": "q"}]], pa.list_(old))
    rows = Rows(table.set_column(1, pa.field("messages", messages.type), messages))
    assert rows.table.schema.equals(SCHEMA)
    (example,) = from_table(rows.table)
    assert (example.messages, example.tools) == ((Message("user", "q"),), None)


def test_mojibake_goes_from_calls_and_definitions_and_ids_stay() -> None:
    broken, whole = "Ãœberlingen", "Überlingen"
    tools = TOOLS.replace("The weather", broken)
    rows = rows_of(row(Q, A), row(Q, calls("a", town=broken), tools=tools))
    mended, count = repair(rows, UnicodeConfig())
    first, second = from_table(mended.table)
    assert count == 1
    assert first == row(Q, A)
    assert second.messages[1] == calls("a", town=whole)
    assert second.tools == TOOLS.replace("The weather", whole)
    assert second.messages[0] == Q


def config(**changes: Any) -> CleanConfig:
    off = {"pii": {"enabled": False}, "unicode": {"enabled": False}}
    return CleanConfig.model_validate({"allow": ["few_examples"], **off, **changes})


def cleaned(*examples: Example, **changes: Any) -> Account:
    return clean_rows(rows_of(*examples), rows_of(), config(**changes), TaskConfig())


def test_the_same_words_and_another_call_are_no_duplicates() -> None:
    """One tool's answer decides the next: the same question may rightly be answered otherwise."""
    asked = Message("user", "Is the shop in the old town open on this particular day, please?")
    first = row(asked, calls("a", town="Ulm"), result("a", "open"), A)
    other_call = row(asked, calls("a", town="Bonn"), result("a", "open"), A)
    same = row(asked, calls("a", town="Ulm"), result("a", "open"), A)
    account = cleaned(first, other_call, same)
    assert account.num_rejected == {"exact_duplicate": 1}
    assert {e.id for e in from_table(account.rows.table)} == {first.id, other_call.id}


def test_the_same_question_answered_by_different_calls_is_a_contradiction() -> None:
    asked = Message("user", "Is the shop in the old town open on this particular day, please?")
    account = cleaned(
        row(asked, calls("a", shop=7)), row(asked, calls("b", shop=8)), row(Q, calls("c", shop=7))
    )
    assert account.num_rejected == {"conflict": 2}
    answers = sorted(item.answer for item in account.review)
    assert ['shop": 7' in answers[0], 'shop": 8' in answers[1]] == [True, True]


def test_the_same_call_under_another_id_is_a_near_duplicate() -> None:
    asked = Message("user", "Is the shop in the old town open on this particular day, please?")
    account = cleaned(row(asked, calls("a", shop=7)), row(asked, calls("b", shop=7)))
    assert account.num_rejected == {"near_duplicate": 1}


def test_a_call_among_texts_is_no_outlier() -> None:
    said = (
        "We will send another one tomorrow, and you may keep what came first, of course. "
        "The parcel leaves our house in the morning and takes about two days to reach yours. "
        "If nobody is at home, a neighbour may take it in, or the shop around the corner. "
        "Should anything be missing, write to us again and name the number of your order."
    )
    texts = [row(Message("user", f"q{i}"), Message("assistant", said)) for i in range(60)]
    rows = rows_of(*texts, row(Q, calls("a")))
    assert [f.index for f in quality_findings(rows, config().quality)] == []
    short = rows_of(*texts, row(Q, calls("a")), row(Q, Message("assistant", "no")))
    assert [f.index for f in quality_findings(short, config().quality)] == [61]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(ARGUMENTS, WORDS, st.booleans()), min_size=1, max_size=4))
def test_nothing_is_lost_from_a_line_to_the_cleaned_rows(
    given_rows: list[tuple[dict[str, Any], str, bool]],
) -> None:
    """Every row is kept or rejected, whole: turns, calls, ids and definitions."""
    rows = []
    for number, (arguments, said, is_answered) in enumerate(given_rows):
        called = {"id": f"c{number}", "function": {"name": "get_weather", "arguments": arguments}}
        turns: list[dict[str, Any]] = [
            {"role": "user", "content": f"{said} {number}"},
            {"role": "assistant", "content": None, "tool_calls": [called]},
        ]
        if is_answered:
            turns += [
                {"role": "tool", "tool_call_id": f"c{number}", "content": f"{said}."},
                {"role": "assistant", "content": f"{number}"},
            ]
        rows.append(ingested(chat(*turns, tools=[WEATHER])))
    table = to_table(rows)
    # Of few rows all may be rejected, which is an error of its own.
    other = row(Message("user", "And now something else altogether?"), A)
    account = clean_rows(
        Rows(pa.concat_tables([table, to_table([other])])), rows_of(), config(), TaskConfig()
    )
    kept = from_table(account.rows.table)
    rejected = [e for part in account.rejected for e in from_table(part)]
    by_id = {e.id: e for e in (*kept, *rejected)}
    assert len(kept) + len(rejected) == len(rows) + 1
    for example in rows:
        back = by_id[example.id]
        assert (back.messages, back.tools) == (example.messages, example.tools)
