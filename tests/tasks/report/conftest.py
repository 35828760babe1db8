"""A realistic run over the sample data: its summary for every outcome, and its story."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.artifacts import MetricDifference, RunSummary, Score
from tasks.report.answers import ScoredAnswer, choose, count_verdicts
from tasks.report.story import DataStory, Story, TrainingStory

GOLDEN = Path(__file__).parents[3] / "deployments" / "sample" / "golden.jsonl"
N = 200
SHA = "3f1c9b7a2e8d4605b1c7f0a9d2e6483b5c8f7a1e0d3b6942c5e8f1a7b0d39264"
BUCKET = "s3://retune"
Summarise = Callable[..., RunSummary]


@pytest.fixture
def summarise() -> Summarise:
    return make_summary


@pytest.fixture
def story() -> Story:
    return make_story()


def make_summary(outcome: str = "promoted", **changes: Any) -> RunSummary:
    """The summary of a run that ended with ``outcome``: one of the gate's, or ``failed``."""
    fields = _completed(outcome) if outcome != "failed" else _failed()
    return RunSummary.model_validate({**fields, **changes})


def make_story() -> Story:
    rows = scored_answers()
    return Story(
        data=_data(),
        training=_training(),
        answers=choose(rows),
        config_yaml=CONFIG,
        num_by_verdict=count_verdicts(rows),
    )


def scored_answers() -> list[ScoredAnswer]:
    """The golden rows, answered as a small base model and its fine-tuned candidate might."""
    rows = []
    for i, line in enumerate(GOLDEN.read_text(encoding="utf-8").splitlines()):
        row = json.loads(line)
        prompt, expected = (m["content"] for m in row["messages"])
        baseline, candidate = _baseline(expected, i), _candidate(expected, i)
        scored = ScoredAnswer(
            id=row["conversation_id"],
            prompt=prompt,
            expected=expected,
            baseline_role="base",
            baseline=baseline,
            candidate=candidate,
            baseline_score=float(baseline == expected),
            candidate_score=float(candidate == expected),
        )
        rows.append(scored)
    return rows


def _baseline(expected: str, i: int) -> str:
    if i % 5 == 0:
        return expected
    if i % 5 == 1:
        return "Sure! Here is the ticket for the customer: they have a problem with their order."
    return _changed(expected, urgency="high", summary="Customer has a problem", priority=i % 5)


def _candidate(expected: str, i: int) -> str:
    if i % 20 == 0:
        return _changed(expected, category="question")
    if i % 7 == 3:
        return _changed(expected, product=None)
    return expected


def _changed(expected: str, **fields: object) -> str:
    ticket = json.loads(expected) | fields
    if "priority" in fields:
        del ticket["order_id"]
    return json.dumps(ticket)


def _score(value: float, half: float = 0.06, n: int = N) -> Score:
    return Score(value=value, ci_low=value - half, ci_high=value + half, n=n)


def _metrics(role: str) -> dict[str, Score]:
    """Scores of a small model on tickets; the candidate writes almost every ticket right."""
    level = {"base": 0.2, "base_few_shot": 0.41, "champion": 0.735, "candidate": 0.81}[role]
    return {
        "exact_match": _score(level),
        "field_f1": _score(min(0.97, level + 0.13), 0.03),
        "json_validity": _score(0.98 if level > 0.5 else 0.6, 0.02),
        "latency_p50_ms": _score(412.0 + 90 * level, 21.5, n=12),
    }


def _difference(metric: str, rule: str, baseline: str, *figures: float) -> MetricDifference:
    difference, low, high, margin = figures
    verdict = "passed" if low > (margin if rule == "superiority" else -margin) else "inconclusive"
    if difference < -margin:
        verdict = "failed"
    theirs, ours = (_metrics(r)[metric].value for r in (baseline, "candidate"))
    return MetricDifference.model_validate(
        {
            "metric": metric,
            "rule": rule,
            "baseline": baseline,
            "candidate_value": theirs + difference if metric != "latency_p50_ms" else ours,
            "baseline_value": theirs,
            "difference": difference,
            "ci_low": low,
            "ci_high": high,
            "n": N,
            "margin": margin,
            "verdict": verdict,
        }
    )


def _differences(outcome: str) -> list[MetricDifference]:
    if outcome == "no_change":
        return []
    if outcome in ("promoted", "canary"):
        primary = ("exact_match", "superiority", "base", 0.61, 0.535, 0.68, 0.0)
        guard = ("field_f1", "non_inferiority", "base", 0.48, 0.43, 0.53, 0.02)
        latency = ("latency_p50_ms", "non_inferiority", "base", -54.9, -71.0, -38.0, 100.0)
    else:
        primary = ("exact_match", "superiority", "champion", 0.02, -0.03, 0.07, 0.0)
        guard = ("field_f1", "non_inferiority", "champion", 0.004, -0.012, 0.019, 0.02)
        latency = ("latency_p50_ms", "non_inferiority", "champion", -6.8, -20.0, 8.0, 50.0)
    found = [_difference(*primary), _difference(*guard), _difference(*latency)]
    if outcome == "blocked":
        worse = ("json_validity", "non_inferiority", "champion", -0.055, -0.085, -0.025, 0.02)
        found.insert(2, _difference(*worse))
    return found


