"""What a candidate must show before it replaces the model in production."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tasks.artifacts import Record


class GuardConfig(Record):
    """A metric that must not get worse by more than a margin."""

    metric: str = Field(min_length=1, description="Name of the metric.")
    margin: float = Field(ge=0, description="Largest loss accepted, in the metric's own unit.")


class GateConfig(Record):
    """One metric to improve, others to hold, and how sure to be of either."""

    primary: str = Field(
        "exact_match", min_length=1, description="Metric on which the candidate must be better."
    )
    min_gain: float = Field(
        0.0, ge=0, description="Gain that the primary metric's interval must lie above."
    )
    guards: tuple[GuardConfig, ...] = Field((), description="Metrics that must not get worse.")
    judge: Literal["required", "if_run", "ignore"] = Field(
        "if_run", description="Whether the judge's grades are a guard, and must exist."
    )
    judge_margin: float = Field(
        0.1, ge=0, le=4, description="Largest loss accepted in the mean grade (1 to 5)."
    )
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Level of the intervals.")
    resamples: int = Field(2000, ge=100, le=100_000, description="Bootstrap resamples.")
    seed: int = Field(0, ge=0, description="Seed of the bootstrap.")
    min_n: int = Field(
        30, ge=2, description="Answers below which no metric decides anything for the better."
    )
