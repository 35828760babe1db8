"""The figures' geometry: positions in per cent, drawn by the templates as HTML and SVG.

Nothing is drawn in pixels, so that a figure fills a phone and a desk alike and takes the colours of
the page, while its texts keep their size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.evidence import Baseline, MetricDifference
from tasks.report.story import DataStory

_MAX_DECIMALS = 4  # finer values are written with an exponent


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
    """The differences of one unit over one axis; ``baselines`` are who is compared with in them."""

    unit: str
    baselines: tuple[Baseline, ...]
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
    """Bins of equal width, their heights and the limit's position in per cent.

    A limit that no value came near has no position; ``beyond`` is its value then.
    """

    title: str
    axis: Axis
    heights: tuple[float, ...]
    limit: float | None
    beyond: float | None = None


@dataclass(frozen=True, slots=True)
class ShareBar:
    """A share achieved and the band wanted, in per cent."""

    name: str
    achieved: float
    low: float
    high: float
    holds: bool


def axis(low: float, high: float, num_ticks: int = 5, *, whole: bool = False) -> Axis:
    """A scale from ``low`` to ``high`` with about ``num_ticks`` round values, whole if asked."""
    if high <= low:
        low, high = low - 0.5, high + 0.5
    rough = (high - low) / num_ticks
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(f * power for f in (1, 2, 5, 10) if f * power >= 0.7 * rough)
    step = max(step, 1.0) if whole else step
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    bare = Axis(low, high, ())
    values = [i * step for i in range(first, last + 1)]
    return Axis(low, high, tuple((bare.at(v), _tick(v, decimals)) for v in values))


def _tick(value: float, decimals: int) -> str:
    text = f"{value:,.{decimals}f}"
    if value and (decimals > _MAX_DECIMALS or abs(value) >= 1e6):
        mantissa, exponent = f"{value:.3e}".split("e")
        text = f"{float(mantissa):g}e{int(exponent)}"
    elif decimals > _MAX_DECIMALS:
        text = "0"
    return text.replace("-", "\N{MINUS SIGN}")


def forests(differences: Sequence[MetricDifference]) -> list[Forest]:
    """The differences grouped by unit, since a share and a grade have no axis in common."""
    units = dict.fromkeys(_unit(d.metric) for d in differences)
    return [_forest(unit, [d for d in differences if _unit(d.metric) == unit]) for unit in units]


def _unit(metric: str) -> str:
    if metric.endswith("_ms"):
        return "milliseconds"
    if metric.startswith("num_"):
        return metric.removeprefix("num_")
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
    baselines = tuple(dict.fromkeys(d.baseline for d in differences))
    return Forest(unit, baselines, scale, tuple(rows))


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
    is_inside = limit is not None and scale.low <= limit <= scale.high
    return Histogram(
        title=str(values["title"]),
        axis=scale,
        heights=tuple(round(100 * count / most, 2) for count in counts),
        limit=scale.at(limit) if limit is not None and is_inside else None,
        beyond=None if is_inside else limit,
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
