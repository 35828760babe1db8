"""Examples made by hand."""

from __future__ import annotations

from datetime import datetime

from tasks.example import Example, Message, content_id


def make_example(
    prompt: str,
    answer: str = "We are sorry.",
    *,
    source: str = "human",
    group: str | None = None,
    created_at: datetime | None = None,
    line: int = 1,
    **meta: str,
) -> Example:
    turns = (Message("user", prompt), Message("assistant", answer))
    identity = content_id(turns)
    return Example(
        identity,
        turns,
        source,
        group or identity,
        created_at,
        meta={"file": "rows.csv", "line": str(line), **meta},
    )
