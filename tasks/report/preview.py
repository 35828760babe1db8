"""A dry run in words: what a run would do, how long it would take by the last one, what it costs.

Pure: records in, text out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from tasks.artifacts import StageRun
from tasks.evidence import Foreseen, RunSummary
from tasks.report import wording


def timed(calls: Iterable[Foreseen], past: Sequence[RunSummary]) -> list[Foreseen]:
    """The calls, with the time of those that have none: what the same call last took, by its rows.

    ``past``: earlier runs of the same model, the newest first; a call that was cached tells none.
    """
    return [call if call.cached or call.seconds else _timed(call, past) for call in calls]


def sentence(calls: Sequence[Foreseen]) -> str:
    """The whole in a sentence."""
    open_calls = [call for call in calls if not call.cached]
    if not open_calls:
        return "Everything is kept from earlier runs: a run would take seconds and cost nothing."
    seconds = sum(call.seconds or 0.0 for call in open_calls)
    unknown = sorted({call.stage for call in open_calls if call.seconds is None})
    usd = sum(call.usd or 0.0 for call in open_calls)
    parts = [f"A run would take about {wording.duration(seconds)}"]
    if unknown:
        parts.append(f" beside {' and '.join(unknown)}, which no run of this machine timed")
    parts.append(f", and cost {_money(usd, {call.pays for call in open_calls if call.pays})}")
    done = len(calls) - len(open_calls)
    return f"{''.join(parts)}; {done} of {len(calls)} steps are kept from earlier runs."


def rows(calls: Iterable[Foreseen]) -> list[tuple[str, str, str, str]]:
    """Step, state, time and dollars of each call."""
    return [
        (
            f"{call.stage} ({call.subject})" if call.subject else call.stage,
            "cached" if call.cached else "runs",
            "" if call.cached else _seconds(call.seconds),
            "" if call.cached else _dollars(call),
        )
        for call in calls
    ]


def markdown(name: str, told: str, calls: Sequence[Foreseen]) -> str:
    """For Prefect's UI."""
    lines = [f"# {name}: dry run", told, "", "| step | | time | at most $ |", "|---|---|---|---|"]
    lines += [f"| {' | '.join(row)} |" for row in rows(calls)]
    details = [f"- {call.stage}: {call.detail}" for call in calls if call.detail]
    return "\n".join([*lines, "", *details])


def _money(usd: float, paid: Collection[str]) -> str:
    """``paid``: the hosted models whose prices are not known here."""
    asked = " and ".join(sorted(paid))
    if not asked:
        return f"up to ${usd:.2f}" if usd else "no money"
    return f"up to ${usd:.2f} beside what {asked} takes" if usd else f"what {asked} takes"


def _seconds(seconds: float | None) -> str:
    return "not known" if seconds is None else wording.duration(seconds)


def _dollars(call: Foreseen) -> str:
    if call.pays:
        return "not known"
    return "" if call.usd is None else f"{call.usd:.2f}"


def _timed(call: Foreseen, past: Sequence[RunSummary]) -> Foreseen:
    for summary in past:
        for run in _runs(summary):
            if (run.name, run.subject) != (call.stage, call.subject) or run.state != "completed":
                continue
            share = call.num_in / run.num_in if call.num_in and run.num_in else 1.0
            return call.model_copy(update={"seconds": run.work_seconds * share})
    return call


def _runs(summary: RunSummary) -> list[StageRun]:
    """Each call of each stage; ``parts`` are those of a stage that was called several times."""
    found = [part for stage in summary.stages for part in stage.get("parts") or [stage]]
    return [StageRun.model_validate({"subject": None, **values}) for values in found]
