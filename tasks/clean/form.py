"""Form of a conversation and of its answer: roles, their order, JSON, schema, length in tokens."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from tasks.artifacts import TaskConfig
from tasks.clean.rows import Finding, Indices, Rows
from tasks.errors import ConfigError
from tasks.example import ROLES

Verdict = tuple[str, str] | None
CountTokens = Callable[[list[str]], list[int]]

_SEPARATOR = "\x1f"  # no role holds it: rows of unknown roles are judged before
_BATCH_ROWS = 1024
# Tokens of a turn beyond its bytes: a mark of its begin, and the space that SentencePiece prepends.
_TURN_MARGIN = 4


def form_findings(
    rows: Rows, task: TaskConfig, max_tokens: int, count_tokens: CountTokens | None
) -> list[Finding]:
    """The rows of wrong form, in their order, each with the first thing that is wrong.

    Turns come first, then the answer of a structured task, then the length. Without
    ``count_tokens`` the length is not judged. Raises ConfigError for a schema that is none.
    """
    check = answer_check(task)
    found = {f.index: f for f in turn_findings(rows)}
    if task.kind == "structured":
        found |= {f.index: f for f in _answer_findings(rows, found, check)}
    if count_tokens is not None:
        found |= {f.index: f for f in _length_findings(rows, found, max_tokens, count_tokens)}
    return [found[index] for index in sorted(found)]


def turn_findings(rows: Rows) -> list[Finding]:
    """Known roles, user and assistant in turn after an optional system turn, nothing empty."""
    turns = rows.turns
    unknown = np.asarray(pc.invert(pc.is_in(turns.roles, pa.array(ROLES))))
    stripped = pc.utf8_trim_whitespace(turns.contents)
    empty = np.asarray(pc.fill_null(pc.equal(stripped, ""), True))
    found: dict[int, Finding] = {}
    for index, turn in _first_of_each_row(turns.row_of, unknown):
        came = turns.roles[turn].as_py()
        detail = f"expected one of {', '.join(ROLES)}, came {came!r}"
        found[index] = Finding(index, "unknown_role", detail)
    for index, turn in _first_of_each_row(turns.row_of, empty):
        reason = f"empty_{turns.roles[turn].as_py()}_turn"
        found.setdefault(index, Finding(index, reason, "expected text, came nothing"))
    for index, detail in _out_of_order(rows):
        found.setdefault(index, Finding(index, "turns_out_of_order", detail))
    return [found[index] for index in sorted(found)]


def answer_check(task: TaskConfig) -> Callable[[str], Verdict]:
    """What a structured answer must pass: a JSON object that meets the task's schema."""
    validator = _validator(task)

    def check(text: str) -> Verdict:
        try:
            answer = json.loads(text, parse_constant=_refuse)
        except (ValueError, RecursionError) as error:
            return "answer_not_json", f"expected a JSON object: {error}"
        if not isinstance(answer, dict):
            return "answer_not_json", f"expected a JSON object, came {type(answer).__name__}"
        violation = next(validator.iter_errors(answer), None)
        if violation is not None:
            return "answer_off_schema", f"{violation.json_path}: {violation.message}"
        return None

    return check


def _first_of_each_row(row_of: Indices, wrong: npt.NDArray[np.bool_]) -> Iterable[tuple[int, int]]:
    """(row, turn) of the first wrong turn of each row that has one."""
    turns = np.flatnonzero(wrong)
    rows, first = np.unique(row_of[turns], return_index=True)
    return zip(rows.tolist(), turns[first].tolist(), strict=True)


def _out_of_order(rows: Rows) -> Iterable[tuple[int, str]]:
    """Rows by their sequence of roles: a million rows have a handful of them."""
    turns = rows.turns
    by_row = pa.LargeListArray.from_arrays(pa.array(turns.offsets), turns.roles)
    sequences = pc.binary_join(by_row, _SEPARATOR).dictionary_encode()
    details = [_order_fault(joined) for joined in sequences.dictionary.to_pylist()]
    is_wrong = np.array([detail is not None for detail in details], dtype=bool)
    codes = np.asarray(sequences.indices)
    for index in np.flatnonzero(is_wrong[codes]).tolist():
        yield index, details[codes[index]] or ""


def _order_fault(joined: str) -> str | None:
    roles = joined.split(_SEPARATOR) if joined else []
    turns = [role for role in roles[roles[:1] == ["system"] :] if role != "tool"]
    if turns and turns == ["user", "assistant"] * (len(turns) // 2):
        return None
    came = ", ".join(roles) or "no turn"
    return f"expected user and assistant in turn, the assistant last; came {came}"


def _answer_findings(
    rows: Rows, without: dict[int, Finding], check: Callable[[str], Verdict]
) -> Iterable[Finding]:
    """Each distinct answer is parsed once."""
    judged = np.setdiff1d(np.arange(len(rows)), list(without))
    answers = rows.answers.take(pa.array(judged)).dictionary_encode()
    verdicts = [check(answer.as_py()) for answer in answers.dictionary]
    is_wrong = np.array([verdict is not None for verdict in verdicts], dtype=bool)
    codes = np.asarray(answers.indices)
    for position in np.flatnonzero(is_wrong[codes]).tolist():
        if verdict := verdicts[codes[position]]:
            yield Finding(int(judged[position]), *verdict)


def _length_findings(
    rows: Rows, without: dict[int, Finding], max_tokens: int, count_tokens: CountTokens
) -> Iterable[Finding]:
    """Rows of more tokens than allowed; only rows of more bytes than that are tokenised.

    A token of a byte-level tokenizer stands for at least one byte, and so does one of
    SentencePiece with byte fallback, but for a constant a turn. The template's own tokens are not
    counted here: the stage ``format`` knows the template.
    """
    turns = rows.turns
    sizes = np.asarray(pc.fill_null(pc.binary_length(turns.contents), 0), dtype=np.int64)
    most = _sums(sizes + _TURN_MARGIN, turns.offsets)
    candidates = np.setdiff1d(np.flatnonzero(most > max_tokens), list(without))
    for start in range(0, len(candidates), _BATCH_ROWS):
        batch = candidates[start : start + _BATCH_ROWS]
        first, end = turns.offsets[batch], turns.offsets[batch + 1]
        chosen = np.concatenate([np.arange(*span) for span in zip(first, end, strict=True)])
        counts = np.array(count_tokens(turns.contents.take(pa.array(chosen)).to_pylist()))
        totals = _sums(counts, np.concatenate([[0], np.cumsum(end - first)]))
        for position in np.flatnonzero(totals > max_tokens).tolist():
            detail = f"{totals[position]} tokens, at most {max_tokens} are allowed"
            yield Finding(int(batch[position]), "too_long", detail)


def _sums(values: Indices, offsets: Indices) -> Indices:
    """Sum of the values of each row."""
    ends = np.concatenate([[0], np.cumsum(values)])
    return np.asarray(ends[offsets[1:]] - ends[offsets[:-1]])


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _validator(task: TaskConfig) -> Draft202012Validator:
    schema = task.answer_schema or {"type": "object"}
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise ConfigError(f"task.answer_schema is not a JSON Schema: {error.message}") from error
    return Draft202012Validator(schema)
