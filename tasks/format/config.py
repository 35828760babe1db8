"""How conversations become token ids."""

from __future__ import annotations

from pydantic import Field

from tasks.artifacts import Record


class FormatConfig(Record):
    """Limits on the rendered conversation; rows over a limit are rejected, never cut."""

    max_length: int = Field(
        512, ge=16, le=131072, description="Tokens of prompt and answer together"
    )
    max_rejected_share: float = Field(
        0.05, ge=0, le=1, description="Share of rows over the limits above which the stage fails"
    )
