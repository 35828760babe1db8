"""The formatted data set's ``stats.json`` -> its check among the others, and one row as trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.report.story import CheckStory


def format_check(
    stats: Mapping[str, Any], num_rejected: Mapping[str, int], num_in: int
) -> CheckStory:
    """The check ``format``: rejections with samples, lengths, and how the rows were rendered.

    ``num_in`` counts the clean rows of all splits, so that the check follows on those before it.
    Sets formatted by an older version have no statistics: they pass an empty ``stats``.
    """
    return CheckStory(
        name="format",
        num_in=num_in,
        num_out=num_in - sum(num_rejected.values()),
        num_rejected=num_rejected,
        histogram=stats.get("histogram"),
        notes=_notes(stats),
        samples=[_sample(sample) for sample in stats.get("samples") or []],
    )


def example(stats: Mapping[str, Any]) -> Sequence[tuple[str, bool]]:
    """One training row as (token, whether it is trained)."""
    return [(str(text), bool(trained)) for text, trained in stats.get("example") or []]


def _notes(stats: Mapping[str, Any]) -> list[str]:
    unrolled, cut = stats.get("num_unrolled"), stats.get("num_split")
    source, end = stats.get("mask_source"), stats.get("end_of_turn")
    notes = []
    if unrolled:
        notes.append(f"{unrolled:,} conversations became a row for each answer.")
    if cut:
        notes.append(f"{cut:,} conversations over the limit were split between turns.")
    if source:
        notes.append(f"What is trained was found by: {source}.")
    if end:
        notes.append(f"Every trained turn ends with {end}, which is trained too.")
    return notes


def _sample(sample: Mapping[str, Any]) -> dict[str, str]:
    place = str(sample.get("id", ""))[:12]
    return {
        "reason": str(sample.get("reason", "")),
        "where": place,
        "detail": str(sample.get("detail", "")),
    }
