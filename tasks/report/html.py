"""The page of one run: its summary and its story to a single HTML file that refers to nothing.

Everything that comes from data is escaped by the template engine: rows are hostile. A section that
the run did not reach says so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from itertools import groupby, zip_longest
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tasks.evidence import Comparison, MetricDifference, RunSummary, Score, SliceScore
from tasks.report import data, plots, training, wording
from tasks.report.marking import Marked, mark
from tasks.report.story import (
    VERDICTS,
    AnswerRow,
    CheckStory,
    DataStory,
    Story,
    TrainingStory,
)

__all__ = ["AnswerRow", "CheckStory", "DataStory", "Story", "TrainingStory", "render_page"]

_MAX_TEXT_CHARACTERS = 1500
_MAX_CONFIG_CHARACTERS = 50_000
_DECIDING = ("failed", "inconclusive", "", "passed")
# What may not stand in a UTF-8 HTML page; an answer can hold any of it, as "\ud800" in its JSON.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")


def render_page(summary: RunSummary, story: Story, generated_at: datetime) -> str:
    """The whole page as one string."""
    primary = _primary(summary)
    page = environment().get_template("page.html.j2")
    text = page.render(
        summary=summary,
        story=story,
        generated_at=wording.moment(generated_at),
        headline=wording.headline(summary),
        primary=primary,
        errors=_errors(summary),
        reasons=_reasons(summary),
        absent="Not reached." if summary.status != "completed" else "Not part of this run.",
        scores=_scores(summary),
        roles=[role for role in wording.ROLE_NAMES if summary.metrics.get(role)],
        forests=plots.forests(summary.differences),
        judge=_judge(summary),
        slices=_slices(summary),
        more=story.num_more_slices,
        confusion=story.confusion,
        metric=primary.metric if primary else "",
        baseline=primary.baseline if primary else "base",
        answers=[_answer(row) for row in story.answers],
        tally=_tally(story),
        data=data.view(story.data, summary.data.get("num_golden")) if story.data else None,
        training=training.view(story.training) if story.training else None,
        stages=_stages(summary),
        lineage=_lineage(summary),
        outputs=[(_stage_name(s), s["uri"]) for s in summary.stages if s.get("uri")],
        cost=list(wording.flat(summary.cost)),
        config_yaml=wording.clip(story.config_yaml, _MAX_CONFIG_CHARACTERS),
    )
    return printable(text)


def printable(text: str) -> str:
    """The text without what may not stand in a page."""
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)


@cache
def environment() -> Environment:
    """The templates, which escape everything, with the filters that say figures as people do."""
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "clip": lambda text: wording.clip(str(text), _MAX_TEXT_CHARACTERS),
        "duration": wording.duration,
        "figure": lambda value, metric: wording.figure(metric, value),
        "gain": lambda value, metric: wording.gain(metric, value),
        "interval": wording.interval,
        "label": wording.label,
        "measure": wording.measure,
        "role": lambda role: wording.ROLE_NAMES[role],
        "rule": wording.rule,
    }
    return made


def _primary(summary: RunSummary) -> MetricDifference | None:
    """Where the metric that had to improve was decided: the one figure of the header."""
    claims = [d for d in summary.differences if d.rule == "superiority"]
    return min(claims, key=lambda d: _DECIDING.index(d.verdict), default=None)


def _errors(summary: RunSummary) -> list[tuple[str, str]]:
    return [(_stage_name(s), str(s["error"])) for s in summary.stages if s.get("error")]


def _reasons(summary: RunSummary) -> list[tuple[str, str]]:
    """Each reason with the verdict of its rule; deciding first.

    The gate gives a reason for each difference, in their order, and then what is no rule's, such as
    a judge that did not run, which may have decided too. One rule that failed blocks a candidate
    whatever the others say: that is what to read first.
    """
    verdicts = [d.verdict for d in summary.differences]
    reasons = list(zip_longest(verdicts, summary.reasons, fillvalue=""))
    if summary.decision == "promoted":  # all passed: the gate's own order, the primary metric first
        return reasons
    return sorted(reasons, key=lambda reason: _DECIDING.index(reason[0]))


def _stage_name(stage: Mapping[str, Any]) -> str:
    name, subject = wording.label(str(stage.get("name", "?"))), stage.get("subject")
    return f"{name} ({wording.ROLE_NAMES.get(subject, subject)})" if subject else name


@dataclass(frozen=True, slots=True)
class _ScoreRow:
    metric: str
    by_role: Mapping[str, Score]
    n: str


def _scores(summary: RunSummary) -> list[_ScoreRow]:
    """One row a metric, in the order in which the contestants name them."""
    metrics = dict.fromkeys(name for scores in summary.metrics.values() for name in scores)
    rows = []
    for metric in metrics:
        by_role = {role: s[metric] for role, s in summary.metrics.items() if metric in s}
        sizes = sorted({score.n for score in by_role.values()})
        # Contestants answer the same rows; a failed judgement or two can make the counts differ.
        n = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]}–{sizes[-1]}"
        rows.append(_ScoreRow(metric, by_role, n))
    return rows


@dataclass(frozen=True, slots=True)
class _SliceRow:
    """A part of the golden set with its place, in percent, in a plot that all parts share."""

    score: SliceScore
    verdict: str
    words: str
    zero: float
    low: float
    high: float
    point: float


def _slices(summary: RunSummary) -> list[tuple[str, list[_SliceRow]]]:
    """The parts by the expression that made them."""
    shown = summary.slices
    reach = max((max(abs(s.ci_low), abs(s.ci_high)) for s in shown), default=0) or 1.0

    def at(value: float) -> float:
        return round(50 + 50 * value / reach, 2)

    rows = [
        _SliceRow(
            score=s,
            verdict="passed" if s.ci_low > 0 else "failed" if s.ci_high < 0 else "inconclusive",
            words=f"{s.difference:+.3f}, interval {s.ci_low:+.3f} to {s.ci_high:+.3f}",
            zero=at(0),
            low=at(s.ci_low),
            high=at(s.ci_high),
            point=at(s.difference),
        )
        for s in shown
    ]
    return [(name, list(group)) for name, group in groupby(rows, key=lambda row: row.score.name)]


def _judge(summary: RunSummary) -> str:
    if not summary.judge:
        return ""
    if summary.judge == "run":
        how = "It was never compared with people: make calibrate-judge."
        if summary.calibration is not None:
            how = f"Last calibration: {summary.calibration.as_text()}"
        return f"Judge: run; grades from 1 to 5. {_pairs(summary.comparison)}{how}"
    why = summary.judge.removeprefix("not run").strip(" :.()")
    return f"Judge: not run ({why})." if why else "Judge: not run."


def _pairs(comparison: Comparison | None) -> str:
    """How far the judge's preferences hang on the order of the answers."""
    if comparison is None or not comparison.num_asked:
        return ""
    return (
        f"Of {comparison.num_asked:,} pairs of answers it contradicted itself in "
        f"{comparison.num_contradicted:,} when their order was turned "
        f"({comparison.num_first:,} times for what stood first); those count as draws. "
    )


