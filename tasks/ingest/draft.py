"""What a shape makes of a row: drafts of examples, and what it leaves out on purpose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from tasks.example import Message


@dataclass(frozen=True, slots=True)
class Draft:
    """An example without what comes from its source and task. ``group`` None: its own content.

    ``tools``: the canonical JSON text of the functions that the model may call.
    """

    messages: list[Message]
    label: str | None = None
    group: str | None = None
    created_at: datetime | None = None
    meta: Mapping[str, str] = field(default_factory=dict)
    tools: str | None = None


@dataclass(frozen=True, slots=True)
class Left:
    """Something readable that is no example, such as a skipped annotation, with a stable reason."""

    reason: str


Made = Draft | Left
