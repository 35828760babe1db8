"""The history of a training -> the geometry of its curves, in per cent with y downwards.

A curve of more points than a page can tell apart is thinned so that its extremes stay: a spike that
lasted one step is what such a chart is looked at for. Where a value is not a number the curve is
broken, and the chart says how often.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from tasks.report.plots import Axis, axis
from tasks.report.story import TrainingStory
from tasks.report.training_log import chosen_by, plan_of
from tasks.report.wording import label, measure

MAX_POINTS = 400  # more are not told apart at the width of a page
_MAX_DOTS = 40
_MAX_EPOCHS = 20
_MAX_METRICS = 6
_EXPLODED = 1e30  # beyond it an axis shows nothing but the one value, and arithmetic overflows
_LOSSES = {"loss": ("training", "train"), "eval_loss": ("validation", "validation")}
_SMALL = {
    "learning_rate": "Learning rate",
    "grad_norm": "Gradient norm",
    "tokens_per_second": "Tokens/s",
    "memory_gib": "Memory, GiB",
}
# What Transformers logs beside a validation's own figures.
_NO_METRIC = ("_runtime", "_per_second", "_loss", "_seconds", "_jit_compilation_time")

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Series:
    """The stretches of a curve between its gaps, as (step, value) by rising step."""

    stretches: tuple[tuple[Point, ...], ...]
    num_gaps: int = 0

    @property
    def points(self) -> list[Point]:
        return [point for stretch in self.stretches for point in stretch]

    def at(self, step: float | None) -> float | None:
        """The value at a step, if one was logged."""
        return dict(self.points).get(step) if step is not None else None


@dataclass(frozen=True, slots=True)
class Curve:
    """Polylines of one series, and dots where single points are to be seen."""

    name: str
    kind: str
    lines: tuple[tuple[Point, ...], ...]
    dots: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Mark:
    """The chosen checkpoint: a line at its step, the value there, and what is said of it."""

    x: float
    y: float | None
    step: int
    text: str

    @property
    def side(self) -> str:
        """Where the text stands, so that it stays within the chart."""
        return "right" if self.x < 25 else "left" if self.x > 75 else "middle"


@dataclass(frozen=True, slots=True)
class Chart:
    """Curves over the steps. ``epochs`` are the ends of the epochs; ``told`` says it in words."""

    title: str
    x: Axis
    y: Axis
    curves: tuple[Curve, ...]
    mark: Mark | None
    told: str
    epochs: tuple[float, ...] = ()
    num_gaps: int = 0

    @property
    def label_characters(self) -> int:
        """Of the longest label of the vertical axis."""
        return max(len(text) for _, text in self.y.ticks)


def loss_chart(training: TrainingStory) -> Chart | None:
    """Training and validation loss; None where neither was logged."""
    told = {name: series(training.history, name) for name in _LOSSES}
    named = [(*_LOSSES[name], found) for name, found in told.items()]
    return _chart(training, "Loss", named, checkpoints=told["eval_loss"], epochs=True)


def metric_charts(training: TrainingStory) -> list[Chart]:
    """What was measured on answers at the checkpoints, what the best was chosen by first."""
    chosen = chosen_by(training.log)
    found = {name for line in training.history for name in line if _is_metric(name)}
    names = sorted(found, key=lambda name: (name != chosen, name))[:_MAX_METRICS]
    charts = []
    for name in names:
        told = series(training.history, name)
        title = f"Validation {label(name.removeprefix('eval_'))}"
        charts.append(_chart(training, title, [("", "metric", told)], checkpoints=told))
    return [chart for chart in charts if chart]


def small_charts(training: TrainingStory) -> list[Chart]:
    """Learning rate, gradient norm, speed and memory, each from nought; only what was logged."""
    charts = []
    for name, title in _SMALL.items():
        told = [("", "train", series(training.history, name))]
        charts.append(_chart(training, title, told, from_zero=True))
    return [chart for chart in charts if chart]


def series(history: Iterable[Mapping[str, Any]], name: str) -> Series:
    """One figure's values by step; a step that a resumed training repeated counts as it was last.

    A value that was logged and is no finite number is a gap.
    """
    values = {
        float(line["step"]): line[name]
        for line in history
        if name in line and _is_number(line.get("step"))
    }
    stretches: list[list[Point]] = [[]]
    for step in sorted(values):
        value = values[step]
        if _is_number(value):
            stretches[-1].append((step, float(value)))
        elif stretches[-1]:
            stretches.append([])
    num_gaps = sum(not _is_number(value) for value in values.values())
    return Series(tuple(tuple(s) for s in stretches if s), num_gaps)


def thin(found: Series, keep: float | None = None, limit: int = MAX_POINTS) -> Series:
    """At most ``limit`` points: ends, ``keep``, and the least and greatest of equal stretches."""
    points = found.points
    if len(points) <= limit:
        return found
    num_buckets = (limit - 3) // 2
    kept = {points[0][0], points[-1][0]} | ({keep} if keep is not None else set())
    for i in range(num_buckets):
        start, end = (len(points) * j // num_buckets for j in (i, i + 1))
        bucket = points[start:end]
        for extreme in (min, max):
            kept.add(extreme(bucket, key=lambda point: point[1])[0])
    thinned = (tuple(p for p in stretch if p[0] in kept) for stretch in found.stretches)
    return Series(tuple(s for s in thinned if s), found.num_gaps)


def _chart(
    training: TrainingStory,
    title: str,
    named: Sequence[tuple[str, str, Series]],
    *,
    checkpoints: Series | None = None,
    from_zero: bool = False,
    epochs: bool = False,
) -> Chart | None:
    """All charts have one horizontal scale, so that they can be read one above the other."""
    values = [value for _, _, found in named for _, value in found.points]
    if not values:
        return None
    last = max(line["step"] for line in training.history if _is_number(line.get("step")))
    has_label = checkpoints is not None
    x = axis(0, max(last, 1), num_ticks=5 if epochs else 3, whole=True)
    y = axis(*_reach(values, from_zero=from_zero), num_ticks=5 if has_label else 3)
    best = training.best_step
    return Chart(
        title=title,
        x=x,
        y=y,
        curves=tuple(_curve(name, kind, thin(s, best), x, y) for name, kind, s in named),
        mark=_mark(best, checkpoints, x, y),
        told="; ".join(f"{name} {_in_words(s)}".strip() for name, _, s in named if s.points),
        epochs=_epochs(training, x) if epochs else (),
        num_gaps=sum(found.num_gaps for _, _, found in named),
    )


def _reach(values: Sequence[float], *, from_zero: bool) -> tuple[float, float]:
    """Least and greatest value with a margin, and without one where a value may not go."""
    least, most = min(values), max(values)
    low, high = (min(least, 0.0) if from_zero else least), most
    size = max(abs(low), abs(high))
    if high - low <= 1e-6 * size or size < 1 / _EXPLODED:
        half = size / 2 if size >= 1 / _EXPLODED else 0.5
        low, high = low - half, high + half
    margin = 0.05 * (high - low)
    low, high = low - margin, high + margin
    return (max(low, 0.0) if least >= 0 else low), high


def _curve(name: str, kind: str, found: Series, x: Axis, y: Axis) -> Curve:
    placed = [
        tuple((x.at(step), round(100 - y.at(value), 2)) for step, value in stretch)
        for stretch in found.stretches
    ]
    dots = [stretch[0] for stretch in placed if len(stretch) == 1]
    if kind != "train" and sum(map(len, placed)) <= _MAX_DOTS:
        dots = [point for stretch in placed for point in stretch]
    return Curve(name, kind, tuple(s for s in placed if len(s) > 1), tuple(dots))


def _mark(best: int | None, checkpoints: Series | None, x: Axis, y: Axis) -> Mark | None:
    if best is None or not x.low <= best <= x.high:
        return None
    value = checkpoints.at(best) if checkpoints else None
    told = f"step {best}" if value is None else f"step {best}: {measure(value)}"
    at = None if value is None else round(100 - y.at(value), 2)
    return Mark(x.at(best), at, best, told if checkpoints else "")


def _epochs(training: TrainingStory, x: Axis) -> tuple[float, ...]:
    """Where epochs end within the chart; none where they are too many to tell apart."""
    length = plan_of(training.log).get("steps_per_epoch")
    if not _is_number(length) or length < 1 or x.high / length > _MAX_EPOCHS:
        return ()
    return tuple(x.at(n * length) for n in range(1, int(x.high / length) + 1))


def _in_words(found: Series) -> str:
    values = [value for _, value in found.points]
    least, most, last = (measure(value) for value in (min(values), max(values), values[-1]))
    return f"from {least} to {most}, last {last}"


def _is_metric(name: object) -> bool:
    return isinstance(name, str) and name.startswith("eval_") and not name.endswith(_NO_METRIC)


def _is_number(value: Any) -> TypeGuard[float]:
    is_real = isinstance(value, int | float) and not isinstance(value, bool)
    return is_real and math.isfinite(value) and abs(value) < _EXPLODED
