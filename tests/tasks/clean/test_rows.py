"""Columns say what objects say."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from tasks.clean.rows import Rows
from tasks.example import Example, Message, from_table, to_table

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
message = st.builds(Message, st.sampled_from(["system", "user", "assistant"]), text)
example = st.builds(Example, text, st.lists(message, max_size=5).map(tuple), st.just("human"), text)
examples = st.lists(example, max_size=8)


@given(examples)
def test_views_equal_the_examples_own(examples: list[Example]) -> None:
    rows = Rows(to_table(examples))
    assert rows.prompts.to_pylist() == [e.prompt for e in examples]
    assert rows.answers.to_pylist() == [e.answer for e in examples]
    turns = rows.turns
    assert turns.contents.to_pylist() == [m.content for e in examples for m in e.messages]
    assert turns.row_of.tolist() == [i for i, e in enumerate(examples) for _ in e.messages]


@given(examples)
def test_a_selection_has_the_views_of_its_rows(examples: list[Example]) -> None:
    rows = Rows(to_table(examples))
    chosen = np.arange(len(examples))[::-2]
    some = rows.select(chosen)
    assert from_table(some.table) == [examples[i] for i in chosen]
    assert some.prompts.to_pylist() == [examples[i].prompt for i in chosen]
    rest = rows.without(chosen)
    assert from_table(rest.table) == [e for i, e in enumerate(examples) if i not in chosen]
    assert rest.turns.contents.to_pylist() == [
        m.content for i, e in enumerate(examples) if i not in chosen for m in e.messages
    ]


@given(examples)
def test_other_contents_change_nothing_else(examples: list[Example]) -> None:
    rows = Rows(to_table(examples)).select(np.arange(len(examples)))
    shouted = [c.upper() for c in rows.turns.contents.to_pylist()]
    changed = from_table(rows.with_contents(pa.array(shouted, pa.large_string())).table)
    for before, after in zip(examples, changed, strict=True):
        assert [m.role for m in after.messages] == [m.role for m in before.messages]
        assert [m.content for m in after.messages] == [m.content.upper() for m in before.messages]
        assert (after.id, after.group, after.meta) == (before.id, before.group, before.meta)


def test_the_place_of_a_row() -> None:
    known = Example("a", (), "human", "g", meta={"file": "rows.csv", "line": "7"})
    rows = Rows(to_table([known, Example("b", (), "human", "g")]))
    assert [rows.place(0), rows.place(1)] == ["rows.csv:7", "?:?"]
