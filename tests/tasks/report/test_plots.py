"""Positions on the figures, and figures in words."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tasks.evidence import RunSummary
from tasks.report import plots, wording
from tasks.report.story import Story


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0.0, 1.0, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (-0.11, 0.08, ["−0.10", "−0.05", "0.00", "0.05"]),
        (0.0, 2400.0, ["0", "500", "1,000", "1,500", "2,000"]),
        (3.0, 3.0, ["2.6", "2.8", "3.0", "3.2", "3.4"]),
        (0.0, 2e-4, ["0", "5e−5", "1e−4", "1.5e−4", "2e−4"]),
        (0.0, 2.4e7, ["0", "5e6", "1e7", "1.5e7", "2e7"]),
    ],
)
def test_axis_has_a_few_round_ticks(low: float, high: float, labels: list[str]) -> None:
    ticks = plots.axis(low, high).ticks
    assert [text for _, text in ticks] == labels
    assert all(0 <= at <= 100 for at, _ in ticks)


def test_steps_are_whole() -> None:
    assert [text for _, text in plots.axis(0, 2, whole=True).ticks] == ["0", "1", "2"]


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
    assert [bar.num_removed for bar in bars] == [12, 0, 74, 88, 134, 6, 34, 0, 25, 4]
    assert bars[-1].count + sum(bar.num_removed for bar in bars) == 1512
    assert bars[0].width + bars[0].removed_width == pytest.approx(100)


def test_histogram_places_its_limit_among_the_bins() -> None:
    drawn = plots.histogram({"title": "t", "edges": [0, 5, 10], "counts": [1, 4], "limit": 7.5})
    assert drawn is not None
    assert drawn.heights == (25.0, 100.0)
    assert (drawn.limit, drawn.beyond) == (75.0, None)
    outside = plots.histogram({"title": "t", "edges": [0, 5, 10], "counts": [1, 4], "limit": 11})
    assert outside is not None
    assert (outside.limit, outside.beyond) == (None, 11)
    assert plots.histogram(None) is None


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


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.32814, "0.3281"),
        (2e-4, "0.0002"),
        (2e-5, "2e-5"),
        (12_345.6, "12,346"),
        (3e12, "3e12"),
        (0.0, "0"),
        (float("nan"), "not a number"),
    ],
)
def test_numbers_to_four_digits(value: float, text: str) -> None:
    assert wording.measure(value) == text
