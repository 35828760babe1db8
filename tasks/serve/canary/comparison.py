"""The two versions side by side: what each answered, what users said of it, and what that shows."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import NamedTuple

import numpy as np

from tasks.serve.canary.config import CanaryConfig
from tasks.serve.canary.evidence import Evidence
from tasks.serve.canary.observed import Seen
from tasks.serve.exchange import Figures
from tasks.serve.traffic import Feedback
from tasks.trial import Measured, PathPoint, Trial, TrialOutcome, Verdict

# Answers of the champion by which it is known how long and how late its answers are.
_NUM_USUAL = 200
_RARE = 0.02  # what guards expect before anything was seen
_MAX_POINTS = 300
# Feedback may come before the figures of its request are written; later it has none.
_UNMATCHED_AFTER = timedelta(minutes=10)


class _Outcome(NamedTuple):
    """Of one request: who answered, and for whom."""

    of_challenger: bool
    unit: str


class _Counted:
    """Outcomes of both versions, and the evidence that the challenger's are higher."""

    def __init__(self, name: str, prior: float) -> None:
        self.name = name
        self.evidence = Evidence(prior)
        self._sums, self._counts = [0.0, 0.0], [0, 0]

    def take(self, outcome: float, *, of_challenger: bool) -> bool:
        self._sums[of_challenger] += outcome
        self._counts[of_challenger] += 1
        return self.evidence.take(outcome, of_challenger=of_challenger)

    def measured(self) -> Measured:
        means = [s / n if n else None for s, n in zip(self._sums, self._counts, strict=True)]
        return Measured(
            name=self.name,
            champion=means[0],
            challenger=means[1],
            num_champion=self._counts[0],
            num_challenger=self._counts[1],
            evidence=round(self.evidence.log10, 4),
        )


