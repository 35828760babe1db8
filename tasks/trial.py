"""A challenger's trial beside the champion, and what was seen of it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from tasks.artifacts import Record

# Tags of a version: its trial, and what came of it.
TRIAL, OUTCOME = "canary", "canary_outcome"
# Tags of a model, by which gateways know how its challenger is tried.
SHARE, MODE = "challenger_share", "challenger_mode"
# How a trial ends, or that it goes on.
TrialOutcome = Literal["promote", "watch", "roll_back", "inconclusive"]


class TrialTerms(Record):
    """How a challenger is to be tried: what gateways need to know, and the whole CanaryConfig."""

    share: float
    mode: Literal["live", "shadow"]
    settings: dict[str, Any]


class Trial(Record):
    """Who is tried against whom, since when, and by which settings (those of a CanaryConfig)."""

    model: str
    champion: str
    challenger: str
    begun_at: datetime
    settings: dict[str, Any]


class Measured(Record):
    """A share, or a mean from 0 to 1, of the answers of both; None where there were none.

    ``evidence`` is the decimal logarithm of the e-value for "the challenger's is higher": at 1.3 it
    is that of a test at 5 %, and may be looked at as often as one likes.
    """

    name: str
    champion: float | None
    challenger: float | None
    num_champion: int
    num_challenger: int
    evidence: float

    @property
    def difference(self) -> float | None:
        """Challenger less champion."""
        if self.challenger is None or self.champion is None:
            return None
        return self.challenger - self.champion


class PathPoint(Record):
    """The evidence at one moment, as decimal logarithms; ``guard`` is the highest of the guards."""

    at: datetime
    better: float
    worse: float
    guard: float


class Verdict(Record):
    """What a trial has shown so far.

    ``success`` holds the evidence that the challenger is better, ``worse`` that it is worse; each
    decides at ``bar``, a guard at ``guard_bar``. ``num_unmatched`` is feedback whose request is not
    known, ``num_out_of_range`` that with a score outside the configured range.
    """

    trial: Trial
    outcome: TrialOutcome
    reasons: list[str]
    looked_at: datetime
    success: Measured
    worse: float
    bar: float
    guards: list[Measured]
    guard_bar: float
    num_requests: int
    num_unmatched: int = 0
    num_out_of_range: int = 0
    path: list[PathPoint] = Field(default_factory=list)

    @property
    def sentence(self) -> str:
        """What is done, and the first reason."""
        what = {
            "promote": f"version {self.trial.challenger} is promoted",
            "watch": f"version {self.trial.challenger} is watched on",
            "roll_back": f"version {self.trial.challenger} is rolled back",
            "inconclusive": f"the trial of version {self.trial.challenger} ends undecided, version "
            f"{self.trial.champion} stays",
        }[self.outcome]
        return f"{self.trial.model}: {what}. {next(iter(self.reasons), '')}".strip()
