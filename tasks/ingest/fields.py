"""One field of a row: found by name or path, turned into text exactly, or refused with a reason.

Text is kept byte for byte. A number or a boolean is written as JSON writes it (``true``, ``1.5``),
because that is what the person who wrote the file sees; an object or a list as JSON text. What
cannot be kept is refused: a NUL, which storage and tokenizers cut at, a lone surrogate, which has
no bytes, and a float that is not a number. Missing, null and empty differ: a column that must be
there is ``missing_field`` when absent and ``wrong_type`` when null; an empty text is text.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any

from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tasks.errors import ConfigError

# What a row that does not fit its template raises while it is rendered.
_ROW_ERRORS = (
    TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError,
    RecursionError,
)  # fmt: skip


def _dumps(value: object) -> str:
    """JSON text; a number that no float holds, which readers keep as a Decimal, to its last digit.

    The standard library writes no Decimal, so what has one is put together here.
    """
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except TypeError:
        if isinstance(value, Decimal) and value.is_finite():
            return str(value)
        if isinstance(value, list):
            return f"[{', '.join(map(_dumps, value))}]"
        if isinstance(value, dict) and all(isinstance(key, str) for key in value):
            return f"{{{', '.join(f'{_dumps(k)}: {_dumps(v)}' for k, v in value.items())}}}"
        raise


def _finalize(value: Any) -> Any:
    """What a template prints, by the rules of ``as_text``: Jinja's own would be True and None."""
    if value is None:
        raise ValueError("null has no text; say what to write with `default` or `if`")
    return as_text(value, "") if isinstance(value, bool | float | Decimal | dict | list) else value


# Templates come from a config and rows from outside: neither may reach Python's objects.
_ENVIRONMENT = ImmutableSandboxedEnvironment(
    undefined=StrictUndefined, keep_trailing_newline=True, finalize=_finalize
)
# Jinja's own tojson escapes <, > and & for HTML, which would teach the model \u0026.
_ENVIRONMENT.filters["tojson"] = _dumps


class FieldError(Exception):
    """A field of a row that does not fit: its name, a stable reason and what was expected."""

    def __init__(self, field: str, reason: str, detail: str) -> None:
        super().__init__(detail)
        # Both may quote the row, and a lone surrogate cannot be written to the quarantine.
        self.field, self.detail = _printable(field), _printable(detail)
        self.reason = reason


def column(values: Mapping[str, Any], path: str) -> Any:
    """The column of that very name, else what the dotted path leads to."""
    if path in values:
        return values[path]
    found: Any = values
    for step in path.split("."):
        if isinstance(found, Mapping) and step in found:
            found = found[step]
        elif isinstance(found, list) and step.isdecimal() and int(step) < len(found):
            found = found[int(step)]
        else:
            detail = f"expected the column, came only {', '.join(map(str, values)) or 'nothing'}"
            raise FieldError(path, "missing_field", detail)
    return found


def holds(values: Mapping[str, Any], path: str) -> bool:
    """Whether the row has this column, be it null."""
    try:
        column(values, path)
    except FieldError:
        return False
    return True


def text(values: Mapping[str, Any], name: str) -> str:
    """The column, or the template over the row, as text."""
    if is_template(name):
        return exact(_render(values, name), name)
    return as_text(column(values, name), name)


def optional_text(values: Mapping[str, Any], name: str | None) -> str | None:
    """None also for a row in which the column is empty: not every row has a group or a label."""
    if name is None or (not is_template(name) and column(values, name) in (None, "")):
        return None
    return text(values, name)


def is_template(name: str) -> bool:
    return "{{" in name


def as_text(value: object, field: str) -> str:
    """Text as it is; a number or a boolean as JSON writes it; an object or a list as JSON text."""
    if isinstance(value, str):
        return exact(value, field)
    if isinstance(value, float | Decimal) and not math.isfinite(value):
        raise FieldError(field, "wrong_type", f"expected text, came {value}, which is no number")
    if not isinstance(value, bool | int | float | Decimal | dict | list):
        raise FieldError(field, "wrong_type", f"expected text, came {type(value).__name__}")
    return exact(_as_json(value, field), field)


def exact(value: str, field: str) -> str:
    """The text itself; raises FieldError where it could not be stored as it is."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise FieldError(field, "lone_surrogate", f"expected Unicode text: {error}") from error
    if "\0" in value:
        detail = f"expected text without NUL, came one at character {value.index(chr(0))}"
        raise FieldError(field, "nul_character", detail)
    return value


def time(values: Mapping[str, Any], name: str | None) -> datetime | None:
    """The column as a moment, in UTC where it names no zone; None where it is empty."""
    if name is None:
        return None
    return as_time(column(values, name), name)


def as_time(value: object, field: str) -> datetime | None:
    """An ISO 8601 text as a moment; None for nothing."""
    if value in (None, ""):
        return None
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
        zoned = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return zoned.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        detail = f"expected an ISO 8601 time, came {shown(value)}"
        raise FieldError(field, "invalid_time", detail) from error


def objects(value: object, field: str) -> list[dict[str, Any]]:
    """The list of objects that the field must be."""
    if not isinstance(value, list):
        detail = f"expected a list of objects, came {type(value).__name__}"
        raise FieldError(field, "wrong_type", detail)
    for index, item in enumerate(value):
        if not isinstance(item, dict):
            detail = f"expected an object, came {type(item).__name__}"
            raise FieldError(f"{field}[{index}]", "wrong_type", detail)
    return value


def an_object(values: Mapping[str, Any], path: str) -> dict[str, Any]:
    """The object that the column must be."""
    value = column(values, path)
    if not isinstance(value, dict):
        raise FieldError(path, "wrong_type", f"expected an object, came {type(value).__name__}")
    return value


def shown(value: object) -> str:
    """The value for a message: not all of it, and not the digits that Python refuses to write."""
    try:
        return repr(value)[:100]
    except (ValueError, RecursionError):
        return type(value).__name__


def names(**values: object) -> dict[str, str]:
    """Identifiers for an example's meta; what is no text or whole number is left out."""
    return {
        key: as_text(value, key)
        for key, value in values.items()
        if isinstance(value, str | int) and not isinstance(value, bool)
    }


def _render(values: Mapping[str, Any], template: str) -> str:
    compiled = _compiled(template)
    try:
        return str(compiled.render(values))
    except (*_ROW_ERRORS, FieldError) as error:
        detail = f"expected columns that the template can render: {error}"
        raise FieldError(template, "template_failed", detail) from error


@lru_cache(maxsize=64)
def _compiled(template: str) -> Any:
    try:
        return _ENVIRONMENT.from_string(template)
    except TemplateSyntaxError as error:
        raise ConfigError(
            f"The template {template!r} in a source's `columns` is not Jinja2: {error.message}"
        ) from error


def _as_json(value: object, field: str) -> str:
    try:
        return _dumps(value)
    except (TypeError, ValueError, RecursionError) as error:  # deeper than Python can follow
        raise FieldError(field, "wrong_type", f"expected JSON-ready data: {error}") from error


def _printable(value: str) -> str:
    return value.encode("utf-8", "backslashreplace").decode()
