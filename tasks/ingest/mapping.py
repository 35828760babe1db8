"""Row -> examples by a source's shape; a row that does not fit says which field and why.

Each row becomes examples, a ``BadRow`` for the quarantine, or an ``Excluded``: something readable
that is no example, such as a skipped annotation or an answer that its user rejected. All three are
counted, so that every row can be accounted for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from tasks.artifacts import TaskConfig
from tasks.errors import DataError
from tasks.example import GENERAL, Example, Message, content_id
from tasks.ingest import shapes
from tasks.ingest.argilla import argilla
from tasks.ingest.config import SourceConfig
from tasks.ingest.draft import Draft, Left, Made
from tasks.ingest.fields import FieldError, column, holds, is_template
from tasks.ingest.gateway_log import gateway_log
from tasks.ingest.label_studio import label_studio
from tasks.ingest.labelbox import labelbox
from tasks.ingest.rows import BadRow, Row
from tasks.ingest.scale import scale

_SHAPES: dict[str, Callable[[dict[str, Any], SourceConfig], Iterator[Made]]] = {
    "columns": shapes.columns,
    "chat": shapes.chat,
    "prompt_completion": shapes.prompt_completion,
    "alpaca": shapes.alpaca,
    "sharegpt": shapes.sharegpt,
    "label_studio": label_studio,
    "argilla": argilla,
    "labelbox": labelbox,
    "scale": scale,
    "gateway_log": gateway_log,
}
# Columns that a table of this shape must have where the config maps no others.
_USUAL: dict[str, dict[str, str]] = {
    "chat": {"messages": "messages"},
    "prompt_completion": {"user": "prompt", "assistant": "completion"},
    "alpaca": {"user": "instruction", "assistant": "output"},
    "sharegpt": {"messages": "conversations"},
}
_NESTED = (".jsonl", ".ndjson", ".json")


@dataclass(frozen=True, slots=True)
class Excluded:
    """Something in a row that is left out on purpose, with a stable reason. Counted, not lost."""

    file: str
    line: int
    reason: str


def to_examples(
    row: Row, source: SourceConfig, task: TaskConfig
) -> list[Example | BadRow | Excluded]:
    """What the row makes: never nothing.

    Of several annotators there may be several examples, and one ``Excluded`` for each annotation
    that does not count. A row that does not fit is one ``BadRow`` as a whole.
    """
    try:
        made = list(_SHAPES[source.shape](row.values, source))
    except FieldError as error:
        return [BadRow(row.file, row.line, error.field, error.reason, error.detail, row.raw)]
    return [
        Excluded(row.file, row.line, one.reason)
        if isinstance(one, Left)
        else _example(one, row, source, task)
        for one in made
    ]


def check_columns(row: Row, source: SourceConfig) -> None:
    """Raises DataError when a mapped column is missing from the first row of a CSV or Parquet.

    There a missing column is a wrong mapping, not a bad row: saying it once, before reading
    everything, is worth more than a quarantine full of the same sentence. Of JSON each object has
    its own columns, and an annotation tool's export is mapped by question.
    """
    if source.format in ("jsonl", "json") or _suffix(row.file) in _NESTED:
        return
    if source.shape not in ("columns", *_USUAL):
        return
    named = source.columns.model_dump(exclude_none=True)
    mapped = {**_USUAL.get(source.shape, {}), **named}
    if source.shape == "columns" and not {"messages", "user"} & set(named):
        mapped["messages"] = "messages"
    plain = [c for c in mapped.values() if not is_template(c)]
    missing = [name for name in [*plain, *source.where] if not holds(row.values, name)]
    if missing:
        raise DataError(
            f"{row.file}: column {missing[0]!r} is mapped in the config but not in the file, "
            f"which has {', '.join(map(repr, row.values))}. Correct the source's `columns`."
        )


def is_wanted(row: Row, source: SourceConfig) -> bool:
    """Whether the row has one of the values that ``where`` asks for."""
    return all(
        holds(row.values, name) and column(row.values, name) in values
        for name, values in source.where.items()
    )


def _suffix(file: str) -> str:
    """The ending of the file's name before that of its compression."""
    name = PurePosixPath(file.lower())
    return PurePosixPath(name.stem).suffix if name.suffix in (".gz", ".zst") else name.suffix


def _example(draft: Draft, row: Row, source: SourceConfig, task: TaskConfig) -> Example:
    """The draft as an example, its system turn from the task when it has none of its own."""
    identity = content_id(draft.messages, draft.tools)
    messages = draft.messages
    is_own = not source.general  # a general instruction is not to be answered as the task's are
    if is_own and task.system_prompt and not any(m.role == "system" for m in messages):
        messages = [Message("system", task.system_prompt), *messages]
    kind = {GENERAL: "yes"} if source.general else {}
    return Example(
        id=identity,
        messages=tuple(messages),
        source=source.source,
        group=draft.group or identity,
        created_at=draft.created_at,
        label=draft.label,
        meta={"file": row.file, "line": str(row.line), **draft.meta, **kind},
        tools=draft.tools,
    )
