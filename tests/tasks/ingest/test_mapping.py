"""A row becomes an example by its source's columns, or says which field does not fit."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from pydantic import ValidationError

from tasks.artifacts import TaskConfig
from tasks.errors import ConfigError, DataError
from tasks.example import Example, Message
from tasks.ingest.config import ColumnMapping, SourceConfig
from tasks.ingest.mapping import Excluded, check_columns, is_wanted, to_examples
from tasks.ingest.rows import BadRow, Row

TASK = TaskConfig()


def source(**columns: str) -> SourceConfig:
    return SourceConfig(path="rows.csv", columns=ColumnMapping(**columns))


def to_example(row: Row, config: SourceConfig, task: TaskConfig) -> Example | BadRow | Excluded:
    (one,) = to_examples(row, config, task)
    return one


def made(
    values: dict[str, Any], /, task: TaskConfig = TASK, **columns: Any
) -> Example | BadRow | Excluded:
    return to_example(Row("rows.csv", 7, values, b"the row"), source(**columns), task)


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
        assert isinstance(result, BadRow)
        assert result.reason == "template_failed"
    assert values["rows"] == [1]


def test_a_template_with_a_syntax_error_is_an_error_of_the_config() -> None:
    with pytest.raises(ConfigError, match=r"'\{\{ q ' in a source's `columns` is not Jinja2"):
        made({"q": "x"}, user="q", assistant="{{ q ")


@pytest.mark.parametrize(
    "columns",
    [
        {"user": "q"},
        {"assistant": "a"},
        {"messages": "m", "user": "q"},
        {"messages": "m"} | PAIR,
    ],
)
def test_a_mapping_has_one_shape(columns: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="either `messages`"):
        source(**columns)


@pytest.mark.parametrize(
    ("shape", "columns"),
    [
        ("chat", {"user": "q"}),
        ("alpaca", {"messages": "m"}),
        ("sharegpt", {"history": "h"}),
        ("gateway_log", {"messages": "m"}),
        ("label_studio", {"input": "i"}),
    ],
)
def test_a_shape_refuses_a_column_that_it_has_not(shape: str, columns: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match=f"shape '{shape}' has no column `{min(columns)}`"):
        SourceConfig.model_validate({"path": "x.jsonl", "shape": shape, "columns": columns})


def test_a_config_survives_being_written_and_read() -> None:
    """Prefect hands a flow its parameters as JSON, all fields given."""
    for shape in ("columns", "alpaca", "label_studio", "gateway_log"):
        config = SourceConfig.model_validate({"path": "x.jsonl", "shape": shape})
        assert SourceConfig.model_validate(config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    ("shape", "maker"),
    [
        ("columns", "human"),
        ("alpaca", "human"),
        ("label_studio", "annotation"),
        ("argilla", "annotation"),
        ("labelbox", "annotation"),
        ("scale", "annotation"),
        ("gateway_log", "production"),
    ],
)
def test_a_shape_tells_who_made_its_rows(shape: str, maker: str) -> None:
    config = SourceConfig.model_validate({"path": "x.jsonl", "shape": shape})
    own = SourceConfig.model_validate({"path": "x.jsonl", "shape": shape, "source": "synthetic"})
    assert (config.source, own.source) == (maker, "synthetic")


@pytest.mark.parametrize(
    "fields",
    [
        {"label_studio_url": "http://ls", "shape": "label_studio"},
        {"label_studio_project": 1, "shape": "label_studio"},
        {"label_studio_url": "http://ls", "label_studio_project": 1},
        {
            "label_studio_url": "http://ls",
            "label_studio_project": 1,
            "shape": "label_studio",
            "path": "x.json",
        },
        {},
    ],
)
def test_a_source_is_in_one_place(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SourceConfig.model_validate(fields)


def test_a_label_studio_project_needs_no_path() -> None:
    config = SourceConfig(
        shape="label_studio", label_studio_url="http://ls", label_studio_project=3
    )
    assert config.path is None


def test_without_a_mapping_a_row_is_chat_messages() -> None:
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    row = example({"messages": turns})
    assert [m.content for m in row.messages] == ["q", "a"]


def test_a_column_for_the_system_turn() -> None:
    row = example({"q": "x", "a": "y", "s": "Be brief."}, system="s", **PAIR)
    assert row.messages[0] == Message("system", "Be brief.")
    none = example({"q": "x", "a": "y", "s": None}, system="s", **PAIR)
    assert [m.role for m in none.messages] == ["user", "assistant"]


def test_a_path_leads_into_objects_and_lists() -> None:
    values = {"data": {"turns": [{"t": "x"}, {"t": "y"}]}, "meta": {"user": {"id": 7}}}
    row = example(values, user="data.turns.0.t", assistant="data.turns.1.t", group="meta.user.id")
    assert [m.content for m in row.messages] == ["x", "y"]
    assert row.group == "7"


def test_a_column_of_that_very_name_comes_before_a_path() -> None:
    values = {"a.b": "literal", "a": {"b": "nested"}, "q": "x"}
    assert example(values, user="q", assistant="a.b").answer == "literal"


@pytest.mark.parametrize("path", ["a.c", "a.b.c", "l.2", "l.x", "l.-1", "."])
def test_a_path_that_leads_nowhere_is_a_missing_field(path: str) -> None:
    bad = made({"a": {"b": "x"}, "l": [1, 2], "q": "x"}, user="q", assistant=path)
    assert isinstance(bad, BadRow)
    assert (bad.field, bad.reason) == (path, "missing_field")


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (True, "true"),
        (False, "false"),
        (3, "3"),
        (1.5, "1.5"),
        (1e22, "1e+22"),
        (Decimal("0.1234567890123456789"), "0.1234567890123456789"),
        ({"a": [True, None, "é"]}, '{"a": [true, null, "é"]}'),
        ([Decimal("0.1234567890123456789"), "x"], '[0.1234567890123456789, "x"]'),
        ("", ""),
        ("  two\r\nlines\t", "  two\r\nlines\t"),
    ],
)
def test_an_answer_is_written_as_json_writes_it(value: object, written: str) -> None:
    assert example({"q": "x", "a": value}, **PAIR).answer == written
    if value != "":
        assert example({"q": "x", "a": value}, user="q", assistant="{{ a }}").answer == written


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (float("nan"), "wrong_type"),
        (float("inf"), "wrong_type"),
        (Decimal("NaN"), "wrong_type"),
        ([float("nan")], "wrong_type"),
        (None, "wrong_type"),
        (b"bytes", "wrong_type"),
        ("a\0b", "nul_character"),
        ("\ud800", "lone_surrogate"),
        ({"a": "\ud800"}, "lone_surrogate"),
        (10**5000, "wrong_type"),
    ],
    ids=range(10),
)
def test_what_cannot_be_kept_is_refused(value: object, reason: str) -> None:
    for columns in (PAIR, {"user": "a", "assistant": "q"}):
        bad = made({"q": "x", "a": value}, **columns)
        assert isinstance(bad, BadRow)
        assert (bad.field, bad.reason) == ("a", reason)


def test_a_template_does_not_write_null() -> None:
    bad = made({"q": "x", "a": None}, user="q", assistant="{{ a }}")
    assert isinstance(bad, BadRow)
    assert bad.reason == "template_failed"
    assert "null" in bad.detail
    assert example({"q": "x", "a": None}, user="q", assistant="{{ a or 'none' }}").answer == "none"


def test_a_group_or_label_is_kept_as_exactly_as_an_answer() -> None:
    for name in ("group", "label"):
        bad = made({"q": "x", "a": "y", "c": "\0"}, **PAIR, **{name: "c"})
        assert isinstance(bad, BadRow)
        assert (bad.field, bad.reason) == ("c", "nul_character")


def test_a_time_that_no_calendar_holds_is_refused() -> None:
    bad = made({"q": "x", "a": "y", "t": "0001-01-01T00:00:00+14:00"}, created_at="t", **PAIR)
    assert isinstance(bad, BadRow)
    assert bad.reason == "invalid_time"


def test_where_asks_for_a_nested_column() -> None:
    config = SourceConfig.model_validate({"path": "x.jsonl", "where": {"meta.split": ["train"]}})
    for split, wanted in (("train", True), ("test", False), (["train"], False)):
        assert is_wanted(Row("x", 1, {"meta": {"split": split}}, b""), config) is wanted
    assert not is_wanted(Row("x", 1, {}, b""), config)


@pytest.mark.parametrize("column", ["answer", "group"])
def test_a_mapped_column_that_the_file_lacks_is_named(column: str) -> None:
    config = source(user="q", assistant="answer", group="group")
    values = {name: "x" for name in ("q", "answer", "group") if name != column}
    with pytest.raises(DataError, match=rf"rows\.csv: column '{column}' is mapped.*'q'"):
        check_columns(Row("rows.csv", 2, values, b""), config)


@pytest.mark.parametrize(
    ("shape", "lacking"),
    [
        ("chat", "messages"),
        ("prompt_completion", "prompt"),
        ("alpaca", "instruction"),
        ("sharegpt", "conversations"),
        ("columns", "messages"),
    ],
)
def test_a_table_needs_the_usual_columns_of_its_shape(shape: str, lacking: str) -> None:
    config = SourceConfig.model_validate({"path": "rows.csv", "shape": shape})
    with pytest.raises(DataError, match=f"column '{lacking}' is mapped"):
        check_columns(Row("rows.csv.gz", 2, {"x": "y"}, b""), config)
    for file in ("rows.jsonl", "rows.jsonl.zst", "rows.NDJSON", "rows.json.gz"):
        check_columns(Row(file, 2, {"x": "y"}, b""), config)


def test_an_optional_column_of_a_shape_may_lack() -> None:
    config = SourceConfig.model_validate({"path": "rows.csv", "shape": "alpaca"})
    check_columns(Row("rows.csv", 2, {"instruction": "x", "output": "y"}, b""), config)


def test_a_row_makes_a_list_and_never_an_empty_one() -> None:
    row = Row("rows.csv", 7, {"q": "x", "a": "y"}, b"")
    assert len(to_examples(row, source(**PAIR), TASK)) == 1
    assert len(to_examples(row, source(user="q", assistant="z"), TASK)) == 1
