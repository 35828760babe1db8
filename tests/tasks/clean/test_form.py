"""The form of a conversation and of its answer, case by case."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.artifacts import TaskConfig
from tasks.clean.form import form_findings
from tasks.clean.rows import Finding, Rows
from tasks.errors import ConfigError
from tasks.example import ROLES, Example, Message, to_table

Turns = list[tuple[str, str]]
Q, A, S = ("user", "question"), ("assistant", "answer"), ("system", "be brief")
SCHEMA = {
    "type": "object",
    "required": ["n"],
    "properties": {"n": {"type": ["number", "null"]}},
    "additionalProperties": False,
}
STRUCTURED = TaskConfig(kind="structured", answer_schema=SCHEMA)


def rows_of(*conversations: Turns) -> Rows:
    return Rows(
        to_table(
            Example(str(i), tuple(Message(*turn) for turn in turns), "human", "g")
            for i, turns in enumerate(conversations)
        )
    )


def findings(*conversations: Turns, task: TaskConfig = TaskConfig()) -> list[Finding]:  # noqa: B008
    return form_findings(rows_of(*conversations), task, 8192, None)


CASES: list[tuple[Turns, str | None]] = [
    ([Q, A], None),
    ([S, Q, A], None),
    ([Q, A, Q, A], None),
    ([Q, ("tool", "42"), A], "tool_turn_without_call"),
    ([], "turns_out_of_order"),
    ([S], "turns_out_of_order"),
    ([Q], "turns_out_of_order"),
    ([A], "turns_out_of_order"),
    ([A, Q], "turns_out_of_order"),
    ([Q, Q, A], "turns_out_of_order"),
    ([Q, A, A], "turns_out_of_order"),
    ([Q, A, Q], "turns_out_of_order"),
    ([Q, S, A], "turns_out_of_order"),
    ([S, S, Q, A], "turns_out_of_order"),
    ([("human", "q"), A], "unknown_role"),
    ([("User", "q"), A], "unknown_role"),
    ([("user\x1fassistant", "q"), A], "unknown_role"),
    ([("user", " \n\t"), A], "empty_user_turn"),
    ([Q, ("assistant", "")], "empty_assistant_turn"),
    ([("system", ""), Q, A], "empty_system_turn"),
]


@pytest.mark.parametrize(("turns", "reason"), CASES)
def test_turns(turns: Turns, reason: str | None) -> None:
    assert [f.reason for f in findings(turns)] == ([reason] if reason else [])


def test_many_rows_at_once_are_each_judged_alone() -> None:
    found = {f.index: f.reason for f in findings(*(turns for turns, _ in CASES))}
    assert [found.get(i) for i in range(len(CASES))] == [reason for _, reason in CASES]


def first_fault(turns: Turns) -> str | None:
    """The rule written for one row, to hold the columns against."""
    roles = [role for role, _ in turns]
    if any(role not in ROLES for role in roles):
        return "unknown_role"
    if empty := [role for role, content in turns if not content.strip()]:
        return f"empty_{empty[0]}_turn"
    if "tool" in roles:  # no turn of these calls
        return "tool_turn_without_call"
    kept = roles[roles[:1] == ["system"] :]
    in_order = kept and kept == ["user", "assistant"] * (len(kept) // 2)
    return None if in_order else "turns_out_of_order"


_SPACE = st.text(st.sampled_from(" \t\n\r\v\f\u00a0\u1680\u2003\u2028\u3000x"), max_size=3)
_TURN = st.tuples(st.sampled_from([*ROLES, "user", "assistant", "human"]), _SPACE | st.just("x"))


@settings(deadline=None)
@given(st.lists(st.lists(_TURN, max_size=5), max_size=5))
def test_columns_and_rows_agree(conversations: list[Turns]) -> None:
    found = {f.index: f.reason for f in findings(*conversations)}
    expected = {i: first_fault(turns) for i, turns in enumerate(conversations)}
    assert found == {i: reason for i, reason in expected.items() if reason}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ('{"n": 1}', None),
        (' {"n": null}\n', None),
        ('{"n": 1', "answer_not_json"),
        ('{"n": NaN}', "answer_not_json"),
        ('{"n": Infinity}', "answer_not_json"),
        ('{"n": -Infinity}', "answer_not_json"),
        ("[1]", "answer_not_json"),
        ("1", "answer_not_json"),
        ("Sure: {}", "answer_not_json"),
        ("[" * 100_000, "answer_not_json"),
        ("{}", "answer_off_schema"),
        ('{"n": "1"}', "answer_off_schema"),
        ('{"n": 1, "m": 2}', "answer_off_schema"),
    ],
    ids=range(13),
)
def test_structured_answers(answer: str, reason: str | None) -> None:
    right = [Q, ("assistant", '{"n": 7}')]
    found = findings(right, [Q, ("assistant", answer)], right, task=STRUCTURED)
    assert [(f.index, f.reason) for f in found] == ([(1, reason)] if reason else [])


def test_equal_answers_are_all_found_and_a_wrong_turn_comes_first() -> None:
    wrong, empty = ("assistant", "{}"), ("user", "")
    found = findings([Q, wrong], [empty, wrong], [Q, wrong], task=STRUCTURED)
    assert [f.reason for f in found] == [
        "answer_off_schema",
        "empty_user_turn",
        "answer_off_schema",
    ]


def test_details_name_the_place_and_what_came() -> None:
    found = findings([Q, ("assistant", '{"n": "1"}')], [("human", "q"), A], [A, Q], task=STRUCTURED)
    assert found[0].detail.startswith("$.n: '1' is not of type")
    assert found[1].detail.endswith("came 'human'")
    assert found[2].detail.endswith("came assistant, user")


def test_only_structured_answers_are_read_as_json() -> None:
    for kind in ("generation", "classification"):
        assert findings([Q, A], task=TaskConfig(kind=kind)) == []
    assert findings([Q, A], task=TaskConfig(kind="structured")) != []


def test_a_schema_that_is_none_is_an_error_of_the_config() -> None:
    task = TaskConfig(kind="structured", answer_schema={"type": "ticket"})
    with pytest.raises(ConfigError, match="not a JSON Schema"):
        findings([Q, A], task=task)


def test_rows_of_too_many_tokens_are_found_and_short_ones_are_not_tokenised() -> None:
    seen: list[str] = []

    def words(texts: list[str]) -> list[int]:
        seen.extend(texts)
        return [len(text.split()) for text in texts]

    at_limit: Turns = [("user", "w " * 60), ("assistant", "w " * 40)]
    over: Turns = [("user", "w " * 60), ("assistant", "w " * 41)]
    one_long_word: Turns = [("user", "w" * 500), A]
    rows = rows_of([Q, A], at_limit, over, one_long_word, [("human", "w " * 500), A])
    found = form_findings(rows, TaskConfig(), 100, words)
    assert [(f.index, f.reason) for f in found] == [(2, "too_long"), (4, "unknown_role")]
    assert found[0].detail == "101 tokens, at most 100 are allowed"
    assert "question" not in seen
    assert form_findings(rows_of(over), TaskConfig(), 100, None) == []


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 60), min_size=2, max_size=2), max_size=6))
def test_a_token_a_byte_is_the_worst_case(sizes: list[list[int]]) -> None:
    """No row over the limit is passed over by the search on bytes."""
    rows = rows_of(*([("user", "é" * u + "."), ("assistant", "a" * a + ".")] for u, a in sizes))
    found = form_findings(rows, TaskConfig(), 50, lambda texts: [len(t.encode()) for t in texts])
    assert [f.index for f in found] == [i for i, (u, a) in enumerate(sizes) if 2 * u + a + 2 > 50]


@pytest.mark.slow
def test_the_base_models_tokens_are_fewer_than_bytes(smol: Path) -> None:
    """What the search for long rows relies on."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smol)
    texts = [
        "Where is my order?",
        "¿Dónde está?",
        "您好，我的订单",
        "👨‍👩‍👧‍👦",
        "\x00\ufffd",
        "    \n\n\t",
    ]
    for text, ids in zip(texts, tokenizer(texts)["input_ids"], strict=True):
        assert len(ids) <= len(text.encode())
