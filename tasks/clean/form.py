"""Form of a conversation and of its answer. A check answers None, or (reason, detail)."""

from __future__ import annotations

import json
from collections.abc import Callable

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from tasks.artifacts import TaskConfig
from tasks.errors import ConfigError
from tasks.example import ROLES, Example

Verdict = tuple[str, str] | None
Check = Callable[[Example], Verdict]


def form_check(task: TaskConfig) -> Check:
    """The checks that a task's examples must pass: turns first, then the answer."""
    validator = _validator(task)
    if task.kind == "structured":
        return lambda example: check_turns(example) or _check_answer(example, validator)
    return check_turns


def check_turns(example: Example) -> Verdict:
    """Known roles, user and assistant in turn after an optional system turn, nothing empty."""
    roles = [m.role for m in example.messages]
    unknown = [role for role in roles if role not in ROLES]
    if unknown:
        return "unknown_role", f"expected one of {', '.join(ROLES)}, came {unknown[0]!r}"
    empty = [m.role for m in example.messages if not m.content.strip()]
    if empty:
        return f"empty_{empty[0]}_turn", "expected text, came nothing"
    turns = [role for role in roles[roles[:1] == ["system"] :] if role != "tool"]
    expected = ["user", "assistant"] * (len(turns) // 2)
    if not turns or turns != expected:
        return "turns_out_of_order", (
            f"expected user and assistant in turn, the assistant last; came {', '.join(roles)}"
        )
    return None


def _check_answer(example: Example, validator: Draft202012Validator) -> Verdict:
    try:
        answer = json.loads(example.answer, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        return "answer_not_json", f"expected a JSON object: {error}"
    if not isinstance(answer, dict):
        return "answer_not_json", f"expected a JSON object, came {type(answer).__name__}"
    violation = next(validator.iter_errors(answer), None)
    if violation is not None:
        return "answer_off_schema", f"{violation.json_path}: {violation.message}"
    return None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _validator(task: TaskConfig) -> Draft202012Validator:
    schema = task.answer_schema or {"type": "object"}
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise ConfigError(f"task.answer_schema is not a JSON Schema: {error.message}") from error
    return Draft202012Validator(schema)
