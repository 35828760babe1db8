"""Figures, names and outcomes as a person reads them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tasks.evidence import MetricDifference, RunSummary, Score, SliceScore

ROLE_NAMES = {
    "base": "base",
    "base_few_shot": "base, few-shot",
    "champion": "champion",
    "candidate": "candidate",
    "reference": "reference",
    "limit": "limit",
}
_MS = " ms"
_SENTENCES = {
    "promoted": "The candidate passed the gate. It is now the champion: the model in production.",
    "canary": "The candidate passed the gate and is to prove itself on a share of live traffic. "
    "Until then production stays as it is.",
    "blocked": "The candidate did not pass the gate. Production stays as it is.",
    "inconclusive": "The evidence does not show that the candidate is better. "
    "Production stays as it is.",
    "no_change": "The run made the same model as the one it is compared with. "
    "Production stays as it is.",
}


@dataclass(frozen=True, slots=True)
class Headline:
    """The outcome in a word, its colour's name, and a sentence."""

    word: str
    tone: str
    sentence: str


def headline(summary: RunSummary) -> Headline:
    """What a reader who knows nothing is to see first."""
    if summary.status != "completed":
        return Headline(summary.status, "failed", _failure(summary))
    if summary.decision is None:
        return Headline("no decision", "no_change", "The run ended without a decision.")
    sentence = f"{_SENTENCES[summary.decision]} {summary.sentence}".rstrip()
    return Headline(label(summary.decision), summary.decision, sentence)


def _failure(summary: RunSummary) -> str:
    failed = [str(s.get("name")) for s in summary.stages if s.get("state") == "failed"]
    where = f" at {' and '.join(dict.fromkeys(failed))}" if failed else ""
    if summary.decision is None:
        return f"The run stopped{where}, before a decision. Production stays as it is."
    return (
        f"The gate's decision was “{label(summary.decision)}”, but the run stopped{where}: look at "
        "the registry before you rely on it."
    )


def label(name: str) -> str:
    """A machine's name as words: ``num_trained_tokens`` to ``trained tokens``."""
    return name.removeprefix("num_").replace("_", " ")


def rule(difference: MetricDifference) -> str:
    """What the gate asks of a metric."""
    unit = _MS if difference.metric.endswith("_ms") else ""
    margin = f"{difference.margin:g}{unit}"
    if difference.rule == "non_inferiority":
        return f"may lose at most {margin}" if difference.margin else "must not lose"
    return f"must gain more than {margin}" if difference.margin else "must improve"


def figure(metric: str, value: float) -> str:
    """A metric's value in its own unit."""
    if metric.endswith("_ms"):
        return f"{value:,.0f}{_MS}"
    if metric.startswith("num_"):
        return f"{value:,.1f}"
    return f"{value:.2f}" if metric == "judge" else f"{value:.3f}"


def gain(metric: str, value: float) -> str:
    """The same for a difference, with its sign."""
    text = figure(metric, abs(value))
    if not any(digit in text for digit in "123456789"):
        return text
    return ("+" if value > 0 else "\N{MINUS SIGN}") + text


def interval(of: Score | MetricDifference | SliceScore, metric: str, signed: bool = False) -> str:
    """A confidence interval; its unit stands with the value beside it."""
    low, high = ((gain if signed else figure)(metric, end) for end in (of.ci_low, of.ci_high))
    return f"[{low.removesuffix(_MS)}, {high.removesuffix(_MS)}]"


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if not math.isfinite(seconds):
        return "not a number"
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def moment(at: datetime) -> str:
    """A date and time with its zone."""
    return f"{at:%Y-%m-%d %H:%M %Z}".strip()


def quantity(name: str, value: object) -> str:
    """Any value of a summary; what is named in seconds is a duration."""
    if value is None or value == "":
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if _is_duration(name, value):
        return duration(value)
    # Names end in "step" or "version" where a number is a name: no thousands separator.
    if isinstance(value, int):
        return str(value) if name.endswith(("step", "version")) else f"{value:,}"
    return measure(value)


def measure(value: float) -> str:
    """Any number to about four digits."""
    if not math.isfinite(value):
        return "not a number"
    if 100 <= abs(value) < 1e9:
        return f"{value:,.0f}"
    mantissa, _, exponent = f"{value:.4g}".partition("e")
    return f"{mantissa}e{int(exponent)}" if exponent else mantissa


def _is_duration(name: str, value: object) -> bool:
    return isinstance(value, int | float) and "seconds" in name and "per_second" not in name


def flat(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """Nested dictionaries and lists as lines (label, value)."""
    for name, value in values.items():
        full = f"{path}{name}"
        if isinstance(value, list | tuple):
            value = {str(i + 1): item for i, item in enumerate(value)}  # noqa: PLW2901
        if isinstance(value, Mapping):
            yield from flat(value, f"{full} / ")
        else:
            shown = full.replace("seconds", "time") if _is_duration(full, value) else full
            yield label(shown), quantity(full, value)


def clip(text: str, characters: int) -> str:
    """``text``, cut where it is longer, saying by how much."""
    more = len(text) - characters
    return text if more <= 0 else f"{text[:characters]} … ({more:,} more characters)"
