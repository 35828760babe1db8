"""Curves show what was logged: extremes, gaps, and the checkpoint that was chosen."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from tasks.report import curves
from tasks.report.story import TrainingStory

Log = Callable[..., dict[str, Any]]
Train = Callable[..., TrainingStory]
NAN, INF = float("nan"), float("inf")


def story(history: list[dict[str, Any]], best_step: int | None = None, **log: Any) -> TrainingStory:
    return TrainingStory(history, best_step, {}, log)


def losses(*values: float | None) -> list[dict[str, Any]]:
    return [{"step": i + 1, "loss": value} for i, value in enumerate(values)]


@pytest.mark.parametrize("num_points", [401, 999, 5_000, 100_000])
def test_thinning_keeps_ends_extremes_and_the_chosen_step(num_points: int) -> None:
    dice = random.Random(num_points)
    history = losses(*(dice.random() for _ in range(num_points)))
    spike, dip, chosen = dice.sample(range(10, num_points - 10), 3)
    history[spike]["loss"], history[dip]["loss"] = 40.0, -3.0
    full = curves.series(history, "loss")
    thinned = curves.thin(full, keep=chosen + 1)
    points = thinned.points
    assert len(points) <= curves.MAX_POINTS
    assert set(points) <= set(full.points)
    assert points == sorted(points)
    assert (points[0], points[-1]) == (full.points[0], full.points[-1])
    assert {(spike + 1, 40.0), (dip + 1, -3.0)} <= set(points)
    assert thinned.at(chosen + 1) is not None


def test_few_points_are_not_thinned() -> None:
    full = curves.series(losses(*range(400)), "loss")
    assert curves.thin(full) is full


def test_thinning_leaves_gaps_open() -> None:
    values: list[float | None] = [1.0] * 3_000
    values[1_000:1_500] = [NAN] * 500
    thinned = curves.thin(curves.series(losses(*values), "loss"))
    before, after = thinned.stretches
    assert (before[0][0], after[-1][0]) == (1, 3_000)
    assert before[-1][0] <= 1_000
    assert after[0][0] > 1_500
    assert thinned.num_gaps == 500


@pytest.mark.parametrize("gap", [NAN, INF, -INF, None, "nan", 1e300, True])
def test_what_is_no_number_breaks_the_curve(gap: Any) -> None:
    found = curves.series(losses(1.0, 2.0, gap, 3.0), "loss")
    assert found.stretches == (((1, 1.0), (2, 2.0)), ((4, 3.0),))
    assert found.num_gaps == 1


def test_resumed_training_counts_a_repeated_step_as_it_was_last() -> None:
    history = [{"step": s, "loss": v} for s, v in [(5, 3.0), (10, 2.0), (15, 9.0), (10, 1.0)]]
    assert curves.series(history, "loss").points == [(5, 3.0), (10, 1.0), (15, 9.0)]


def test_lines_without_the_figure_are_no_gap() -> None:
    history = [{"step": 1, "loss": 2.0}, {"step": 1, "eval_loss": 2.0}, {"step": 2, "loss": 1.0}]
    assert curves.series(history, "loss").num_gaps == 0


def test_positions_on_the_chart() -> None:
    history = [{"step": 10, "loss": 0.0}, {"step": 20, "loss": 2.0}]
    chart = curves.loss_chart(story(history))
    assert chart is not None
    assert (chart.x.low, chart.x.high) == (0, 20)
    assert chart.y.low == 0.0  # a loss has no margin below nought
    assert chart.y.high == pytest.approx(2.1)
    assert chart.curves[0].lines == (((50.0, 100.0), (100.0, 4.76)),)
    assert chart.mark is None


def test_chosen_checkpoint_is_marked_at_its_own_value() -> None:
    history = [{"step": s, "eval_loss": v} for s, v in [(10, 2.0), (20, 1.0), (40, 1.5)]]
    history += [{"step": s, "eval_accuracy": v} for s, v in [(10, 0.4), (20, 0.7), (40, 0.9)]]
    training = story(history, best_step=40, metric="accuracy")
    loss, accuracy = curves.loss_chart(training), curves.metric_charts(training)[0]
    assert loss is not None
    assert loss.mark is not None
    assert (loss.mark.x, loss.mark.text) == (100.0, "step 40: 1.5")
    assert loss.mark.y == round(100 - loss.y.at(1.5), 2)
    assert accuracy.mark is not None
    assert accuracy.mark.text == "step 40: 0.9"
    assert (accuracy.mark.x, accuracy.mark.y) == accuracy.curves[0].dots[-1]


@pytest.mark.parametrize(("best", "told"), [(25, "step 25"), (None, None), (41, None), (-1, None)])
def test_mark_without_a_validation_at_its_step(best: int | None, told: str | None) -> None:
    history = [{"step": s, "eval_loss": 1.0} for s in (20, 40)]
    chart = curves.loss_chart(story(history, best))
    assert chart is not None
    assert (chart.mark.text if chart.mark else None) == told
    assert chart.mark is None or chart.mark.y is None


@pytest.mark.parametrize(
    ("metric", "first"),
    [("field_f1", "Validation field f1"), ("eval_field_f1", "Validation field f1")],
)
def test_metrics_begin_with_the_one_that_decided(
    metric: str, first: str, log: Log, train: Train
) -> None:
    charts = curves.metric_charts(train(log(metric=metric)))
    assert [chart.title for chart in charts] == [first, "Validation exact match"]


def test_figures_of_the_validation_itself_are_no_metrics() -> None:
    line = {"step": 1, "eval_loss": 1.0, "eval_runtime": 3.0, "eval_samples_per_second": 9.0}
    assert curves.metric_charts(story([line])) == []


def test_one_point_is_a_dot() -> None:
    history = [{"step": 7, "loss": 1.0, "grad_norm": 0.0}, {"step": 7, "eval_loss": 1.0}]
    chart = curves.loss_chart(story(history, 7))
    assert chart is not None
    assert [curve.lines for curve in chart.curves] == [(), ()]
    assert chart.curves[0].dots == chart.curves[1].dots == ((100.0, 50.0),)
    (norm,) = curves.small_charts(story(history))
    assert norm.curves[0].dots == ((100.0, 100.0),)


def test_nothing_logged_draws_nothing() -> None:
    for history in ([], losses(None), losses(NAN), [{"loss": 1.0}]):
        training = story(history, 1)
        assert curves.loss_chart(training) is None
        assert curves.metric_charts(training) == curves.small_charts(training) == []


def test_small_charts_share_the_steps_and_start_at_nought(log: Log, train: Train) -> None:
    charts = curves.small_charts(train(log()))
    assert [chart.title for chart in charts] == [
        "Learning rate",
        "Gradient norm",
        "Tokens/s",
        "Memory, GiB",
    ]
    assert {(chart.x.low, chart.x.high, chart.y.low) for chart in charts} == {(0, 342, 0)}


@pytest.mark.parametrize(
    "values", [(1e29, 1e-29), (5.0, 5.0), (0.0, 0.0), (1.0, 1.0 + 1e-15), (-2.0, -1.0), (1e-300,)]
)
def test_any_values_stay_within_the_chart(values: tuple[float, ...]) -> None:
    chart = curves.loss_chart(story(losses(*values)))
    assert chart is not None
    (curve, _) = chart.curves
    placed = [point for line in (*curve.lines, curve.dots) for point in line]
    assert len(placed) == len(values)
    assert all(0 <= y <= 100 for _, y in placed)


@pytest.mark.parametrize(
    ("plan", "ends"),
    [
        ({"steps_per_epoch": 4}, (40.0, 80.0)),
        ({"schedule": {"steps_an_epoch": 5}}, (50.0, 100.0)),
        ({"steps_per_epoch": 0}, ()),
        ({"steps_per_epoch": 0.1}, ()),
        ({}, ()),
        (None, ()),
    ],
)
def test_epochs_end_where_the_plan_says(plan: dict[str, Any] | None, ends: tuple[float]) -> None:
    chart = curves.loss_chart(story(losses(*range(10)), plan=plan))
    assert chart is not None
    assert chart.epochs == ends


def test_chart_is_told_in_words() -> None:
    history = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 0.5}, {"step": 3, "loss": 0.75}]
    chart = curves.loss_chart(story(history))
    assert chart is not None
    assert chart.told == "training from 0.5 to 2, last 0.75"