class Comparison:
    """Takes what is seen of a trial, and says what it shows.

    Users count once for their success and for what was said to them, with the first answer that can
    be judged: several answers to one user are alike, and would make believe in more evidence than
    there is. Whether an answer came, and when, is counted of every request.
    """

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        self.config = CanaryConfig.model_validate(trial.settings)
        self._better = _Counted(self.config.success, 0.5)
        self._worse = Evidence(0.5)  # of the outcomes turned round
        self._guards = {
            name: _Counted(name, _RARE)
            for name in ("error", "slow", "empty", "refused", "invalid_json", "too_long")
        }
        self._outcomes: dict[str, _Outcome] = {}
        self._waiting: deque[Feedback] = deque()
        self._counted: dict[str, set[str]] = {}
        self._usual: tuple[list[float], list[int]] = ([], [])
        self._limits: tuple[float, float] | None = None
        self._num_answers = 0
        self._num_unmatched = self._num_out_of_range = 0
        self._path: list[PathPoint] = []
        self._every = 1
        self._num_blocks = 0

    def take(self, seen: Seen, now: datetime) -> None:
        """What a look has found."""
        for figures in seen.answered:
            self._answered(figures)
        self._waiting.extend(seen.feedback)
        left: deque[Feedback] = deque()
        for feedback in self._waiting:
            outcome = self._outcomes.get(feedback.request_id)
            if outcome is not None:
                self._judged(feedback, outcome)
            elif now - feedback.created_at < _UNMATCHED_AFTER:
                left.append(feedback)
            else:
                self._num_unmatched += 1
        self._waiting = left

    def verdict(self, now: datetime) -> Verdict:
        """What all of it shows."""
        outcome, reasons = self._decided(now)
        return Verdict(
            trial=self.trial,
            outcome=outcome,
            reasons=reasons,
            looked_at=now,
            success=self._better.measured(),
            worse=round(self._worse.log10, 4),
            bar=round(self._bar, 4),
            guards=[guard.measured() for guard in self._guards.values()],
            guard_bar=round(self._guard_bar, 4),
            num_requests=len(self._outcomes),
            num_unmatched=self._num_unmatched,
            num_out_of_range=self._num_out_of_range,
            path=[*self._path, self._point(now)],
        )

    @property
    def _bar(self) -> float:
        return -math.log10(self.config.risk)

    @property
    def _guard_bar(self) -> float:
        return -math.log10(self.config.guards.risk / len(self._guards))

    def _decided(self, now: datetime) -> tuple[TrialOutcome, list[str]]:
        tripped = [_tripped(guard) for guard in self._guarding()]
        if tripped:
            return "roll_back", tripped
        success = self._better.measured()
        shown = f"{success.name}: {_side_by_side(success)}"
        if self._worse.log10 >= self._bar:
            return "roll_back", [f"Shown to be worse. {shown}."]
        if self._better.evidence.log10 >= self._bar:
            missing = self.config.min_answers - self._num_answers
            if missing <= 0:
                return "promote", [f"Shown to be better. {shown}."]
            return "watch", [f"Shown to be better, {missing:,} answers before it may be: {shown}."]
        ends = self.trial.begun_at + timedelta(hours=self.config.horizon_hours)
        if now >= ends:
            hours = f"{self.config.horizon_hours:g} hours"
            return "inconclusive", [f"Neither better nor worse was shown within {hours}. {shown}."]
        return "watch", [f"{shown}."]

    def _guarding(self) -> Iterable[Measured]:
        """The guards that act."""
        for guard in self._guards.values():
            found = guard.measured()
            difference = found.difference
            if difference is None or difference < self.config.guards.tolerance:
                continue
            if found.evidence >= self._guard_bar:
                yield found

    def _answered(self, figures: Figures) -> None:
        side = self._side(figures)
        if side is None or figures.failure == "client_left":
            return
        outcome = _Outcome(side, figures.unit)
        self._outcomes[figures.request_id] = outcome
        self._num_answers += side
        failed = figures.fell_back or figures.failure is not None or figures.status >= 500
        self._guard("error", outcome, failed)
        if failed or figures.status != 200:
            return
        self._timed(figures, outcome)
        self._once("empty", outcome, figures.empty)
        self._once("refused", outcome, figures.refused)
        if figures.json_valid is not None:
            self._once("invalid_json", outcome, not figures.json_valid)
            if self.config.success == "json_valid":
                self._succeeded(figures.created_at, outcome, float(figures.json_valid))

    def _side(self, figures: Figures) -> bool | None:
        """Whether the challenger was to answer; None of a request that is no part of the trial."""
        tried = "challenger" if self.config.mode == "live" else "shadow"
        if figures.side == tried:
            own = figures.model_version == self.trial.challenger
            return True if own or figures.fell_back else None
        if figures.side == "champion" and figures.model_version == self.trial.champion:
            return False
        return None

    def _timed(self, figures: Figures, outcome: _Outcome) -> None:
        seconds, characters = self._usual
        if self._limits is None:
            if not outcome.of_challenger:
                seconds.append(figures.seconds)
                characters.append(figures.num_characters)
            if len(seconds) >= _NUM_USUAL:
                guards = self.config.guards
                self._limits = (
                    float(np.quantile(seconds, 0.95)) * guards.slow_factor,
                    float(np.quantile(characters, 0.95)) * guards.long_factor,
                )
            return
        slow, long = self._limits
        self._guard("slow", outcome, figures.seconds > slow)
        self._once("too_long", outcome, figures.num_characters > long)

    def _judged(self, feedback: Feedback, outcome: _Outcome) -> None:
        if self.config.success == "accepted" and feedback.accepted is not None:
            self._succeeded(feedback.created_at, outcome, float(feedback.accepted))
        elif self.config.success == "score" and feedback.score is not None:
            low, high = self.config.score_range
            if low <= feedback.score <= high:
                value = (feedback.score - low) / (high - low)
                self._succeeded(feedback.created_at, outcome, value)
            else:
                self._num_out_of_range += 1

    def _succeeded(self, at: datetime, outcome: _Outcome, value: float) -> None:
        if not self._is_first("success", outcome.unit):
            return
        closed = self._better.take(value, of_challenger=outcome.of_challenger)
        self._worse.take(1 - value, of_challenger=outcome.of_challenger)
        if closed:
            self._keep_point(at)

    def _guard(self, name: str, outcome: _Outcome, found: bool) -> None:
        self._guards[name].take(float(found), of_challenger=outcome.of_challenger)

    def _once(self, name: str, outcome: _Outcome, found: bool) -> None:
        if self._is_first(name, outcome.unit):
            self._guard(name, outcome, found)

    def _is_first(self, name: str, unit: str) -> bool:
        units = self._counted.setdefault(name, set())
        is_first = unit not in units
        units.add(unit)
        return is_first

    def _point(self, at: datetime) -> PathPoint:
        return PathPoint(
            at=at,
            better=round(self._better.evidence.log10, 4),
            worse=round(self._worse.log10, 4),
            guard=round(max(guard.evidence.log10 for guard in self._guards.values()), 4),
        )

    def _keep_point(self, at: datetime) -> None:
        """Every block's at first; each time there are many, every other one goes."""
        self._num_blocks += 1
        if self._num_blocks % self._every:
            return
        self._path.append(self._point(at))
        if len(self._path) >= _MAX_POINTS:
            self._path = self._path[1::2]
            self._every *= 2


_SAID: dict[str, str] = {
    "error": "Errors",
    "slow": "Slow answers",
    "empty": "Empty answers",
    "refused": "Refusals",
    "invalid_json": "Invalid JSON",
    "too_long": "Answers that are too long",
}


def _tripped(guard: Measured) -> str:
    return f"{_SAID[guard.name]}: {_side_by_side(guard)}."


def _side_by_side(found: Measured) -> str:
    return (
        f"the challenger's {_share(found.challenger)} of {found.num_challenger:,} against the "
        f"champion's {_share(found.champion)} of {found.num_champion:,}"
    )


def _share(value: float | None) -> str:
    return "none" if value is None else f"{value:.1%}"
