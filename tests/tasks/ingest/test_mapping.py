"""A row becomes an example by its source's columns, or says which field does not fit."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from tasks.artifacts import TaskConfig
from tasks.errors import ConfigError, DataError
from tasks.example import Example, Message
from tasks.ingest.config import ColumnMapping, SourceConfig
from tasks.ingest.mapping import check_columns, to_example
from tasks.ingest.readers import BadRow, Row

TASK = TaskConfig()


def source(**columns: str) -> SourceConfig:
    return SourceConfig(path="rows.csv", columns=ColumnMapping(**columns))


def made(values: dict[str, Any], /, task: TaskConfig = TASK, **columns: Any) -> Example | BadRow:
    raw = json.dumps(values, default=str).encode()
    return to_example(Row("rows.csv", 7, values, raw), source(**columns), task)


def example(values: dict[str, Any], /, task: TaskConfig = TASK, **columns: Any) -> Example:
    result = made(values, task, **columns)
    assert isinstance(result, Example), result
    return result


PAIR: dict[str, Any] = {"user": "q", "assistant": "a"}


def test_a_pair_of_columns() -> None:
    row = example({"q": "Where?", "a": "There."}, **PAIR)
    assert row.messages == (Message("user", "Where?"), Message("assistant", "There."))
    assert row.group == row.id
    assert row.meta == {"file": "rows.csv", "line": "7"}


def test_all_columns() -> None:
    values = {"q": "Where?", "a": {"n": 1}, "who": "c-1", "when": "2025-01-06T14:44:05Z", "l": 3}
    row = example(values, group="who", created_at="when", label="l", **PAIR)
    assert row.answer == '{"n": 1}'
    assert (row.group, row.label) == ("c-1", "3")
    assert row.created_at == datetime(2025, 1, 6, 14, 44, 5, tzinfo=UTC)


def test_one_customer_is_one_group_in_whatever_file() -> None:
    """Otherwise next week's file would put the same customer on the other side of the split."""
    values = {"q": "Where?", "a": "There.", "who": "c-1"}
    config = source(group="who", **PAIR)
    rows = [to_example(Row(f, 1, values, b""), config, TASK) for f in ("w1.csv", "w2.csv")]
    assert [row.group for row in rows if isinstance(row, Example)] == ["c-1", "c-1"]


@pytest.mark.parametrize("nothing", [None, ""])
def test_an_optional_column_may_be_empty(nothing: str | None) -> None:
    values = {"q": "Where?", "a": "There.", "who": nothing, "when": nothing, "l": nothing}
    row = example(values, group="who", created_at="when", label="l", **PAIR)
    assert (row.group, row.created_at, row.label) == (row.id, None, None)


def test_a_time_without_a_zone_is_utc() -> None:
    for when in ("2025-01-06 14:44:05", datetime(2025, 1, 6, 14, 44, 5)):
        row = example({"q": "q", "a": "a", "t": when}, created_at="t", **PAIR)
        assert row.created_at == datetime(2025, 1, 6, 14, 44, 5, tzinfo=UTC)


