"""Form of a conversation and of its answer: roles, their order, JSON, schema, length in tokens."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from tasks.artifacts import TaskConfig
from tasks.clean.calls import CALLS, call_findings, is_calling, roles_with_calls
from tasks.clean.rows import Finding, Indices, Rows
from tasks.errors import ConfigError
from tasks.example import ROLES

Verdict = tuple[str, str] | None
CountTokens = Callable[[list[str]], list[int]]

_SEPARATOR = "\x1f"  # no role holds it: rows of unknown roles are judged before
_TOOLS = f"(?:{CALLS}\x1f(?:tool\x1f)+)*"
_IN_ORDER = re.compile(
    f"(?:system\x1f)?(?:user\x1f{_TOOLS}assistant\x1f)*user\x1f{_TOOLS}(?:assistant|{CALLS})\x1f"
)
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
    """Known roles, user and assistant in turn after an optional system turn, nothing empty.

    Between them the assistant may call tools, which answer; a turn that calls may say nothing.
    """
    turns = rows.turns
    unknown = np.asarray(pc.invert(pc.is_in(turns.roles, pa.array(ROLES))))
    stripped = pc.utf8_trim_whitespace(turns.contents)
    empty = np.asarray(pc.and_not(pc.fill_null(pc.equal(stripped, ""), True), is_calling(rows)))
    found: dict[int, Finding] = {}
    for index, turn in _first_of_each_row(turns.row_of, unknown):
        came = turns.roles[turn].as_py()
        detail = f"expected one of {', '.join(ROLES)}, came {came!r}"
        found[index] = Finding(index, "unknown_role", detail)
    for index, turn in _first_of_each_row(turns.row_of, empty):
        reason = f"empty_{turns.roles[turn].as_py()}_turn"
        found.setdefault(index, Finding(index, reason, "expected text, came nothing"))
    for finding in (*_out_of_order(rows), *call_findings(rows)):
        found.setdefault(finding.index, finding)
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


def _out_of_order(rows: Rows) -> Iterable[Finding]:
    """Rows by their sequence of roles: a million rows have a handful of them."""
    by_row = pa.LargeListArray.from_arrays(pa.array(rows.turns.offsets), roles_with_calls(rows))
    sequences = pc.binary_join(by_row, _SEPARATOR).dictionary_encode()
    faults = [_order_fault(joined) for joined in sequences.dictionary.to_pylist()]
    is_wrong = np.array([fault is not None for fault in faults], dtype=bool)
    codes = np.asarray(sequences.indices)
    for index in np.flatnonzero(is_wrong[codes]).tolist():
        if fault := faults[codes[index]]:
            yield Finding(index, *fault)


def _order_fault(joined: str) -> Verdict:
    if _IN_ORDER.fullmatch(joined + _SEPARATOR):
        return None
    roles = joined.split(_SEPARATOR) if joined else []
    came = ", ".join("assistant with calls" if r == CALLS else r for r in roles) or "no turn"
    for before, role in pairwise(["", *roles]):
        if role == "tool" and before not in (CALLS, "tool"):
            return "tool_turn_without_call", f"expected a call before a tool's turn; came {came}"
        if before == CALLS and role != "tool":
            return "tool_call_unanswered", f"expected a tool's turn after a call; came {came}"
    detail = f"expected user and assistant in turn, the assistant last; came {came}"
    return "turns_out_of_order", detail


def _answer_findings(
    rows: Rows, without: dict[int, Finding], check: Callable[[str], Verdict]
) -> Iterable[Finding]:
    """Each distinct answer is parsed once; a call of a tool has a schema of its own."""
    judged = np.setdiff1d(np.flatnonzero(~np.asarray(rows.answers_by_call)), list(without))
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
    counted here: the stage ``format`` knows the template, and how it writes tools.
    """
    turns = rows.turns
    sizes = _bytes(turns.contents) + _bytes(turns.tool_calls)
    most = _sums(sizes + _TURN_MARGIN, turns.offsets) + _bytes(rows.tools)
    candidates = np.setdiff1d(np.flatnonzero(most > max_tokens), list(without))
    for start in range(0, len(candidates), _BATCH_ROWS):
        batch = candidates[start : start + _BATCH_ROWS]
        first, end = turns.offsets[batch], turns.offsets[batch + 1]
        chosen = np.concatenate([np.arange(*span) for span in zip(first, end, strict=True)])
        counts = np.array(count_tokens(turns.contents.take(pa.array(chosen)).to_pylist()))
        totals = _sums(counts, np.concatenate([[0], np.cumsum(end - first)]))
        totals = totals + _tool_tokens(rows, batch, count_tokens)
        for position in np.flatnonzero(totals > max_tokens).tolist():
            detail = f"{totals[position]} tokens, at most {max_tokens} are allowed"
            yield Finding(int(batch[position]), "too_long", detail)


def _tool_tokens(rows: Rows, batch: Indices, count_tokens: CountTokens) -> Indices:
    """Tokens of the calls and definitions of each of these rows, as JSON."""
    turns = rows.turns
    totals = np.zeros(len(batch), dtype=np.int64)
    for position, index in enumerate(batch.tolist()):
        calls = turns.tool_calls[turns.offsets[index] : turns.offsets[index + 1]]
        texts = [
            *calls.drop_null().to_pylist(),
            *rows.tools[index : index + 1].drop_null().to_pylist(),
        ]
        if texts:
            totals[position] = sum(count_tokens(texts))
    return totals


def _bytes(texts: pa.Array) -> Indices:
    return np.asarray(pc.fill_null(pc.binary_length(texts), 0), dtype=np.int64)


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
