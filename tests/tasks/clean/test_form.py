"""The form of a conversation and of its answer, case by case."""

import pytest

from tasks.artifacts import TaskConfig
from tasks.clean.form import form_check
from tasks.errors import ConfigError
from tasks.example import Example, Message

Turns = list[tuple[str, str]]
Q, A, S = ("user", "question"), ("assistant", "answer"), ("system", "be brief")
SCHEMA = {
    "type": "object",
    "required": ["n"],
    "properties": {"n": {"type": ["number", "null"]}},
    "additionalProperties": False,
}


def example(turns: Turns) -> Example:
    return Example("1", tuple(Message(*turn) for turn in turns), "human", "g")


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ([Q, A], None),
        ([S, Q, A], None),
        ([Q, A, Q, A], None),
        ([Q, ("tool", "42"), A], None),
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
        ([("user", " \n\t"), A], "empty_user_turn"),
        ([Q, ("assistant", "")], "empty_assistant_turn"),
        ([("system", ""), Q, A], "empty_system_turn"),
    ],
)
def test_turns(turns: Turns, reason: str | None) -> None:
    verdict = form_check(TaskConfig())(example(turns))
    assert (verdict and verdict[0]) == reason


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
    check = form_check(TaskConfig(kind="structured", answer_schema=SCHEMA))
    verdict = check(example([Q, ("assistant", answer)]))
    assert (verdict and verdict[0]) == reason


def test_a_violation_names_the_place() -> None:
    check = form_check(TaskConfig(kind="structured", answer_schema=SCHEMA))
    verdict = check(example([Q, ("assistant", '{"n": "1"}')]))
    assert verdict is not None
    assert verdict[1].startswith("$.n: '1' is not of type")


def test_only_structured_answers_are_read_as_json() -> None:
    for kind in ("generation", "classification"):
        assert form_check(TaskConfig(kind=kind))(example([Q, A])) is None
    assert form_check(TaskConfig(kind="structured"))(example([Q, A])) is not None


def test_a_schema_that_is_none_is_an_error_of_the_config() -> None:
    with pytest.raises(ConfigError, match="not a JSON Schema"):
        form_check(TaskConfig(kind="structured", answer_schema={"type": "ticket"}))
