"""What the report shows."""

from __future__ import annotations

from typing import Annotated, Literal

import jmespath  # type: ignore[import-untyped]
from pydantic import AfterValidator, Field, StringConstraints

from tasks.artifacts import Record


def _compiled(expression: str) -> str:
    try:
        jmespath.compile(expression)
    except jmespath.exceptions.JMESPathError as error:
        raise ValueError(f"not a JMESPath expression: {error}") from error
    return expression


SliceExpression = Annotated[str, AfterValidator(_compiled)]
BlockName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]+/[a-z0-9-]+$")]


Occasion = Literal[
    "promoted", "blocked", "inconclusive", "no_change", "awaiting_approval", "failed", "rolled_back"
]


class NotifyConfig(Record):
    """Who is told of a run, by Prefect's own notification blocks: Slack, Teams, e-mail and others.

    The addresses and keys are in the blocks, which Prefect keeps encrypted.
    """

    blocks: tuple[BlockName, ...] = Field(
        (), description="Notification blocks by type and name, such as slack-webhook/team."
    )
    on: tuple[Occasion, ...] = Field(
        ("promoted", "blocked", "inconclusive", "awaiting_approval", "failed", "rolled_back"),
        description="What is told.",
    )


class ReportConfig(Record):
    """The page that each retrain run leaves behind."""

    notify: NotifyConfig = Field(NotifyConfig(), description="Who is told of the run.")
    num_answers: int = Field(
        10, ge=0, le=100, description="Answers shown side by side: better, worse and unchanged."
    )
    slices: dict[str, SliceExpression] = Field(
        {"source": "source", "label": "label", "length": "length", "language": "language"},
        description="Parts of the golden set that are shown by themselves: a name, and a JMESPath "
        "expression over the row, whose result names the part. A row has source, label, group, "
        "meta, prompt, answer, messages, num_turns, num_words of its prompt, length and language.",
    )
    min_slice: int = Field(30, ge=2, description="Rows below which a part is marked as small.")
    max_parts: int = Field(
        12,
        ge=1,
        le=200,
        description="Parts shown by an expression, the largest; the rest are counted.",
    )
    # Were none of 20 candidates better, chance alone would promote one in two of five such series:
    # 1 - 0.975^20, each decision being made at 2.5 % on its better side.
    max_models: int = Field(
        20,
        ge=1,
        description="Models looked at on one version of the golden set, after which the report "
        "asks for fresh rows.",
    )