def _completed(outcome: str) -> dict[str, Any]:
    differences = _differences(outcome)
    first = outcome in ("promoted", "canary")
    roles = ["base", "base_few_shot", *([] if first else ["champion"]), "candidate"]
    reasons = [
        f"{d.metric} {d.verdict}: candidate {d.candidate_value:.3f}, {d.baseline} "
        f"{d.baseline_value:.3f}, difference {d.difference:+.3f} [{d.ci_low:+.3f}, "
        f"{d.ci_high:+.3f}], n={d.n}."
        for d in differences
    ]
    if not reasons:
        reasons = ["The candidate is the champion itself (3f1c9b7a2e8d): nothing to decide."]
    version = {"version": "7", "alias": "champion"} if outcome == "promoted" else {}
    return {
        **_common(),
        "status": "completed",
        "decision": outcome,
        "reasons": reasons,
        "metrics": {role: _metrics(role) for role in roles},
        "differences": differences,
        "model": {"name": "support-tickets", **version, "adapter_digest": SHA[::-1]},
        "cost": {"seconds": {"cpu (2 cores)": 642.7, "NVIDIA H200": 211.0}, "currency": None},
        "judge": "not run (no ANTHROPIC_API_KEY in the environment)",
        "seconds": 868.4,
        "overhead_seconds": 4.9,
    }


def _failed() -> dict[str, Any]:
    common = _common()
    stages = common["stages"][:3]
    stages.append(
        {
            "name": "train",
            "state": "failed",
            "seconds": 12.4,
            "error": "OutOfMemoryError: 9.1 GiB wanted, 7.6 GiB free. Lower `train.batch_size`.",
        }
    )
    return {
        **common,
        "status": "failed",
        "decision": None,
        "reasons": [],
        "stages": stages,
        "seconds": 41.0,
        "overhead_seconds": 3.1,
    }


def _common() -> dict[str, Any]:
    stages = [
        ("ingest", None, "completed", 1.9, 1512, 1500),
        ("clean", None, "completed", 24.8, 1500, 1139),
        ("format", None, "cached", 0.2, 1021, 1021),
        ("train", None, "completed", 511.6, 911, 911),
        ("evaluate", "base_few_shot", "cached", 0.3, 200, 200),
        ("evaluate", "candidate", "completed", 318.9, 200, 200),
        ("gate", None, "completed", 1.4, None, None),
        ("promote", None, "completed", 3.6, None, None),
    ]
    names = ("name", "subject", "state", "seconds", "num_in", "num_out")
    uris = [f"{BUCKET}/{stage[0]}/{SHA}/" for stage in stages]
    return {
        "flow_run_id": "8c0e6d52-1f5a-4b8e-9d57-6a2b1c3d4e5f",
        "flow_run_name": "amber-heron",
        "name": "support-tickets",
        "stages": [
            {**dict(zip(names, s, strict=True)), "uri": u}
            for s, u in zip(stages, uris, strict=True)
        ],
        "data": {
            "digest": SHA,
            "uri": f"{BUCKET}/clean/{SHA}/",
            "num_train": 911,
            "num_validation": 110,
            "num_test": 118,
            "num_golden": 200,
        },
        "lineage": {
            "base_model": "HuggingFaceTB/SmolLM2-135M-Instruct",
            "base_digest": SHA,
            "base_license": "apache-2.0",
            "config_digest": SHA,
            "code_digest": SHA[::-1],
            "mlflow_run_id": None,
        },
    }


def _data() -> DataStory:
    texts = [row.prompt for row in scored_answers()[:12]]
    rejected = {
        "empty_assistant_turn": 24,
        "answer_not_json": 31,
        "answer_off_schema": 19,
        "exact_duplicate": 88,
        "golden_overlap": 40,
        "near_duplicate": 134,
        "gibberish": 25,
    }
    samples = [
        {
            "reason": reason,
            "where": f"production.jsonl:{17 * (i + 3 * j)}",
            "detail": "similarity 0.93 to 5c1f0a77" if "dup" in reason else "expected an object",
            "text": texts[(i + j) % len(texts)],
        }
        for i, reason in enumerate(rejected)
        for j in range(2)
    ]
    return DataStory(
        num_by_source={"human": 496, "production": 598, "synthetic": 406},
        num_quarantined=12,
        steps=[
            ("read", 1500),
            ("form", 1426),
            ("exact_duplicate", 1338),
            ("golden_overlap", 1298),
            ("near_duplicate", 1164),
            ("gibberish", 1139),
        ],
        num_rejected=rejected,
        num_redacted={"PERSON": 71, "EMAIL_ADDRESS": 63, "PHONE_NUMBER": 22, "CREDIT_CARD": 9},
        splits={"train": 911, "validation": 110, "test": 118},
        samples=samples,
    )


def _training() -> TrainingStory:
    history: list[dict[str, Any]] = [
        {"step": s, "loss": 0.21 + 2.6 * math.exp(-s / 38) + 0.05 * math.sin(s), "grad_norm": 0.8}
        for s in range(5, 345, 5)
    ]
    history += [
        {"step": s, "eval_loss": 0.3 + 2.2 * math.exp(-s / 40) + max(0, s - 228) / 1500}
        for s in range(38, 343, 38)
    ]
    figures = {
        "num_steps": 342,
        "seconds": 511.6,
        "tokens_per_second": 1184.3,
        "num_trained_tokens": 121_480,
        "train_loss": 0.2412,
        "validation_loss": 0.3071,
    }
    return TrainingStory(history=history, best_step=228, figures=figures)


CONFIG = """name: support-tickets
task:
  kind: structured
train:
  learning_rate: 0.0002
  num_epochs: 3
gate:
  primary: exact_match
"""
