"""Positions on the figures, and figures in words."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tasks.artifacts import RunSummary
from tasks.report import plots, wording
from tasks.report.story import Story, TrainingStory


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0.0, 1.0, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (-0.11, 0.08, ["−0.10", "−0.05", "0.00", "0.05"]),
        (0.0, 2400.0, ["0", "500", "1,000", "1,500", "2,000"]),
        (3.0, 3.0, ["2.6", "2.8", "3.0", "3.2", "3.4"]),
    ],
)
def test_axis_has_a_few_round_ticks(low: float, high: float, labels: list[str]) -> None:
    ticks = plots.axis(low, high).ticks
    assert [text for _, text in ticks] == labels
    assert all(0 <= at <= 100 for at, _ in ticks)


def test_forest_keeps_everything_in_sight_and_units_apart(
    summarise: Callable[..., RunSummary],
) -> None:
    share, milliseconds = plots.forests(summarise("blocked").differences)
    assert (share.unit, milliseconds.unit) == ("share of 1", "milliseconds")
    for row in (*share.rows, *milliseconds.rows):
        assert 0 <= row.low <= row.point <= row.high <= 100
        assert 0 <= row.threshold <= 100
    failed = next(r for r in share.rows if r.difference.verdict == "failed")
    assert failed.high < failed.threshold


def test_waterfall_accounts_for_every_row(story: Story) -> None:
    assert story.data is not None
    bars = plots.waterfall(story.data)
    assert [bar.num_removed for bar in bars] == [12, 0, 74, 88, 134, 6, 34, 0, 25]
    assert bars[-1].count + sum(bar.num_removed for bar in bars) == 1512
    assert bars[0].width + bars[0].removed_width == pytest.approx(100)


def test_histogram_places_its_limit_among_the_bins() -> None:
    drawn = plots.histogram({"title": "t", "edges": [0, 5, 10], "counts": [1, 4], "limit": 7.5})
    assert drawn is not None
    assert drawn.heights == (25.0, 100.0)
    assert drawn.limit == 75.0
    outside = plots.histogram({"title": "t", "edges": [0, 5, 10], "counts": [1, 4], "limit": 11})
    assert outside is not None
    assert outside.limit is None
    assert plots.histogram(None) is None


def test_thinned_curve_keeps_its_last_value() -> None:
    history = [{"step": s, "loss": 10_000 - s} for s in range(10_000)]
    chart = plots.loss_chart(TrainingStory(history, 9_999, {}))
    assert chart is not None
    assert len(chart.train) <= 400
    assert chart.train[-1][0] == 100.0 == chart.best


def test_nothing_logged_draws_nothing() -> None:
    assert plots.loss_chart(TrainingStory([{"step": 1, "loss": None}], None, {})) is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 0 s"),
        (61, "1 min 1 s"),
        (3599.7, "1 h 0 min"),
        (7384, "2 h 3 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert wording.duration(seconds) == text


def test_nested_figures_become_lines() -> None:
    values = {
        "seconds": {"cpu": 90.0},
        "num_rows": 1200,
        "best_step": 1200,
        "note": None,
        "on": True,
    }
    assert dict(wording.flat(values)) == {
        "time / cpu": "1 min 30 s",
        "rows": "1,200",
        "best step": "1200",
        "note": "–",
        "on": "True",
    }
