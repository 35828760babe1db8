"""The page of a trial on live traffic: what was done, why, and the way of the evidence to it.

The page refers to nothing and escapes everything, as that of a retrain run does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from tasks.report import wording
from tasks.report.curves import Chart, Curve, Point
from tasks.report.html import environment, printable
from tasks.report.plots import axis
from tasks.trial import Measured, Verdict

_WORDS = {
    "promote": ("promoted", "promoted"),
    "watch": ("watched", "canary"),
    "roll_back": ("rolled back", "blocked"),
    "inconclusive": ("undecided", "inconclusive"),
}
# What is far below the bar is no evidence, however far.
_LOWEST = -1.0


@dataclass(frozen=True, slots=True)
class _Row:
    """One line of the tables; ``verdict`` names its colour."""

    name: str
    champion: str
    challenger: str
    num_champion: int
    num_challenger: int
    difference: str
    evidence: str
    verdict: str


def render(verdict: Verdict, generated_at: datetime) -> str:
    """The whole page as one string."""
    word, tone = _WORDS[verdict.outcome]
    page = environment().get_template("canary.html.j2")
    better, bar = verdict.success.evidence, verdict.bar
    success = [
        _row(verdict.success, "better", better, bar, "passed"),
        _row(verdict.success, "worse", verdict.worse, bar, "failed"),
    ]
    guards = [_row(g, g.name, g.evidence, verdict.guard_bar, "failed") for g in verdict.guards]
    text = page.render(
        verdict=verdict,
        trial=verdict.trial,
        word=word,
        tone=tone,
        generated_at=wording.moment(generated_at),
        begun_at=wording.moment(verdict.trial.begun_at),
        success=success,
        guards=guards,
        chart=chart(verdict),
        bar=f"{10**bar:,.0f}",
        guard_bar=f"{10**verdict.guard_bar:,.0f}",
    )
    return printable(text)


def chart(verdict: Verdict) -> Chart | None:
    """The evidence over the hours of the trial; None where nothing was judged yet."""
    path = verdict.path
    if len(path) < 2:
        return None
    hours = [(p.at - verdict.trial.begun_at).total_seconds() / 3600 for p in path]
    curves = {
        ("that it is better", "metric"): [p.better for p in path],
        ("that it is worse", "worse"): [p.worse for p in path],
        ("of the guards, the highest", "validation"): [p.guard for p in path],
    }
    values = [max(v, _LOWEST) for found in curves.values() for v in found]
    highest = max(*values, verdict.bar, verdict.guard_bar)
    x = axis(0.0, max(hours[-1], 1e-3))
    y = axis(min(values), 1.05 * highest)

    def placed(found: Sequence[float]) -> tuple[Point, ...]:
        points = zip(hours, found, strict=True)
        return tuple((x.at(h), round(100 - y.at(max(v, _LOWEST)), 2)) for h, v in points)

    def level(value: float) -> tuple[Point, ...]:
        return tuple((at, round(100 - y.at(value), 2)) for at in (0.0, 100.0))

    drawn = [Curve(name, kind, (placed(v),), ()) for (name, kind), v in curves.items()]
    drawn.append(Curve("enough", "limit", (level(verdict.bar),), ()))
    drawn.append(Curve("enough for a guard", "limit guarding", (level(verdict.guard_bar),), ()))
    last = path[-1]
    told = f"better {last.better:.2f}, worse {last.worse:.2f}, guards {last.guard:.2f}"
    return Chart("Evidence, as a power of ten", x, y, tuple(drawn), None, f"last {told}")


def markdown(verdict: Verdict) -> str:
    """The same in short, for the Prefect UI."""
    lines = [
        f"**{verdict.sentence}**",
        "",
        "| | challenger | champion | evidence that it is higher |",
        "| --- | ---: | ---: | ---: |",
    ]
    rows = [
        _row(verdict.success, verdict.success.name, verdict.success.evidence, verdict.bar, ""),
        *(_row(g, g.name, g.evidence, verdict.guard_bar, "") for g in verdict.guards),
    ]
    lines += [
        f"| {wording.label(row.name)} | {row.challenger} of {row.num_challenger:,} | "
        f"{row.champion} of {row.num_champion:,} | {row.evidence} |"
        for row in rows
    ]
    return "\n".join(lines)


def _row(found: Measured, name: str, evidence: float, bar: float, shown: str) -> _Row:
    difference = found.difference
    return _Row(
        name=name,
        champion=_share(found.champion),
        challenger=_share(found.challenger),
        num_champion=found.num_champion,
        num_challenger=found.num_challenger,
        difference="–" if difference is None else f"{100 * difference:+.1f} points",
        evidence=_value(evidence),
        verdict=shown if evidence >= bar else "",
    )


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _value(evidence: float) -> str:
    """An e-value from its logarithm, in words that a table has room for."""
    if evidence >= 6:
        return "over a million"
    value = 10**evidence
    return f"{value:,.0f}" if value >= 10 else f"{value:.2f}"
