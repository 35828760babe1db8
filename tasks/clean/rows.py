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
    """

    offsets: Indices
    roles: pa.StringArray
    contents: pa.LargeStringArray

    @cached_property
    def row_of(self) -> Indices:
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))


@dataclass(frozen=True)
class Rows:
    """A table with the columns of ``tasks.example.SCHEMA``, in one chunk a column."""

    table: pa.Table

    def __post_init__(self) -> None:
        object.__setattr__(self, "table", self.table.combine_chunks())

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @cached_property
    def turns(self) -> Turns:
        """Every turn with its role and content."""
        messages = _one_chunk(self.table, "messages")
        offsets = np.asarray(messages.offsets, dtype=np.int64)
        flat = messages.flatten()
        return Turns(offsets - offsets[0], flat.field("role"), flat.field("content"))

    @cached_property
    def prompts(self) -> pa.LargeStringArray:
        """The user's turns of each row, joined by line ends, as ``Example.prompt``."""
        turns = self.turns
        is_user = pc.equal(turns.roles, "user")
        counts = np.zeros(len(self) + 1, dtype=np.int64)
        np.add.at(counts[1:], turns.row_of[np.asarray(is_user)], 1)
        users = pa.ListArray.from_arrays(
            pa.array(np.cumsum(counts), pa.int32()), turns.contents.filter(is_user)
        )
        return pc.binary_join(users, pa.scalar("\n", pa.large_string()))

    @cached_property
    def answers(self) -> pa.LargeStringArray:
        """The last turn of each row, empty for a row without turns, as ``Example.answer``."""
        ends = self.turns.offsets[1:]
        has_turns = ends > self.turns.offsets[:-1]
        last = pa.array(ends - 1, mask=~has_turns)
        return pc.fill_null(self.turns.contents.take(last), "")

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

    def with_contents(self, contents: pa.Array) -> Rows:
        """The same rows with other texts in their turns, given for all turns in order."""
        turns = self.turns
        messages = pa.ListArray.from_arrays(
            pa.array(turns.offsets, pa.int32()),
            pa.StructArray.from_arrays([turns.roles, contents], names=["role", "content"]),
        )
        index = self.table.schema.get_field_index("messages")
        return Rows(self.table.set_column(index, self.table.schema.field(index), messages))

    def place(self, index: int) -> str:
        """Where a row came from: ``file:line``."""
        meta: dict[str, Any] = json.loads(self.column("meta")[index].as_py())
        return f"{meta.get('file', '?')}:{meta.get('line', '?')}"


def _one_chunk(table: pa.Table, name: str) -> pa.Array:
    column = table.column(name)
    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
