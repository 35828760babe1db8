"""A request's outcome as a page for Prefect: who serves with it first, then where it lies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tasks.forget.records import Forgotten, Place

_MOST_LINES = 200


def markdown(done: Forgotten) -> str:
    """The page; rows are counted, and listed in ``forget.json`` alone."""
    traces = done.traces
    what = "Applied" if done.applied else "Dry run: nothing was changed"
    models = [
        (
            f"{hit.name} version {hit.version}",
            ", ".join(hit.aliases) or "-",
            hit.num_by_split.get("train", 0),
            hit.num_by_split.get("validation", 0),
        )
        for hit in traces.models
    ]
    adapters = [
        (a.training_run_id, a.adapter_uri or "-", a.data_digest[:12]) for a in traces.adapters
    ]
    parts = [
        f"# Forget: {done.reason}",
        f"{what}, {done.date}. Request {traces.request[:12] or '-'}. {traces.num_objects:,} "
        f"objects searched, {sum(traces.num_unread.values()):,} of kinds that hold no rows.",
        *_section("To be done by a person", ("what",), [(line,) for line in done.left]),
        *_section("Model versions", ("version", "alias", "train rows", "validation rows"), models),
        *_section("Training runs", ("MLflow run", "adapter", "data"), adapters),
        *_section("Where it lies", ("stage", "file", "rows", "splits"), _lines(traces.places)),
        *_section("Erased", ("what",), [(name,) for name in done.erased]),
        *_section("Marked", ("what",), [(name,) for name in done.marked]),
    ]
    return "\n\n".join(parts) + "\n"


def _lines(places: Iterable[Place]) -> list[tuple[object, ...]]:
    return [
        (
            place.stage,
            place.uri,
            len(place.rows),
            ", ".join(sorted({row.split for row in place.rows if row.split})) or "-",
        )
        for place in places
    ]


def _section(
    title: str, header: Sequence[str], rows: Sequence[Sequence[object]]
) -> tuple[str, ...]:
    if not rows:
        return ()
    shown = [header, ["---"] * len(header), *rows[:_MOST_LINES]]
    table = "\n".join(f"| {' | '.join(map(_cell, row))} |" for row in shown)
    more = len(rows) - _MOST_LINES
    return (f"## {title}", table, *([f"and {more} more, in forget.json"] if more > 0 else []))


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