@dataclass(frozen=True, slots=True)
class _Answer:
    row: AnswerRow
    expected: Marked
    baseline: Marked
    candidate: Marked


def _answer(row: AnswerRow) -> _Answer:
    return _Answer(
        row=row,
        expected=mark(row.expected, row.expected),
        baseline=mark(row.expected, row.baseline),
        candidate=mark(row.expected, row.candidate),
    )


def _tally(story: Story) -> str:
    if not story.num_by_verdict:
        return ""
    counts = {verdict: story.num_by_verdict.get(verdict, 0) for verdict in VERDICTS}
    parts = ", ".join(f"{count:,} {verdict}" for verdict, count in counts.items())
    return f"Of {sum(counts.values()):,} golden answers: {parts}."


@dataclass(frozen=True, slots=True)
class _Stage:
    name: str
    state: str
    seconds: float
    width: float
    rows: str


def _stages(summary: RunSummary) -> list[_Stage]:
    seconds = [float(s.get("seconds") or 0.0) for s in summary.stages]
    longest = max([*seconds, summary.overhead_seconds, 0.0]) or 1.0
    return [
        _Stage(
            name=_stage_name(stage),
            state=str(stage.get("state", "?")),
            seconds=took,
            width=100 * took / longest,
            rows=_rows(stage),
        )
        for stage, took in zip(summary.stages, seconds, strict=True)
    ]


def _rows(stage: Mapping[str, Any]) -> str:
    num_in, num_out = stage.get("num_in"), stage.get("num_out")
    if num_in is None and num_out is None:
        return "–"
    return f"{wording.quantity('rows', num_in)} → {wording.quantity('rows', num_out)}"


def _lineage(summary: RunSummary) -> list[tuple[str, list[tuple[str, str]]]]:
    """Groups of lines; the counts of the data stand in their own section."""
    dataset = {name: value for name, value in summary.data.items() if not name.startswith("num_")}
    groups = {"Model": summary.model, "Data": dataset, "Made from": summary.lineage}
    return [(title, list(wording.flat(values))) for title, values in groups.items() if values]
