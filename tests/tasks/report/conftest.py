"""A realistic run over the sample data: its summary for every outcome, and its story."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.artifacts import Adapter, BaseModelRef, FormattedDataset
from tasks.evidence import MetricDifference, RunSummary, Score
from tasks.report.answers import ScoredAnswer, choose, count_verdicts
from tasks.report.formatting import example, format_check
from tasks.report.story import CheckStory, DataStory, Story, TrainingStory
from tasks.report.training_log import training_story

GOLDEN = Path(__file__).parents[3] / "deployments" / "sample" / "golden.jsonl"
N = 200
FIRST_RUNS = ("promoted", "canary")  # no champion yet: the base model is the one to beat
RUN = json.loads(Path(__file__).with_name("run.json").read_text(encoding="utf-8"))
Summarise = Callable[..., RunSummary]
Log = Callable[..., dict[str, Any]]
Train = Callable[..., TrainingStory]


@pytest.fixture
def summarise() -> Summarise:
    return make_summary


@pytest.fixture
def log() -> Log:
    return make_log


@pytest.fixture
def train() -> Train:
    return make_training


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
        training=make_training(make_log()),
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


def _metrics(role: str) -> dict[str, Score]:
    """Scores as a small model reaches them on tickets: exact_match, then the rest."""
    exact, f1, validity, milliseconds = {
        "base": (0.2, 0.46, 0.6, 430.0),
        "base_few_shot": (0.41, 0.62, 0.84, 449.0),
        "champion": (0.79, 0.936, 0.98, 478.0),
        "candidate": (0.81, 0.94, 0.925, 485.0),
    }[role]
    return {
        "exact_match": _score(exact, 0.06),
        "field_f1": _score(f1, 0.03),
        "json_validity": _score(validity, 0.02),
        "latency_p50_ms": _score(milliseconds, 21.5, n=12),
    }


def _score(value: float, half: float, n: int = N) -> Score:
    return Score(value=value, ci_low=value - half, ci_high=value + half, n=n)


def _difference(
    metric: str, rule: str, baseline: str, half: float, margin: float
) -> MetricDifference:
    theirs, ours = (_metrics(role)[metric].value for role in (baseline, "candidate"))
    difference = (theirs - ours) if metric.endswith("_ms") else (ours - theirs)
    threshold = margin if rule == "superiority" else -margin
    verdict = "passed" if difference - half > threshold else "inconclusive"
    return MetricDifference.model_validate(
        {
            "metric": metric,
            "rule": rule,
            "baseline": baseline,
            "candidate_value": ours,
            "baseline_value": theirs,
            "difference": difference,
            "ci_low": difference - half,
            "ci_high": difference + half,
            "n": N,
            "margin": margin,
            "verdict": "failed" if difference < -margin else verdict,
        }
    )


def _differences(outcome: str) -> list[MetricDifference]:
    if outcome == "no_change":
        return []
    baseline = "base" if outcome in FIRST_RUNS else "champion"
    rules = [
        ("exact_match", "superiority", 0.05, 0.0),
        ("field_f1", "non_inferiority", 0.016, 0.02),
    ]
    if outcome == "blocked":
        rules.append(("json_validity", "non_inferiority", 0.03, 0.02))
    rules.append(("latency_p50_ms", "non_inferiority", 14.0, 100.0))
    return [_difference(metric, rule, baseline, *figures) for metric, rule, *figures in rules]


def _completed(outcome: str) -> dict[str, Any]:
    differences = _differences(outcome)
    others = ["base", "base_few_shot", *([] if outcome in FIRST_RUNS else ["champion"])]
    reasons = [
        f"{d.metric} {d.verdict}: candidate {d.candidate_value:.3f}, {d.baseline} "
        f"{d.baseline_value:.3f}, difference {d.difference:+.3f} [{d.ci_low:+.3f}, "
        f"{d.ci_high:+.3f}], n={d.n}."
        for d in differences
    ]
    if outcome == "no_change":
        reasons = ["The candidate is the champion itself (3f1c9b7a2e8d): nothing to decide."]
    else:
        reasons.append("judge: not run (candidate: no API key), decided without it.")
    version = {"version": "7", "alias": "champion"} if outcome == "promoted" else {}
    return {
        **RUN["summary"],
        "status": "completed",
        "decision": outcome,
        "reasons": reasons,
        "metrics": {role: _metrics(role) for role in (*others, "candidate")},
        "differences": differences,
        "model": {"name": "support-tickets", **version, "adapter_digest": 8 * "4629d0b7"},
        "cost": {"seconds": {"cpu (2 cores)": 642.7, "NVIDIA H200": 211.0}},
        "judge": "not run (no ANTHROPIC_API_KEY in the environment)",
        "seconds": 868.4,
        "overhead_seconds": 4.9,
    }


def _failed() -> dict[str, Any]:
    error = "OutOfMemoryError: 9.1 GiB wanted, 7.6 GiB free. Lower `train.batch_size`."
    failed = {"name": "train", "state": "failed", "seconds": 12.4, "error": error}
    return {
        **RUN["summary"],
        "status": "failed",
        "decision": None,
        "reasons": [],
        "stages": [*RUN["summary"]["stages"][:3], failed],
        "seconds": 41.0,
        "overhead_seconds": 3.1,
    }


def _data() -> DataStory:
    texts = [row.prompt for row in scored_answers()[:12]]
    fields = dict(RUN["data"])
    checks = []
    for i, check in enumerate(fields.pop("checks")):
        samples = [
            {
                "reason": reason,
                "where": f"production.jsonl:{17 * (i + 3 * j)}",
                "detail": "similarity 0.93 to 5c1f0a77"
                if "dup" in reason
                else "expected an object",
                "text": texts[(i + j) % len(texts)],
            }
            for reason in check.get("num_rejected", {})
            for j in range(2)
        ]
        checks.append(CheckStory(**check, samples=samples))
    formatted = format_check(RUN["format"], {"too_long": 3, "special_token": 1}, 1139)
    return DataStory(checks=[*checks, formatted], example=example(RUN["format"]), **fields)


def make_log(**changes: Any) -> dict[str, Any]:
    """The ``log.json`` of a training that logged every 5 steps and validated every 38."""
    history: list[dict[str, Any]] = []
    for step in range(5, 345, 5):
        warm = min(1.0, step / 17)
        line = {
            "loss": 0.21 + 2.6 * math.exp(-step / 38) + 0.05 * math.sin(step),
            "learning_rate": 2e-4 * warm * 0.5 * (1 + math.cos(math.pi * step / 342)),
            "grad_norm": 0.8 + 3 * math.exp(-step / 20) + 0.3 * math.sin(1.7 * step),
            "tokens_per_second": 1184 + 40 * math.sin(step) - 600 * math.exp(-step / 10),
            "memory_gib": 3.1 + min(0.6, step / 200),
        }
        history.append({"step": step, **line})
    for step in range(38, 343, 38):
        loss = 0.3 + 2.2 * math.exp(-step / 40) + max(0, step - 228) / 1500
        f1 = 0.94 - 0.7 * math.exp(-step / 60) - max(0, step - 266) / 2000
        exact = f1 - 0.12
        validation = {"eval_loss": loss, "eval_field_f1": f1, "eval_exact_match": exact}
        history.append({"step": step, **validation, "eval_runtime": 3.2, "memory_gib": 3.7})
    return {**json.loads(json.dumps(RUN["log"])), "history": history, **changes}


def make_training(log: dict[str, Any], best_step: int = 266) -> TrainingStory:
    base = BaseModelRef(id="b", digest="d")
    adapter = Adapter(
        uri="s3://retune/train/a",
        digest="a",
        base_model=base,
        adapter_digest="a",
        training_run_id="m",
        num_steps=342,
        best_step=best_step,
        train_loss=0.24,
        validation_loss=0.3281,
        tokens_per_second=1184.3,
        seconds=511.6,
    )
    formatted = FormattedDataset(
        uri="s3://retune/format/f",
        digest="f",
        base_model=base,
        num_train=911,
        num_validation=110,
        num_rejected={},
        num_tokens=201_900,
        num_trained_tokens=40_493,
        max_length=487,
    )
    return training_story(log, adapter, formatted)


CONFIG = """name: support-tickets
task:
  kind: structured
train:
  learning_rate: 0.0002
  num_epochs: 3
gate:
  primary: exact_match
"""
