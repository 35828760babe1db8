"""Answers -> what each contributed to each metric, and the scores with their intervals."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

import numpy as np

from tasks.anthropic_client import make_client
from tasks.artifacts import Score, TaskConfig
from tasks.evaluate import judge
from tasks.evaluate.answers import Answer
from tasks.evaluate.behaviour import behaviour
from tasks.evaluate.config import EvaluateConfig
from tasks.intervals import interval
from tasks.metrics import metrics_for
from tasks.scores import MetricScores

logger = logging.getLogger(__name__)
LATENCY = "latency_p50_ms"


def score(
    answers: Sequence[Answer], config: EvaluateConfig, task: TaskConfig
) -> tuple[dict[str, MetricScores], dict[str, str]]:
    """Every metric's statistics by name, and why those that lack were not measured."""
    predictions = [a.answer for a in answers]
    references = [a.reference for a in answers]
    scores = {
        metric.name: MetricScores(
            metric.name,
            metric.reducer,
            metric.higher_is_better,
            metric.stats(predictions, references),
            bounds=(0, 1) if metric.reducer == "mean" else None,
        )
        for metric in metrics_for(task.kind, config.metrics)
    }
    scores |= behaviour(answers)
    scores |= _latency(answers)
    graded, status = _judge(answers, config)
    return scores | graded, {} if graded else {judge.METRIC: status}


def summarise(scores: dict[str, MetricScores], config: EvaluateConfig) -> dict[str, Score]:
    """Each metric's value with its confidence interval."""
    return {
        name: interval(
            metric, confidence=config.confidence, resamples=config.resamples, seed=config.seed
        )
        for name, metric in scores.items()
    }


def _latency(answers: Sequence[Answer]) -> dict[str, MetricScores]:
    timed = [(a.id, a.latency_ms) for a in answers if a.latency_ms is not None]
    if not timed:
        return {}
    stats = np.array([[ms] for _, ms in timed])
    ids = tuple(identity for identity, _ in timed)
    return {LATENCY: MetricScores(LATENCY, "median", False, stats, ids)}


def _judge(
    answers: Sequence[Answer], config: EvaluateConfig
) -> tuple[dict[str, MetricScores], str]:
    state = config.judge.state(os.environ)
    if state != "run":
        return {}, state
    rows = [judge.JudgedRow(a.id, a.prompt, a.reference, a.answer) for a in answers]
    with make_client(os.environ, config.judge.max_retries) as client:
        result = judge.judge_answers(rows, config.judge, client)
    for identity, reason in result.failures.items():
        logger.warning("judge: no grade for %s: %s", identity[:12], reason)
    graded = judge.metric_scores(result)
    return ({judge.METRIC: graded} if graded else {}), result.status