def test_chat_messages_keep_their_own_system_turn() -> None:
    task = TaskConfig(system_prompt="Be brief.")
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    own = {"role": "system", "content": "Be long."}
    added = example({"m": turns}, task, messages="m")
    kept = example({"m": [own, *turns]}, task, messages="m")
    assert added.messages[0] == Message("system", "Be brief.")
    assert kept.messages[0] == Message("system", "Be long.")
    assert added.id == kept.id == example({"m": turns}, messages="m").id


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("values", "columns", "field", "reason"),
    [
        ({"q": "x"}, PAIR, "a", "missing_field"),
        ({"q": None, "a": "y"}, PAIR, "q", "wrong_type"),
        ({"q": "x", "a": deep(5000)}, PAIR, "a", "wrong_type"),
        ({"q": "\ud800", "a": "y"}, PAIR, "q", "lone_surrogate"),
        ({"q": "x", "a": {"\ud800": 1}}, PAIR, "a", "lone_surrogate"),
        ({"\ud800": "x", "q": "x"}, PAIR, "a", "missing_field"),
        ({"q": "x", "a": "y", "t": "soon"}, {**PAIR, "created_at": "t"}, "t", "invalid_time"),
        ({"m": "text"}, {"messages": "m"}, "m", "wrong_type"),
        ({"m": {"role": "user"}}, {"messages": "m"}, "m", "wrong_type"),
        ({"m": 17}, {"messages": "m"}, "m", "wrong_type"),
        ({"m": None}, {"messages": "m"}, "m", "wrong_type"),
        ({"m": ["text"]}, {"messages": "m"}, "m[0]", "wrong_type"),
        ({"m": [{"role": "user"}]}, {"messages": "m"}, "m[0].content", "missing_field"),
        ({"m": [{"content": "x"}]}, {"messages": "m"}, "m[0].role", "missing_field"),
        ({"m": [{"role": "user", "content": 3}]}, {"messages": "m"}, "m[0].content", "wrong_type"),
        (
            {"m": [{"role": "user", "content": "\udfff"}]},
            {"messages": "m"},
            "m[0].content",
            "lone_surrogate",
        ),
        (
            {"m": [{"role": "\udfff", "content": "x"}]},
            {"messages": "m"},
            "m[0].role",
            "lone_surrogate",
        ),
        ({"q": "x"}, {"user": "q", "assistant": "{{ a }}"}, "{{ a }}", "template_failed"),
        (
            {"q": "x", "a": {}},
            {"user": "q", "assistant": "{{ a.b.c }}"},
            "{{ a.b.c }}",
            "template_failed",
        ),
        (
            {"q": "x", "a": 0},
            {"user": "q", "assistant": "{{ 1 // a }}"},
            "{{ 1 // a }}",
            "template_failed",
        ),
    ],
    ids=range(20),
)
def test_a_row_that_does_not_fit_names_its_field(
    values: dict[str, Any], columns: dict[str, str], field: str, reason: str
) -> None:
    row = Row("rows.csv", 7, values, b"the original")
    bad = to_example(row, source(**columns), TASK)
    assert isinstance(bad, BadRow)
    assert (bad.file, bad.line, bad.field, bad.reason) == ("rows.csv", 7, field, reason)
    assert bad.raw == b"the original"
    assert bad.detail.startswith("expected ")
    bad.detail.encode()  # can be written to the quarantine


def test_a_template_builds_a_json_answer() -> None:
    """The shape of NLU++: intents as a list, slots as an object with texts and spans."""
    template = (
        '{"intents": {{ intents | tojson }}, "slots": { '
        "{%- for name, slot in slots | dictsort %}"
        '{{ name | tojson }}: {{ slot.text | tojson }}{{ ", " if not loop.last }}'
        "{%- endfor %}} }"
    )
    values = {
        "text": 'book the "blue" room for two <friends> & me',
        "intents": ["affirm", "booking"],
        "slots": {"time": {"text": "7 & 8", "span": [1, 2]}, "name": {"text": 'Zo"ë <3'}},
    }
    row = example(values, user="text", assistant=template)
    assert json.loads(row.answer) == {
        "intents": ["affirm", "booking"],
        "slots": {"name": 'Zo"ë <3', "time": "7 & 8"},
    }
    assert "\\u" not in row.answer


@pytest.mark.parametrize(
    "template",
    [
        "{{ q.__class__ }}",
        "{{ q.__class__.__mro__[1].__subclasses__() }}",
        "{{ ''['__class__'] }}",
        "{{ q | attr('__class__') }}",
        "{{ '%s'.format.__globals__ }}",
        "{{ rows.append(1) }}",
        "{{ lipsum.__globals__ }}",
        "{{ range(10000000) | list }}",
    ],
)
def test_a_template_cannot_reach_python(template: str) -> None:
    values = {"q": "x", "rows": [1]}
    result = made(values, user="q", assistant=template)
    if isinstance(result, Example):
        assert result.answer == ""
    else:
        assert result.reason == "template_failed"
    assert values["rows"] == [1]


def test_a_template_with_a_syntax_error_is_an_error_of_the_config() -> None:
    with pytest.raises(ConfigError, match=r"'\{\{ q ' in a source's `columns` is not Jinja2"):
        made({"q": "x"}, user="q", assistant="{{ q ")


@pytest.mark.parametrize(
    "columns",
    [
        {},
        {"user": "q"},
        {"assistant": "a"},
        {"messages": "m", "user": "q"},
        {"messages": "m"} | PAIR,
    ],
)
def test_a_mapping_has_one_shape(columns: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="either `messages`"):
        ColumnMapping(**columns)


@pytest.mark.parametrize("column", ["answer", "group"])
def test_a_mapped_column_that_the_file_lacks_is_named(column: str) -> None:
    config = source(user="q", assistant="answer", group="group")
    values = {name: "x" for name in ("q", "answer", "group") if name != column}
    with pytest.raises(DataError, match=rf"rows\.csv: column '{column}' is mapped.*'q'"):
        check_columns(Row("rows.csv", 2, values, b""), config)
