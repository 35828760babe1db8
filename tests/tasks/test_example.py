"""An example survives the way through Arrow; equal content has one id."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.example import Example, Message, content_id, from_table, normalise, to_table

# Parquet holds UTF-8: a lone surrogate is quarantined before it gets here.
text = st.text(st.characters(exclude_categories=["Cs"]))
messages = st.lists(st.builds(Message, st.sampled_from(["system", "user", "assistant"]), text))
moments = st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))
examples = st.builds(
    Example,
    id=text,
    messages=messages.map(tuple),
    source=st.sampled_from(["human", "synthetic"]),
    group=text,
    created_at=st.none() | moments,
    label=st.none() | text,
    meta=st.dictionaries(text, text),
)


@given(st.lists(examples, max_size=4))
def test_to_table_and_back(rows: list[Example]) -> None:
    assert from_table(to_table(rows)) == rows


def test_further_columns_are_ignored() -> None:
    row = Example("1", (Message("user", "a"),), "human", "g")
    assert from_table(to_table([row]).append_column("split", [["train"]])) == [row]


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("Hello  World", "hello world"),
        (" hello\tworld\n", "hello world"),
        ("HELLO\u00a0WORLD", "hello world"),
        ("ﬁne", "fine"),
        ("cafe\u0301", "café"),
    ],
)
def test_equal_but_for_case_white_space_and_form_of_unicode(left: str, right: str) -> None:
    assert normalise(left) == normalise(right)
    assert content_id([Message("user", left)]) == content_id([Message("user", right)])


def test_the_system_turn_is_not_part_of_the_identity() -> None:
    turns = [Message("user", "q"), Message("assistant", "a")]
    assert content_id([Message("system", "be brief"), *turns]) == content_id(turns)


@pytest.mark.parametrize(
    "other",
    [
        [Message("user", "q"), Message("assistant", "b")],
        [Message("assistant", "q"), Message("user", "a")],
        [Message("user", "q a")],
        [Message("user", "q"), Message("user", "a")],
    ],
)
def test_other_turns_make_another_identity(other: list[Message]) -> None:
    assert content_id(other) != content_id([Message("user", "q"), Message("assistant", "a")])


def test_prompt_and_answer() -> None:
    turns = ("system", "s"), ("user", "one"), ("assistant", "two"), ("user", "three")
    row = Example("1", tuple(Message(*t) for t in (*turns, ("assistant", "four"))), "human", "g")
    assert row.prompt == "one\nthree"
    assert row.answer == "four"
    assert Example("1", (), "human", "g").answer == ""
