"""What the report shows."""

from __future__ import annotations

from pydantic import Field

from tasks.artifacts import Record


class ReportConfig(Record):
    """The page that each retrain run leaves behind."""

    num_answers: int = Field(
        10, ge=0, le=100, description="Answers shown side by side: better, worse and unchanged."
    )
