"""A synthetic set in a few lines of Markdown, for Prefect's UI and the log."""

from __future__ import annotations

from typing import Any

from tasks.artifacts import SyntheticSet

_FIGURES = ("distinct_1", "distinct_2", "distinct_3", "self_bleu", "spread")


def markdown(name: str, made: SyntheticSet, stats: dict[str, Any], published: str | None) -> str:
    """Counts by reason, cost, and the diversity beside that of the seeds."""
    lines = [
        f"# {name}: {made.num_out} synthetic rows from {made.num_in} seeds",
        f"Status `{made.status}`, {made.spent_usd:.4f} USD in this run, prompt {made.prompt} "
        f"({made.prompt_digest[:12]}).",
        f"Published as `{published}`." if published else "Nothing was published.",
        "",
        "| rows | n |",
        "|---|---|",
        f"| generated | {made.num_generated} |",
        *(f"| rejected: {reason} | {n} |" for reason, n in made.num_rejected.items()),
        f"| accepted | {made.num_out} |",
        *(f"| requests failed: {reason} | {n} |" for reason, n in made.num_failed_calls.items()),
        f"| requests not sent | {stats['num_calls_unsent']} |",
        "",
        f"Of the rejected, {made.num_leaked} were too close to golden or held-out rows.",
        "",
        f"Diversity: **{made.diversity}**. {'; '.join(stats['diversity']['reasons'])}".rstrip(),
    ]
    ours, seeds = stats["diversity"]["synthetic"], stats["diversity"]["seeds"]
    if ours and seeds:
        lines += ["", f"| n = {ours['n']} | synthetic | seeds |", "|---|---|---|"]
        lines += [f"| {f} | {ours[f]} | {seeds[f]} |" for f in _FIGURES if ours[f] is not None]
    return "\n".join(lines)
