"""The one data type of the pipeline, and how a list of it becomes an Arrow table and back."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Literal, get_args

import pyarrow as pa

Role = Literal["system", "user", "assistant", "tool"]
Source = Literal["human", "annotation", "production", "synthetic", "hub"]
ROLES: tuple[str, ...] = get_args(Role)
GENERAL = "general"  # key in the meta of general instructions, with the value "yes"

MESSAGE = pa.struct(
    [
        ("role", pa.string()),
        ("content", pa.large_string()),
        ("tool_calls", pa.large_string()),
        ("tool_call_id", pa.string()),
    ]
)
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("messages", pa.list_(MESSAGE)),
        ("source", pa.string()),
        ("group", pa.string()),
        ("created_at", pa.timestamp("us", tz="UTC")),
        ("label", pa.string()),
        ("meta", pa.string()),
        ("tools", pa.large_string()),
    ]
)


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation, in OpenAI's chat form.

    ``tool_calls`` is the canonical JSON text of OpenAI's list, each function's arguments an object;
    ``tool_call_id`` names the call that a turn of the role ``tool`` answers.
    """

    role: str
    content: str
    tool_calls: str | None = None
    tool_call_id: str | None = None

    def as_chat(self) -> dict[str, Any]:
        """The turn as chat templates and APIs read it; what it does not have is left out."""
        chat: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.tool_calls is not None:
            chat["tool_calls"] = json.loads(self.tool_calls)
        if self.tool_call_id is not None:
            chat["tool_call_id"] = self.tool_call_id
        return chat


@dataclass(frozen=True, slots=True)
class Example:
    """A conversation whose last turn is the right answer.

    ``id`` is the SHA-256 of the content as it was ingested, and stays when cleaning redacts it, so
    that a rejected or redacted row can be traced to its snapshot. ``group`` names the document,
    conversation or customer that a split must not cut. ``meta`` holds where the row came from.
    ``tools`` is the canonical JSON text of the functions that the model may call.
    """

    id: str
    messages: tuple[Message, ...]
    source: str
    group: str
    created_at: datetime | None = None
    label: str | None = None
    meta: Mapping[str, str] = field(default_factory=dict)
    tools: str | None = None

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


def content_id(messages: Sequence[Message], tools: str | None = None) -> str:
    """SHA-256 of the normalised conversation; the system turn is the task's, not the example's.

    Tools and their calls count as they are written; without them the id is that of the texts.
    """
    turns: list[object] = [_identity(m) for m in messages if m.role != "system"]
    if tools is not None:
        turns.append(["tools", tools])
    return hashlib.sha256(json.dumps(turns, ensure_ascii=False).encode()).hexdigest()


def _identity(message: Message) -> list[str]:
    calls = [text for text in (message.tool_calls, message.tool_call_id) if text is not None]
    return [message.role, normalise(message.content), *calls]


def to_table(examples: Iterable[Example]) -> pa.Table:
    """The examples as an Arrow table with the columns of ``SCHEMA``."""
    rows = [
        {
            "id": e.id,
            "messages": [asdict(m) for m in e.messages],
            "source": e.source,
            "group": e.group,
            "created_at": e.created_at,
            "label": e.label,
            "meta": json.dumps(dict(e.meta), ensure_ascii=False, sort_keys=True),
            "tools": e.tools,
        }
        for e in examples
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def from_table(table: pa.Table) -> list[Example]:
    """The examples of a table written by ``to_table``; further columns are ignored."""
    return [
        Example(
            id=row["id"],
            messages=tuple(Message(**m) for m in row["messages"]),
            source=row["source"],
            group=row["group"],
            created_at=row["created_at"],
            label=row["label"],
            meta=json.loads(row["meta"]),
            tools=row.get("tools"),
        )
        for row in table.select([n for n in SCHEMA.names if n in table.column_names]).to_pylist()
    ]
