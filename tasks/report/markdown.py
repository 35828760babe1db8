"""The run in a few lines of Markdown, for Prefect's UI."""

from __future__ import annotations

from tasks.evidence import RunSummary
from tasks.report import wording


def markdown(summary: RunSummary) -> str:
    """Decision, reasons, and the metrics of every contestant."""
    head = wording.headline(summary)
    lines = [f"# {summary.name}: {head.word}", _plain(head.sentence), ""]
    lines += [f"- {_plain(reason)}" for reason in [*summary.reasons, *summary.settling]]
    roles = list(summary.metrics)
    if roles:
        lines += ["", f"| metric | {' | '.join(roles)} |", "|---" * (len(roles) + 1) + "|"]
    for metric in dict.fromkeys(name for scores in summary.metrics.values() for name in scores):
        cells = [_cell(summary, role, metric) for role in roles]
        lines.append(f"| {metric} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(summary: RunSummary, role: str, metric: str) -> str:
    score = summary.metrics[role].get(metric)
    if score is None:
        return ""
    return f"{wording.figure(metric, score.value)} {wording.interval(score, metric)}"


def _plain(text: str) -> str:
    """A reason may quote data: it is shown as text, not as markup."""
    return text.replace("<", "&lt;").replace("|", "\\|").replace("\n", " ")
