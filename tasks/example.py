"""The one data type of the pipeline, and how a list of it becomes an Arrow table and back."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, get_args

import pyarrow as pa

Role = Literal["system", "user", "assistant", "tool"]
Source = Literal["human", "annotation", "production", "synthetic", "hub"]
ROLES: tuple[str, ...] = get_args(Role)
GENERAL = "general"  # key in the meta of general instructions, with the value "yes"

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.large_string())]))),
        ("source", pa.string()),
        ("group", pa.string()),
        ("created_at", pa.timestamp("us", tz="UTC")),
        ("label", pa.string()),
        ("meta", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation, in OpenAI's chat form."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Example:
    """A conversation whose last turn is the right answer.

    ``id`` is the SHA-256 of the content as it was ingested, and stays when cleaning redacts it, so
    that a rejected or redacted row can be traced to its snapshot. ``group`` names the document,
    conversation or customer that a split must not cut. ``meta`` holds where the row came from.
    """

    id: str
    messages: tuple[Message, ...]
    source: str
    group: str
    created_at: datetime | None = None
    label: str | None = None
    meta: Mapping[str, str] = field(default_factory=dict)

    @property
    def prompt(self) -> str:
        """The user's turns, joined: what duplicates and leaks are measured on."""
        return "\n".join(m.content for m in self.messages if m.role == "user")

    @property
    def answer(self) -> str:
        """The last turn: what the model is to learn."""
        return self.messages[-1].content if self.messages else ""


def normalise(text: str) -> str:
    """Compatibility-composed, lower case, white space collapsed: equal for exact duplicates."""
    return " ".join(unicodedata.normalize("NFKC", text).lower().split())


def content_id(messages: Sequence[Message]) -> str:
    """SHA-256 of the normalised conversation; the system turn is the task's, not the example's."""
    turns = [[m.role, normalise(m.content)] for m in messages if m.role != "system"]
    return hashlib.sha256(json.dumps(turns, ensure_ascii=False).encode()).hexdigest()


def to_table(examples: Iterable[Example]) -> pa.Table:
    """The examples as an Arrow table with the columns of ``SCHEMA``."""
    rows = [
        {
            "id": e.id,
            "messages": [{"role": m.role, "content": m.content} for m in e.messages],
            "source": e.source,
            "group": e.group,
            "created_at": e.created_at,
            "label": e.label,
            "meta": json.dumps(dict(e.meta), ensure_ascii=False, sort_keys=True),
        }
        for e in examples
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def from_table(table: pa.Table) -> list[Example]:
    """The examples of a table written by ``to_table``; further columns are ignored."""
    return [
        Example(
            id=row["id"],
            messages=tuple(Message(m["role"], m["content"]) for m in row["messages"]),
            source=row["source"],
            group=row["group"],
            created_at=row["created_at"],
            label=row["label"],
            meta=json.loads(row["meta"]),
        )
        for row in table.select(SCHEMA.names).to_pylist()
    ]
