"""What the columns say of tools: who calls which, who answers whom, and what a call reads like."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.clean.rows import Finding, Indices, Rows

CALLS = "calls"  # an assistant's turn that calls, where a sequence of roles is judged


def roles_with_calls(rows: Rows) -> pa.StringArray:
    """The role of each turn, ``calls`` for an assistant's turn that calls a tool."""
    turns = rows.turns
    return pc.if_else(is_calling(rows), CALLS, turns.roles)


def is_calling(rows: Rows) -> pa.BooleanArray:
    """Whether each turn is the assistant's and calls a tool."""
    turns = rows.turns
    return pc.and_(pc.is_valid(turns.tool_calls), pc.equal(turns.roles, "assistant"))


def call_findings(rows: Rows) -> Iterable[Finding]:
    """The rows whose calls and answers do not fit together, each with the first such fault.

    Every call is answered before the next turn that is no tool's, but for calls that are the row's
    answer; every answer names a call of the turn before; what is called is defined where the row
    has definitions. Without ids calls are answered in their order.
    """
    turns = rows.turns
    tools = rows.tools
    for index in rows_with_tools(rows).tolist():
        first, end = turns.offsets[index], turns.offsets[index + 1]
        made = [_calls(text.as_py()) for text in turns.tool_calls[first:end]]
        answered = turns.tool_call_ids[first:end].to_pylist()
        roles = turns.roles[first:end].to_pylist()
        fault = _definition_fault(made, tools[index].as_py()) or _fault(roles, made, answered)
        if fault is not None:
            yield Finding(index, *fault)


def rows_with_tools(rows: Rows) -> Indices:
    """Which rows have a call or a tool's turn."""
    turns = rows.turns
    has = np.asarray(pc.or_(pc.is_valid(turns.tool_calls), pc.equal(turns.roles, "tool")))
    return np.unique(turns.row_of[np.flatnonzero(has)])


def _definition_fault(
    made: Sequence[list[dict[str, Any]]], tools: str | None
) -> tuple[str, str] | None:
    if tools is None:
        return None
    defined = {tool["function"]["name"] for tool in json.loads(tools)}
    for called in (call["function"]["name"] for calls in made for call in calls):
        if called not in defined:
            known = ", ".join(sorted(defined))
            return "tool_not_defined", f"expected a call of one of {known}, came {called!r}"
    return None


def _fault(
    roles: Sequence[str], made: Sequence[list[dict[str, Any]]], answered: Sequence[str | None]
) -> tuple[str, str] | None:
    """What is wrong with the answers of one row, its turns being in order."""
    open_calls: list[str | None] = []
    num_answers = 0
    for role, calls, answer in zip(roles, made, answered, strict=True):
        if role == "tool":
            num_answers += 1
            if answer not in open_calls:
                came = "no id" if answer is None else repr(answer)
                detail = f"expected the id of a call that has no answer yet, came {came}"
                return "unknown_tool_call_id", detail
            open_calls.remove(answer)
            continue
        # One turn without an id may hold the answers of several calls, as ShareGPT's do.
        if any(i is not None for i in open_calls) or (open_calls and not num_answers):
            missing = ", ".join(repr(i) for i in open_calls if i is not None) or "any"
            return "tool_call_unanswered", f"expected an answer to each call, {missing} has none"
        open_calls, num_answers = [call.get("id") for call in calls], 0
        ids = [i for i in open_calls if i is not None]
        if len(set(ids)) < len(ids):
            return "duplicate_tool_call_id", f"expected an id of its own a call, came {ids}"
    return None


def _calls(text: str | None) -> list[dict[str, Any]]:
    calls: list[dict[str, Any]] = json.loads(text) if text else []
    return calls
