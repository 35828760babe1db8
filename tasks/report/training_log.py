"""The adapter's ``log.json`` -> how training went, whoever wrote the log and however little."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tasks.artifacts import Adapter, FormattedDataset
from tasks.report.story import TrainingStory

EVAL_LOSS = "eval_loss"
_GIB = 2**30


def training_story(
    log: Mapping[str, Any], adapter: Adapter, formatted: FormattedDataset
) -> TrainingStory:
    """History and figures of a training; figures that the log does not hold are left out."""
    history = log.get("history") or []
    return TrainingStory(
        history=history,
        best_step=adapter.best_step,
        figures=_figures(log, adapter, formatted),
        log={name: value for name, value in log.items() if name != "history"},
        actual=_actual(log, adapter),
    )


def training_facts(story: TrainingStory) -> dict[str, Any]:
    """The same for the summary: all but the curves."""
    return {"best_step": story.best_step, **story.log, "actual": dict(story.actual)}


def chosen_by(log: Mapping[str, Any]) -> str:
    """Name in the history of what the checkpoint was chosen by."""
    return "eval_" + str(log.get("metric") or EVAL_LOSS).removeprefix("eval_")


def plan_of(log: Mapping[str, Any]) -> dict[str, Any]:
    """The plan by the names that the page uses; the parts of a record of several are found in it.

    ``steps_per_epoch``, ``steps``, ``evaluations``, ``tokens``, ``trained_tokens``, ``seconds``
    with ``seconds_low`` and ``seconds_high``, ``memory_gib``, ``usd``, ``hardware``.
    """
    plan = dict(log.get("plan") or {})
    memory, hardware = _part(plan, "memory"), _part(plan, "hardware")
    plan |= _part(plan, "schedule")
    plan.setdefault("steps_per_epoch", plan.get("steps_an_epoch"))
    if memory:
        plan.setdefault("memory_gib", sum(memory.values()) / _GIB)
    if hardware:
        plan["hardware"] = hardware.get("name")
    return plan


def _part(plan: Mapping[str, Any], name: str) -> dict[str, Any]:
    part = plan.get(name)
    return dict(part) if isinstance(part, Mapping) else {}


def _figures(
    log: Mapping[str, Any], adapter: Adapter, formatted: FormattedDataset
) -> dict[str, float | int | str | None]:
    metric = chosen_by(log)
    figures: dict[str, float | int | str | None] = {
        "steps": adapter.num_steps,
        "tokens/s": _rounded(adapter.tokens_per_second),
        "seconds": _rounded(adapter.seconds),
        "training rows": formatted.num_train,
        "trained tokens an epoch": formatted.num_trained_tokens,
        "best validation loss": round(adapter.validation_loss, 4),
    }
    if metric != EVAL_LOSS:
        loss = figures.pop("best validation loss")
        figures[f"best {metric.removeprefix('eval_')}"] = _best(log, metric, adapter.best_step)
        figures["its validation loss"] = loss  # need not be the least
    lost = log.get("checkpoint_seconds") or {}
    more = {
        "seconds to first step": log.get("first_step_seconds"),
        "seconds lost to checkpoints": lost.get("held"),
        "seconds of checkpoint uploads": lost.get("upload"),
    }
    return figures | {name: value for name, value in more.items() if value is not None}


def _best(log: Mapping[str, Any], metric: str, step: int) -> float | None:
    found = [line[metric] for line in log.get("history") or [] if _is_at(line, step, metric)]
    return round(found[-1], 4) if found else None


def _is_at(line: Mapping[str, Any], step: int, name: str) -> bool:
    return line.get("step") == step and line.get(name) is not None


def _actual(log: Mapping[str, Any], adapter: Adapter) -> dict[str, float | int | None]:
    """What was used, under the names of the plan."""
    history = log.get("history") or []
    memory = [line["memory_gib"] for line in history if line.get("memory_gib") is not None]
    seconds, speed = adapter.seconds, adapter.tokens_per_second
    tokens = log.get("tokens", _rounded(seconds * speed) if seconds and speed else None)
    return {
        "steps": adapter.num_steps,
        "evaluations": len({line["step"] for line in history if EVAL_LOSS in line}),
        "tokens": tokens,
        "trained_tokens": log.get("trained_tokens"),
        "seconds": seconds,
        "memory_gib": max(memory, default=None),
        "usd": log.get("usd", _usd(log, seconds)),
    }


def _usd(log: Mapping[str, Any], seconds: float) -> float | None:
    """Hardware at the price that the plan reckoned with; an API's price does not go by the hour."""
    if log.get("engine") == "openai":
        return None
    plan = plan_of(log)
    usd, planned, price = plan.get("usd"), plan.get("seconds"), plan.get("usd_per_hour")
    if price is not None:
        return float(price * seconds / 3600)
    return float(usd * seconds / planned) if usd is not None and planned else None


def _rounded(value: float) -> float | int:
    return round(value) if math.isfinite(value) else value
