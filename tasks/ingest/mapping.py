"""Row -> Example by a source's column mapping; a row that does not fit says which field and why."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tasks.artifacts import TaskConfig
from tasks.errors import ConfigError, DataError
from tasks.example import Example, Message, content_id
from tasks.ingest.config import ColumnMapping, SourceConfig
from tasks.ingest.readers import BadRow, Row

# Templates come from a config and rows from outside: neither may reach Python's objects.
_ENVIRONMENT = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
# Jinja's own tojson escapes <, > and & for HTML, which would teach the model \u0026.
_ENVIRONMENT.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)

# What a row that does not fit its template raises while it is rendered.
_ROW_ERRORS = (
    TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError,
    RecursionError,
)  # fmt: skip


class _FieldError(Exception):
    def __init__(self, field: str, reason: str, detail: str) -> None:
        super().__init__(detail)
        # It may quote the row, and a lone surrogate cannot be written to the quarantine.
        self.detail = detail.encode("utf-8", "backslashreplace").decode()
        self.field, self.reason = field, reason


def to_example(row: Row, source: SourceConfig, task: TaskConfig) -> Example | BadRow:
    """The row as an example, its system turn from the task when it has none of its own."""
    try:
        messages = _messages(row.values, source.columns)
        label = _optional_text(row.values, source.columns.label)
        created_at = _time(row.values, source.columns.created_at)
        group = _optional_text(row.values, source.columns.group)
    except _FieldError as error:
        return BadRow(row.file, row.line, error.field, error.reason, error.detail, row.raw)
    identity = content_id(messages)
    if task.system_prompt and not any(m.role == "system" for m in messages):
        messages = [Message("system", task.system_prompt), *messages]
    return Example(
        id=identity,
        messages=tuple(messages),
        source=source.source,
        group=group or identity,
        created_at=created_at,
        label=label,
        meta={"file": row.file, "line": str(row.line)},
    )


def check_columns(row: Row, source: SourceConfig) -> None:
    """Raises DataError when a mapped column is missing from the first row of a CSV or Parquet.

    There a missing column is a wrong mapping, not a bad row: saying it once, before reading
    everything, is worth more than a quarantine full of the same sentence. Of JSON lines each has
    its own columns.
    """
    if source.format == "jsonl" or row.file.lower().endswith(".jsonl"):
        return
    plain = [c for c in source.columns.model_dump().values() if c and "{{" not in c]
    missing = [column for column in [*plain, *source.where] if column not in row.values]
    if missing:
        raise DataError(
            f"{row.file}: column {missing[0]!r} is mapped in the config but not in the file, "
            f"which has {', '.join(map(repr, row.values))}. Correct the source's `columns`."
        )


def is_wanted(row: Row, source: SourceConfig) -> bool:
    """Whether the row has one of the values that ``where`` asks for."""
    return all(row.values.get(column) in values for column, values in source.where.items())


def _messages(values: dict[str, Any], columns: ColumnMapping) -> list[Message]:
    if columns.messages is None:
        user = _text(values, columns.user or "")
        return [Message("user", user), Message("assistant", _text(values, columns.assistant or ""))]
    turns = _column(values, columns.messages)
    if not isinstance(turns, Iterable) or isinstance(turns, str | dict):
        detail = f"expected a list of messages, came {type(turns).__name__}"
        raise _FieldError(columns.messages, "wrong_type", detail)
    return [_message(turn, f"{columns.messages}[{i}]") for i, turn in enumerate(turns)]


def _message(turn: object, field: str) -> Message:
    if not isinstance(turn, dict):
        detail = f"expected an object with role and content, came {type(turn).__name__}"
        raise _FieldError(field, "wrong_type", detail)
    for key in ("role", "content"):
        if key not in turn:
            raise _FieldError(f"{field}.{key}", "missing_field", "expected a string, came nothing")
        if not isinstance(turn[key], str):
            detail = f"expected a string, came {type(turn[key]).__name__}"
            raise _FieldError(f"{field}.{key}", "wrong_type", detail)
    role, content = (_encodable(turn[key], f"{field}.{key}") for key in ("role", "content"))
    return Message(role, content)


def _text(values: dict[str, Any], column: str) -> str:
    if "{{" in column:
        return _encodable(_render(values, column), column)
    value = _column(values, column)
    if isinstance(value, dict | list):  # a structured answer given as an object
        value = _as_json(value, column)
    if not isinstance(value, str | int | float):
        detail = f"expected text, came {type(value).__name__}"
        raise _FieldError(column, "wrong_type", detail)
    return _encodable(str(value), column)


def _optional_text(values: dict[str, Any], column: str | None) -> str | None:
    """None also for a row in which the column is empty: not every row has a group or a label."""
    if column is None or ("{{" not in column and _column(values, column) in (None, "")):
        return None
    return _text(values, column)


def _column(values: dict[str, Any], column: str) -> Any:
    if column not in values:
        detail = f"expected the column, came only {', '.join(map(str, values)) or 'nothing'}"
        raise _FieldError(column, "missing_field", detail)
    return values[column]


def _render(values: dict[str, Any], template: str) -> str:
    compiled = _compiled(template)
    try:
        return str(compiled.render(values))
    except _ROW_ERRORS as error:
        detail = f"expected columns that the template can render: {error}"
        raise _FieldError(template, "template_failed", detail) from error


@lru_cache(maxsize=64)
def _compiled(template: str) -> Any:
    try:
        return _ENVIRONMENT.from_string(template)
    except TemplateSyntaxError as error:
        raise ConfigError(
            f"The template {template!r} in a source's `columns` is not Jinja2: {error.message}"
        ) from error


def _as_json(value: object, column: str) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:  # deeper than Python can follow
        raise _FieldError(column, "wrong_type", f"expected JSON-ready data: {error}") from error


def _encodable(text: str, field: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise _FieldError(field, "lone_surrogate", f"expected Unicode text: {error}") from error
    return text


def _time(values: dict[str, Any], column: str | None) -> datetime | None:
    if column is None or (value := _column(values, column)) in (None, ""):
        return None
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    except ValueError as error:
        detail = f"expected an ISO 8601 time, came {value!r}"
        raise _FieldError(column, "invalid_time", detail) from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
