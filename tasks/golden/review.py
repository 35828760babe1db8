"""A proposal on its way through a person's hands: JSON lines, a page to review them on, and back.

Every row has a ``status``: ``pending`` until someone sets ``accept``, ``reject`` or ``edit``. An
edited row is taken as it now stands; an accepted one must be as it was proposed.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from tasks.artifacts import Record
from tasks.errors import ConfigError, DataError, MissingFileError
from tasks.example import Message, content_id
from tasks.golden.propose import Proposed
from tasks.storage import file_digest

_PAGE = Path(__file__).with_name("review.html")
_ROWS = "__ROWS__"
# How the final file is to be read; printed with its digest for the config.
COLUMNS = {"messages": "messages", "group": "group", "created_at": "created_at", "label": "label"}


class Turn(Record):
    """One message of a row."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    tool_calls: str | None = Field(None, description="JSON text, as in an example; not for editing")
    tool_call_id: str | None = None

    def as_message(self) -> Message:
        return Message(self.role, self.content, self.tool_calls, self.tool_call_id)


class ReviewedRow(Record):
    """One line of the proposal."""

    status: Literal["pending", "accept", "reject", "edit"] = "pending"
    note: str = Field("", description="For the reviewer's own words; not kept in the set")
    stratum: str = ""
    id: str
    messages: tuple[Turn, ...] = Field(min_length=2)
    group: str
    created_at: datetime | None = None
    label: str | None = None
    tools: str | None = Field(None, description="JSON text, as in an example")


def rows_of(proposed: Sequence[Proposed], system_prompt: str | None) -> list[ReviewedRow]:
    """The proposal as pending rows; the task's own system turn is not part of a row."""
    return [
        ReviewedRow(
            stratum=" / ".join(part for part in p.stratum if part),
            # Of what is proposed: redaction may have changed what was ingested.
            id=content_id(p.example.messages, p.example.tools),
            messages=tuple(
                Turn.model_validate(asdict(m))
                for m in p.example.messages
                if (m.role, m.content) != ("system", system_prompt)
            ),
            group=p.example.group,
            created_at=p.example.created_at,
            label=p.example.label,
            tools=p.example.tools,
        )
        for p in proposed
    ]


def write_proposal(rows: Sequence[ReviewedRow], folder: Path) -> tuple[Path, Path]:
    """``golden_proposal.jsonl`` and ``golden_review.html``, the page that reviews it.

    Raises ConfigError rather than write over a review that someone has begun.
    """
    file, page = folder / "golden_proposal.jsonl", folder / "golden_review.html"
    if file.exists() and any(row.status != "pending" for row in read_reviewed(file)):
        raise ConfigError(f"{file}: its review has begun. Finish it, or move the file away.")
    folder.mkdir(parents=True, exist_ok=True)
    lines = [row.model_dump_json() for row in rows]
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    # In a script element only < can end it; everything else is JSON.
    embedded = f"[{','.join(lines)}]".replace("<", "\\u003c")
    page.write_text(_PAGE.read_text(encoding="utf-8").replace(_ROWS, embedded), encoding="utf-8")
    return file, page


def read_reviewed(file: Path) -> list[ReviewedRow]:
    """The rows of a proposal; raises DataError that names the line and the field."""
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise MissingFileError(
            f"{file}: no such file. Propose rows first, or name the reviewed file."
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: expected UTF-8: {error}") from error
    return [
        _row(line, f"{file.name}:{number}")
        for number, line in enumerate(text.split("\n"), start=1)
        if line.strip()
    ]


def accepted(rows: Sequence[ReviewedRow], name: str) -> list[ReviewedRow]:
    """The rows that a person accepted or edited.

    Raises DataError where a row is pending, was changed but not marked so, has no answer, or
    stands twice; and where none is left.
    """
    pending = [number for number, row in enumerate(rows, start=1) if row.status == "pending"]
    if pending:
        raise DataError(
            f"{name}: {len(pending)} of {len(rows)} rows are pending, the first is row "
            f"{pending[0]}. Set the status of each to accept, reject or edit."
        )
    kept = [(n, row) for n, row in enumerate(rows, start=1) if row.status in ("accept", "edit")]
    for number, row in kept:
        _check(row, f"{name}: row {number}")
    counts = Counter(_content(row) for _, row in kept)
    twice = [str(number) for number, row in kept if counts[_content(row)] > 1]
    if twice:
        raise DataError(f"{name}: the same row stands at {', '.join(twice)}. Reject all but one.")
    if not kept:
        raise DataError(f"{name}: no row was accepted, so nothing could decide a promotion.")
    return [row for _, row in kept]


def write_golden(rows: Sequence[ReviewedRow], file: Path) -> str:
    """The final golden set as JSON lines; answers the file's SHA-256.

    Raises ConfigError where the file is there already with other rows: a locked set stays.
    """
    lines = [json.dumps(_final(row), ensure_ascii=False) for row in rows]
    body = "".join(f"{line}\n" for line in lines).encode()
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with file.open("xb") as stream:
            stream.write(body)
    except FileExistsError as error:
        if file.read_bytes() != body:
            raise ConfigError(
                f"{file} is there already, with other rows. A locked set does not change: give "
                "the next version with --version and say why with --reason."
            ) from error
    return file_digest(file)


def _row(line: str, where: str) -> ReviewedRow:
    try:
        return ReviewedRow.model_validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "row"
        came = str(first["input"])[:80]
        raise DataError(f"{where}: {field}: {first['msg']}; came {came!r}.") from error


def _check(row: ReviewedRow, where: str) -> None:
    if row.status == "accept" and _content(row) != row.id:
        raise DataError(f"{where} was changed but is marked accept. Set its status to edit.")
    last = row.messages[-1]
    if last.role != "assistant" or not (last.content.strip() or last.tool_calls):
        raise DataError(f"{where}: expected an assistant's answer in the end. Write it, or reject.")


def _content(row: ReviewedRow) -> str:
    return content_id([turn.as_message() for turn in row.messages], row.tools)


def _final(row: ReviewedRow) -> dict[str, Any]:
    final = {
        "messages": [turn.as_message().as_chat() for turn in row.messages],
        "group": row.group,
        "created_at": row.created_at.isoformat() if row.created_at else None,
        "label": row.label,
    }
    return final if row.tools is None else final | {"tools": json.loads(row.tools)}
