"""The examples as Arrow columns, and the views of them that the checks read.

A million rows as Python objects do not fit where a million rows as columns do. Checks are handed
Arrow arrays and hand back indices or Arrow arrays, so that another engine can call them unchanged.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tasks.example import MESSAGE, SCHEMA

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Finding:
    """A row that a check speaks against: its index, a stable reason and the evidence."""

    index: int
    reason: str
    detail: str


@dataclass(frozen=True)
class Turns:
    """All turns of all rows, one after the other.

    Row ``i`` has the turns ``offsets[i]`` to ``offsets[i + 1]``; ``row_of`` is the row of each.
    ``tool_calls`` and ``tool_call_ids`` are null where a turn has none.
    """

    offsets: Indices
    roles: pa.StringArray
    contents: pa.LargeStringArray
    tool_calls: pa.LargeStringArray
    tool_call_ids: pa.StringArray

    @cached_property
    def row_of(self) -> Indices:
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))


@dataclass(frozen=True)
class Rows:
    """A table with the columns of ``tasks.example.SCHEMA``, in one chunk a column.

    A table from before there were tools in it gets their columns, empty.
    """

    table: pa.Table

    def __post_init__(self) -> None:
        table = self.table
        at = table.schema.get_field_index("messages")
        if table.schema.field(at).type != SCHEMA.field("messages").type:
            messages = table.column(at).cast(SCHEMA.field("messages").type)
            table = table.set_column(at, SCHEMA.field("messages"), messages)
        if "tools" not in table.column_names:
            nulls = pa.nulls(len(table), SCHEMA.field("tools").type)
            table = table.append_column(SCHEMA.field("tools"), nulls)
        object.__setattr__(self, "table", table.combine_chunks())

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @cached_property
    def turns(self) -> Turns:
        """Every turn with its role and content."""
        messages = _one_chunk(self.table, "messages")
        offsets = np.asarray(messages.offsets, dtype=np.int64)
        flat = messages.flatten()
        return Turns(offsets - offsets[0], *(flat.field(field.name) for field in MESSAGE))

    @cached_property
    def prompts(self) -> pa.LargeStringArray:
        """The user's turns of each row, joined by line ends, as ``Example.prompt``."""
        return self._joined(self.turns.contents, pc.equal(self.turns.roles, "user"))

    @cached_property
    def asked(self) -> pa.LargeStringArray:
        """All that an answer rests on and that rows differ in: ``prompts``, and where tools are
        called what was called and what came back."""
        turns = self.turns
        is_last = np.zeros(len(turns.roles), dtype=bool)
        is_last[self.turns.offsets[1:][np.diff(self.turns.offsets) > 0] - 1] = True
        calls = pc.is_valid(turns.tool_calls)
        chosen = pc.or_(pc.is_in(turns.roles, pa.array(["user", "tool"])), calls)
        chosen = pc.and_(chosen, pc.or_(pc.equal(turns.roles, "user"), pa.array(~is_last)))
        return self._joined(self._said, chosen)

    @cached_property
    def answers(self) -> pa.LargeStringArray:
        """The last turn of each row, empty for a row without turns, as ``Example.answer``.

        Of a turn with calls its text, if any, and below it the calls without their ids.
        """
        return pc.fill_null(self._last(self._said), "")

    @cached_property
    def answers_by_call(self) -> pa.BooleanArray:
        """Whether the last turn of each row calls a tool."""
        return pc.fill_null(self._last(pc.is_valid(self.turns.tool_calls)), False)

    @cached_property
    def tools(self) -> pa.LargeStringArray:
        """The definitions that each row has, null where it has none."""
        return self.column("tools")

    @cached_property
    def _said(self) -> pa.LargeStringArray:
        """The text of each turn with its calls, as ``Example.answer`` writes them."""
        turns = self.turns
        calling = pc.is_valid(turns.tool_calls)
        pairs = zip(
            turns.contents.filter(calling).to_pylist(),
            turns.tool_calls.filter(calling).to_pylist(),
            strict=True,
        )
        said = pa.array([said_with_calls(*pair) for pair in pairs], turns.contents.type)
        return pc.replace_with_mask(turns.contents, calling, said)

    def _joined(self, texts: pa.Array, chosen: pa.Array) -> pa.LargeStringArray:
        """Of each row the texts of the chosen turns, joined by line ends."""
        counts = np.zeros(len(self) + 1, dtype=np.int64)
        np.add.at(counts[1:], self.turns.row_of[np.asarray(chosen)], 1)
        offsets = pa.array(np.cumsum(counts), pa.int32())
        lists = pa.ListArray.from_arrays(offsets, texts.filter(chosen))
        return pc.binary_join(lists, pa.scalar("\n", pa.large_string()))

    def _last(self, of_turns: pa.Array) -> pa.Array:
        """The value of each row's last turn, null for a row without turns."""
        ends = self.turns.offsets[1:]
        has_turns = ends > self.turns.offsets[:-1]
        return of_turns.take(pa.array(ends - 1, mask=~has_turns))

    def column(self, name: str) -> pa.Array:
        """A column as one array."""
        return _one_chunk(self.table, name)

    def select(self, indices: Indices) -> Rows:
        """These rows, in this order."""
        return Rows(self.table.take(pa.array(indices)))

    def without(self, indices: Indices) -> Rows:
        """All rows but these, in their order."""
        stays = np.ones(len(self), dtype=bool)
        stays[indices] = False
        return Rows(self.table.filter(pa.array(stays)))

    def with_contents(self, contents: pa.Array, tool_calls: pa.Array | None = None) -> Rows:
        """The same rows with other texts in their turns, given for all turns in order.

        ``tool_calls``: other calls too; None leaves them as they are.
        """
        turns = self.turns
        calls = turns.tool_calls if tool_calls is None else tool_calls
        messages = pa.ListArray.from_arrays(
            pa.array(turns.offsets, pa.int32()),
            pa.StructArray.from_arrays(
                [turns.roles, contents, calls, turns.tool_call_ids], fields=list(MESSAGE)
            ),
        )
        return self.with_column("messages", messages)

    def with_column(self, name: str, values: pa.Array) -> Rows:
        """The same rows with another column of this name."""
        index = self.table.schema.get_field_index(name)
        return Rows(self.table.set_column(index, self.table.schema.field(index), values))

    def place(self, index: int) -> str:
        """Where a row came from: ``file:line``."""
        meta: dict[str, Any] = json.loads(self.column("meta")[index].as_py())
        return f"{meta.get('file', '?')}:{meta.get('line', '?')}"


def said_with_calls(content: str, tool_calls: str) -> str:
    """A turn that calls tools as one text: its content, and below it the calls without ids.

    An id is drawn at random: two turns that call the same say the same.
    """
    calls = [call["function"] for call in json.loads(tool_calls)]
    text = json.dumps(calls, ensure_ascii=False)
    return f"{content}\n{text}" if content else text


def _one_chunk(table: pa.Table, name: str) -> pa.Array:
    column = table.column(name)
    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
