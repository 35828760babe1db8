"""What the report shows."""

from __future__ import annotations

from pydantic import Field

from tasks.artifacts import Record


class ReportConfig(Record):
    """The page that each retrain run leaves behind."""

    num_answers: int = Field(
        10, ge=0, le=100, description="Answers shown side by side: better, worse and unchanged."
    )
    # Were none of 20 candidates better, chance alone would promote one in two of five such series:
    # 1 - 0.975^20, each decision being made at 2.5 % on its better side.
    max_models: int = Field(
        20,
        ge=1,
        description="Models looked at on one version of the golden set, after which the report "
        "asks for fresh rows.",
    )
