"""How training went -> what the page says of it beside the curves: sentences and small tables."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.report import curves
from tasks.report.story import TrainingStory
from tasks.report.training_log import EVAL_LOSS, chosen_by, plan_of
from tasks.report.wording import duration, flat, label, measure, quantity

_METHODS = {"lora": "LoRA", "qlora": "QLoRA", "full": "Full fine-tuning"}
_PLANNED = {
    "steps": "Steps",
    "evaluations": "Validations",
    "tokens": "Tokens",
    "trained_tokens": "Trained tokens",
    "seconds": "Time",
    "memory_gib": "Memory",
    "usd": "Cost",
}


@dataclass(frozen=True, slots=True)
class Planned:
    """One line of planned against actual; ``change`` is the difference in per cent of the plan."""

    name: str
    planned: str
    actual: str
    change: str


@dataclass(frozen=True, slots=True)
class Variant:
    """One training of a sweep."""

    overrides: str
    value: str
    best_step: str
    chosen: bool


@dataclass(frozen=True, slots=True)
class TrainingView:
    """Everything that the page shows of a training; what the log lacks is empty."""

    loss: curves.Chart | None
    metrics: Sequence[curves.Chart]
    small: Sequence[curves.Chart]
    figures: Sequence[tuple[str, str]]
    settings: str
    hardware: str
    planned: Sequence[Planned]
    metric: str
    sweep: Sequence[Variant]
    notes: Sequence[str]


def view(training: TrainingStory) -> TrainingView:
    """The curves, figures, tables and sentences of one training."""
    log, plan = training.log, plan_of(training.log)
    return TrainingView(
        loss=curves.loss_chart(training),
        metrics=curves.metric_charts(training),
        small=curves.small_charts(training),
        figures=list(flat(training.figures)),
        settings=" · ".join(_settings(log)),
        hardware=str(plan.get("hardware") or ""),
        planned=list(_planned(plan, training.actual)),
        metric=_metric(log),
        sweep=[_variant(variant) for variant in log.get("sweep") or []],
        notes=[*map(str, log.get("notes") or []), *_merge(log.get("merge"))],
    )


def _metric(log: Mapping[str, Any]) -> str:
    name = chosen_by(log)
    return "validation loss" if name == EVAL_LOSS else label(name.removeprefix("eval_"))


def _settings(log: Mapping[str, Any]) -> Iterator[str]:
    """What a person asks first: how the weights were adapted, the batch, the rate, the seeds."""
    settings = log.get("settings") or {}
    method = log.get("method") or settings.get("method")
    if method:
        yield _METHODS.get(method, str(method)) + _lora(settings if method != "full" else {})
    engine = log.get("engine") or settings.get("engine")
    if engine:
        yield f"engine {engine}"
    batch = {
        "": log.get("micro_batch"),
        "accumulated": log.get("accumulation"),
        "processes": log.get("num_processes"),
    }
    if batch[""]:
        yield _batch(batch)
    if "learning_rate" in settings:
        schedule = label(str(settings.get("schedule", "")))
        yield f"learning rate {measure(settings['learning_rate'])} {schedule}".strip()
    if "epochs" in settings:
        yield f"{settings['epochs']:g} epochs"
    if "precision" in settings:
        yield str(settings["precision"])
    seeds = log.get("seeds") or {}
    if seeds:
        yield _seeds(seeds)


def _lora(settings: Mapping[str, Any]) -> str:
    lora = settings.get("lora") or {}
    parts = [f"{name} {lora[name]}" for name in ("r", "alpha", "dropout") if name in lora]
    parts += [name for name in ("rslora", "dora") if lora.get(name)]
    return f" ({', '.join(parts)})" if parts else ""


def _batch(batch: Mapping[str, int | None]) -> str:
    """Rows a step as the product that it is, such as 8, 2 accumulated, 4 processes: 64."""
    parts = {name: count for name, count in batch.items() if count and (count > 1 or not name)}
    rows = f"{math.prod(parts.values()):,} rows a step"
    if len(parts) == 1:
        return rows
    return " × ".join(f"{count:,} {name}".strip() for name, count in parts.items()) + f" = {rows}"


def _seeds(seeds: Mapping[str, Any]) -> str:
    """One number where all seeds are the same, as they are unless someone set them apart."""
    values = set(map(str, seeds.values()))
    if len(values) == 1:
        return f"seed {values.pop()}"
    return "seeds " + ", ".join(f"{label(name)} {value}" for name, value in seeds.items())


def _planned(plan: Mapping[str, Any], actual: Mapping[str, Any]) -> Iterator[Planned]:
    for name, title in _PLANNED.items():
        wanted, used = plan.get(name), actual.get(name)
        if wanted is not None:
            shown = _amount(name, wanted) + _range(name, plan)
            yield Planned(title, shown, _amount(name, used), _change(wanted, used))


def _range(name: str, plan: Mapping[str, Any]) -> str:
    low, high = plan.get(f"{name}_low"), plan.get(f"{name}_high")
    if low is None or high is None or low == high:
        return ""
    return f" ({_amount(name, low)} to {_amount(name, high)})"


def _amount(name: str, value: Any) -> str:
    if value is None or not math.isfinite(value):
        return "–" if value is None else measure(value)
    if name == "usd":
        return f"${value:,.2f}" if value >= 0.01 or not value else "under $0.01"
    if name == "memory_gib":
        return f"{value:,.1f} GiB" if value >= 1 else f"{value:.2f} GiB"
    return duration(value) if name == "seconds" else quantity(name, value)


def _change(planned: float, used: float | None) -> str:
    if used is None or not planned or not math.isfinite(used / planned):
        return ""
    per_cent = round(100 * (used / planned - 1))
    if not per_cent:
        return "as planned"
    sign = "+" if per_cent > 0 else "\N{MINUS SIGN}"
    return f"{sign}{abs(per_cent):,} %"


def _variant(variant: Mapping[str, Any]) -> Variant:
    value, step = variant.get("value"), variant.get("best_step")
    return Variant(
        overrides=", ".join(_overrides(variant.get("overrides") or {})) or "as configured",
        value="–" if value is None else measure(value),
        best_step="–" if step is None else str(step),
        chosen=bool(variant.get("chosen")),
    )


def _overrides(overrides: Mapping[str, Any], path: str = "") -> Iterator[str]:
    for name, value in overrides.items():
        if isinstance(value, Mapping):
            yield from _overrides(value, f"{path}{name}.")
        else:
            shown = measure(value) if isinstance(value, float) else str(value)
            yield f"{path}{name} {shown}"


def _merge(merge: Mapping[str, Any] | None) -> list[str]:
    """How closely the merged model follows base model and adapter."""
    if not merge:
        return []
    dtype = f" ({merge['dtype']})" if merge.get("dtype") else ""
    tokens = merge.get("num_tokens")
    over = f" on {tokens:,} tokens of real prompts" if tokens is not None else ""
    facts = []
    if merge.get("max_logprob_difference") is not None:
        largest = measure(merge["max_logprob_difference"])
        facts.append(f"log-probabilities differ by at most {largest}")
    if merge.get("argmax_agreement") is not None:
        share = math.floor(10_000 * merge["argmax_agreement"]) / 100  # 99.999 % is not all of them
        facts.append(f"the likeliest token is the same in {share:g} %")
    told = ", ".join(facts) or "no figures were kept"
    return [f"The merged model{dtype} was checked against the adapter{over}: {told}."]
