"""Answers -> what each contributed to each metric, and the scores with their intervals."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

import numpy as np

from tasks.anthropic_client import make_client
from tasks.artifacts import TaskConfig
from tasks.evaluate import judge
from tasks.evaluate.answers import Answer
from tasks.evaluate.behaviour import behaviour
from tasks.evaluate.chosen import chosen_metrics
from tasks.evaluate.config import EvaluateConfig, JudgeConfig
from tasks.evaluate.judge import JudgeResult
from tasks.evaluate.preference import Preferences, prefer
from tasks.evidence import Score
from tasks.intervals import interval
from tasks.objects import Store
from tasks.scores import MetricScores

logger = logging.getLogger(__name__)
LATENCY = "latency_p50_ms"


def score(
    answers: Sequence[Answer], config: EvaluateConfig, task: TaskConfig, store: Store
) -> tuple[dict[str, MetricScores], dict[str, str], float]:
    """Every metric's statistics by name, why those that lack were not measured, and the dollars
    that the judge cost.
    """
    predictions = [a.answer for a in answers]
    references = [a.reference for a in answers]
    scores = {
        metric.name: MetricScores(
            metric.name,
            metric.reducer,
            metric.higher_is_better,
            metric.stats(predictions, references),
            bounds=metric.bounds if metric.reducer == "mean" else None,
        )
        for metric in chosen_metrics(config, task)
    }
    scores |= behaviour(answers)
    scores |= _latency(answers)
    result = _judge(answers, config.judge, store)
    graded = judge.metric_scores(result)
    if graded is None:
        return scores, {judge.METRIC: result.status}, result.spent_usd
    return scores | {judge.METRIC: graded}, {}, result.spent_usd


def compare(
    ours: Sequence[Answer], theirs: Sequence[Answer], config: JudgeConfig, store: Store
) -> Preferences:
    """Which answers the judge prefers; without a judge nothing but why."""
    state = config.state(os.environ)
    if state == "run" and not config.pairwise:
        state = "switched off in evaluate.judge.pairwise"
    if state != "run":
        return Preferences({}, {}, state)
    others = {a.id: a.answer for a in theirs}
    with make_client(os.environ, config.max_retries) as client:
        found = prefer(ours, others, config, client, store)
    for identity, reason in found.failures.items():
        logger.warning("judge: no preference for %s: %s", identity[:12], reason)
    return found


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


def _judge(answers: Sequence[Answer], config: JudgeConfig, store: Store) -> JudgeResult:
    state = config.state(os.environ)
    if state != "run":
        return JudgeResult({}, {}, state)
    rows = [judge.JudgedRow(a.id, a.prompt, a.reference, a.answer) for a in answers]
    with make_client(os.environ, config.max_retries) as client:
        result = judge.judge_answers(rows, config, client, store)
    for identity, reason in result.failures.items():
        logger.warning("judge: no grade for %s: %s", identity[:12], reason)
    return result
