"""Rows -> examples by their source's config, in batches; what does not fit says why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC

from tasks.artifacts import TaskConfig
from tasks.example import Example
from tasks.ingest.config import SourceConfig
from tasks.ingest.mapping import Excluded, check_columns, is_wanted, to_examples
from tasks.ingest.rows import BadRow, Row

BATCH_ROWS = 1024
BATCH_BYTES = 4 * 2**20

Made = Example | BadRow | Excluded


@dataclass(slots=True)
class Batch:
    """Some of what rows became, in order."""

    examples: list[Example] = field(default_factory=list)
    quarantined: list[BadRow] = field(default_factory=list)
    excluded: list[Excluded] = field(default_factory=list)


def examples_of(
    rows: Iterator[Row | BadRow], source: SourceConfig, task: TaskConfig
) -> Iterator[Made]:
    """What the rows of one file become, of those that ``where`` wants."""
    unchecked = True
    for row in rows:
        if isinstance(row, BadRow):
            yield row
            continue
        if unchecked:
            check_columns(row, source)
            unchecked = False
        if is_wanted(row, source):
            for made in to_examples(row, source, task):
                yield _storable(made, row) if isinstance(made, Example) else made


def batches_of(made: Iterator[Made]) -> Iterator[Batch]:
    """In batches of a thousand, fewer when they are long."""
    batch, count, size = Batch(), 0, 0
    for one in made:
        count += 1
        if isinstance(one, Example):
            batch.examples.append(one)
            size += sum(len(m.content) + len(m.tool_calls or "") for m in one.messages)
            size += len(one.tools or "")
        elif isinstance(one, BadRow):
            batch.quarantined.append(one)
            size += len(one.raw)
        else:
            batch.excluded.append(one)
        if count >= BATCH_ROWS or size >= BATCH_BYTES:
            yield batch
            batch, count, size = Batch(), 0, 0
    if count:
        yield batch


def _storable(example: Example, row: Row) -> Example | BadRow:
    """The example, if everything that reads it later can: text databases refuse NUL."""
    for name, text in _texts(example):
        if "\0" in text:
            detail = "expected text without NUL, which text databases refuse"
            return BadRow(row.file, row.line, name, "nul_character", detail, row.raw)
        if not text.isascii():
            try:
                text.encode("utf-8")
            except UnicodeEncodeError as error:
                detail = f"expected Unicode text: {error}"
                return BadRow(row.file, row.line, name, "lone_surrogate", detail, row.raw)
    try:
        _ = example.created_at and example.created_at.astimezone(UTC)
    except (OverflowError, ValueError) as error:
        detail = f"expected a time in UTC: {error}"
        return BadRow(row.file, row.line, "created_at", "invalid_time", detail, row.raw)
    return example


def _texts(example: Example) -> Iterator[tuple[str, str]]:
    for index, message in enumerate(example.messages):
        yield f"messages[{index}].content", message.content
        yield f"messages[{index}].role", message.role
        if message.tool_calls is not None:
            yield f"messages[{index}].tool_calls", message.tool_calls
        if message.tool_call_id is not None:
            yield f"messages[{index}].tool_call_id", message.tool_call_id
    if example.tools is not None:
        yield "tools", example.tools
    yield "group", example.group
    if example.label is not None:
        yield "label", example.label
    for key, value in example.meta.items():
        yield f"meta.{key}", value
