"""The figures' geometry: positions in per cent, drawn by the templates as HTML and SVG.

Nothing is drawn in pixels, so that a figure fills a phone and a desk alike and takes the colours of
the page, while its texts keep their size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from tasks.artifacts import MetricDifference
from tasks.report.story import DataStory, TrainingStory

_MAX_POINTS = 400  # more are not told apart at the width of a page


@dataclass(frozen=True, slots=True)
class Axis:
    """A linear scale; its ticks are (position, label)."""

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]

    def at(self, value: float) -> float:
        """Position of a value in per cent."""
        return round(100 * (value - self.low) / (self.high - self.low), 2)


@dataclass(frozen=True, slots=True)
class ForestRow:
    """A difference with its interval, and the line that the whole interval must clear."""

    difference: MetricDifference
    point: float
    low: float
    high: float
    threshold: float


@dataclass(frozen=True, slots=True)
class Forest:
    """The differences of one unit over one axis."""

    unit: str
    axis: Axis
    rows: tuple[ForestRow, ...]


@dataclass(frozen=True, slots=True)
class Bar:
    """A count with its width in per cent, and what went before it: the second part of the bar."""

    name: str
    count: int
    width: float
    num_removed: int = 0
    removed_width: float = 0.0


@dataclass(frozen=True, slots=True)
class Histogram:
    """Bins of equal width, their heights and the limit's position in per cent."""

    title: str
    axis: Axis
    heights: tuple[float, ...]
    limit: float | None


@dataclass(frozen=True, slots=True)
class ShareBar:
    """A share achieved and the band wanted, in per cent."""

    name: str
    achieved: float
    low: float
    high: float
    holds: bool


@dataclass(frozen=True, slots=True)
class LossChart:
    """Two curves as SVG points with y downwards, and the chosen checkpoint."""

    x: Axis
    y: Axis
    train: tuple[tuple[float, float], ...]
    validation: tuple[tuple[float, float], ...]
    best: float | None
    best_step: int | None


def axis(low: float, high: float, num_ticks: int = 5) -> Axis:
    """A scale from ``low`` to ``high`` with about ``num_ticks`` round values."""
    if high <= low:
        low, high = low - 0.5, high + 0.5
    rough = (high - low) / num_ticks
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(f * power for f in (1, 2, 5, 10) if f * power >= 0.7 * rough)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    bare = Axis(low, high, ())
    values = [i * step for i in range(first, last + 1)]
    return Axis(low, high, tuple((bare.at(v), _tick(v, decimals)) for v in values))


def _tick(value: float, decimals: int) -> str:
    return f"{value:,.{decimals}f}".replace("-", "\N{MINUS SIGN}")


def forests(differences: Sequence[MetricDifference]) -> list[Forest]:
    """The differences grouped by unit, since a share and a grade have no axis in common."""
    units = dict.fromkeys(_unit(d.metric) for d in differences)
    return [_forest(unit, [d for d in differences if _unit(d.metric) == unit]) for unit in units]


def _unit(metric: str) -> str:
    if metric.endswith("_ms"):
        return "milliseconds"
    return "grade points" if metric == "judge" else "share of 1"


def _forest(unit: str, differences: Sequence[MetricDifference]) -> Forest:
    marks = [m for d in differences for m in (d.ci_low, d.ci_high, _threshold(d), 0.0)]
    pad = 0.06 * (max(marks) - min(marks))
    scale = axis(min(marks) - pad, max(marks) + pad)
    rows = (
        ForestRow(
            difference=d,
            point=scale.at(d.difference),
            low=scale.at(d.ci_low),
            high=scale.at(d.ci_high),
            threshold=scale.at(_threshold(d)),
        )
        for d in differences
    )
    return Forest(unit, scale, tuple(rows))


def _threshold(difference: MetricDifference) -> float:
    return difference.margin if difference.rule == "superiority" else -difference.margin


def bars(counts: Mapping[str, int]) -> list[Bar]:
    """Counts as bars, the largest filling the width."""
    most = max(counts.values(), default=0) or 1
    return [Bar(name, count, 100 * count / most) for name, count in counts.items()]


def waterfall(data: DataStory) -> list[Bar]:
    """The rows left after each check and those that it removed, over all rows found."""
    if not data.checks:
        return []
    num_quarantined = sum(data.num_quarantined.values())
    found = data.checks[0].num_out + num_quarantined
    bars: list[Bar] = []
    for check in data.checks:
        removed = num_quarantined if not bars else check.num_in - check.num_out
        bars.append(
            Bar(
                name=check.name,
                count=check.num_out,
                width=100 * check.num_out / (found or 1),
                num_removed=removed,
                removed_width=100 * removed / (found or 1),
            )
        )
    return bars


def histogram(values: Mapping[str, Any] | None) -> Histogram | None:
    """The bins as heights in per cent, and the limit that decided where it lies among them."""
    if not values or not values["counts"]:
        return None
    edges, counts, limit = values["edges"], values["counts"], values.get("limit")
    low, high = float(edges[0]), float(edges[-1])
    scale = axis(low, high, num_ticks=4)
    most = max(counts) or 1
    return Histogram(
        title=str(values["title"]),
        axis=scale,
        heights=tuple(round(100 * count / most, 2) for count in counts),
        limit=scale.at(limit) if limit is not None and scale.low <= limit <= scale.high else None,
    )


def share_bars(shares: Sequence[Mapping[str, Any]]) -> list[ShareBar]:
    """Achieved shares over the band that is wanted, all in per cent of the training rows."""
    return [
        ShareBar(
            name=str(share["name"]),
            achieved=round(100 * share["achieved"], 1),
            low=round(100 * share["low"], 1),
            high=round(100 * share["high"], 1),
            holds=share["low"] <= share["achieved"] <= share["high"],
        )
        for share in shares
    ]


def loss_chart(training: TrainingStory) -> LossChart | None:
    """The losses over the steps; None where nothing was logged."""
    train, validation = (_curve(training, name) for name in ("loss", "eval_loss"))
    points = train + validation
    if not points:
        return None
    steps, losses = [x for x, _ in points], [y for _, y in points]
    pad = 0.05 * (max(losses) - min(losses))
    x, y = axis(min(steps), max(steps)), axis(max(0.0, min(losses) - pad), max(losses) + pad)
    best = training.best_step
    is_inside = best is not None and x.low <= best <= x.high
    return LossChart(
        x=x,
        y=y,
        train=tuple((x.at(step), 100 - y.at(loss)) for step, loss in train),
        validation=tuple((x.at(step), 100 - y.at(loss)) for step, loss in validation),
        best=x.at(best) if best is not None and is_inside else None,
        best_step=best,
    )


def _curve(training: TrainingStory, name: str) -> list[tuple[float, float]]:
    lines = [(line.get("step"), line.get(name)) for line in training.history]
    points = [(x, y) for x, y in lines if _is_number(x) and _is_number(y)]
    stride = math.ceil(len(points) / _MAX_POINTS) or 1
    return points[::-stride][::-1]  # thinned from the end: the last value is always shown


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value)
