"""How a challenger is tried on live traffic, and when that is decided."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from tasks.artifacts import Record
from tasks.trial import TrialTerms


class GuardsConfig(Record):
    """What a challenger may not do, whatever its success: each is a share of its answers.

    A guard acts where the challenger's share is shown to be higher than the champion's and is
    higher by ``tolerance`` at least.
    """

    tolerance: float = Field(
        0.02, ge=0, lt=1, description="By how much a share may be higher than the champion's"
    )
    risk: float = Field(
        0.05,
        gt=0,
        lt=0.5,
        description="Chance that any of them ever acts on a challenger that is no worse",
    )
    slow_factor: float = Field(
        1.5,
        ge=1,
        description="An answer is slow that takes so many times the champion's P95 latency",
    )
    long_factor: float = Field(
        2.0,
        ge=1,
        description="An answer is too long that has so many times the champion's P95 of characters",
    )


class CanaryConfig(Record):
    """The trial of a challenger beside the champion."""

    enabled: bool = Field(
        False,
        description="Try a promoted candidate on live traffic first; without, and where nothing is "
        "in production yet, it is champion at once",
    )
    share: float = Field(0.1, gt=0, le=0.5, description="Share of the users that it answers")
    mode: Literal["live", "shadow"] = Field(
        "live",
        description="shadow: it answers copies that nobody sees. Guards watch it, and nothing can "
        "show that it is better: it is never promoted",
    )
    success: Literal["accepted", "score", "json_valid"] = Field(
        "accepted",
        description="What tells a good answer: the feedback's `accepted`, its `score`, or whether "
        "JSON that was asked for is valid",
    )
    score_range: tuple[float, float] = Field(
        (0.0, 1.0), description="The least and the greatest `score`; others are counted and left"
    )
    risk: float = Field(
        0.05,
        gt=0,
        lt=0.5,
        description="Chance that a challenger that is no better is ever promoted, and that one "
        "that is no worse is ever rolled back for its success",
    )
    min_answers: int = Field(
        100, ge=1, description="Answers of the challenger before which it is not promoted"
    )
    horizon_hours: float = Field(
        168.0,
        gt=0,
        le=24 * 90,
        description="Hours after which a trial that is undecided ends, and the champion stays",
    )
    look_seconds: float = Field(
        15.0, gt=0, le=60, description="Time between two looks; guards act within it"
    )
    guards: GuardsConfig = Field(GuardsConfig(), description="What it may not do")

    @model_validator(mode="after")
    def _range_is_one(self) -> CanaryConfig:
        low, high = self.score_range
        if not low < high:
            raise ValueError(f"score_range: expected the least first, came {low:g} and {high:g}")
        return self

    def terms(self) -> TrialTerms | None:
        """What a trial by these settings is registered with; None where there is to be none."""
        if not self.enabled:
            return None
        settings = self.model_dump(mode="json")
        return TrialTerms(share=self.share, mode=self.mode, settings=settings)
