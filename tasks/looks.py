"""Looks at a golden set: which model was evaluated on it, and when. Append-only.

Each candidate that is chosen by its score on the same rows fits them a little better by chance:
after many looks the scores flatter (adaptive overfitting; Dwork et al., Science 349, 2015). The
count says when a new set is due. Sealed rows are counted by themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Literal, NamedTuple

from tasks.artifacts import Contestant, GoldenSet, Record
from tasks.objects import Store

Part = Literal["open", "sealed"]


class Look(Record):
    """One evaluation on one version of a golden set."""

    date: datetime
    flow_run_id: str | None
    role: str
    adapter_digest: str | None
    base_model: str
    rows_digest: str


class LookCount(NamedTuple):
    """How often a version was looked at, and by how many different models."""

    looks: int
    models: int


def log_look(
    store: Store, golden: GoldenSet, contestant: Contestant, flow_run_id: str | None
) -> None:
    """Write down that a contestant answers the golden rows now."""
    look = Look(
        date=datetime.now(UTC),
        flow_run_id=flow_run_id,
        role=contestant.role,
        adapter_digest=contestant.adapter_digest,
        base_model=contestant.name,
        rows_digest=golden.rows_digest,
    )
    model = contestant.digest[:12]
    folder = _folder(golden.model, golden.name, golden.version, golden.part)
    key = f"{folder}{look.date.strftime('%Y%m%dT%H%M%S.%fZ')}-{model}.json"
    store.put_bytes(key, look.model_dump_json(indent=1).encode(), if_absent=True)


def looks(store: Store, model: str, name: str, version: int, part: Part = "open") -> Iterator[Look]:
    """Every look at one part of one version of a golden set, the oldest first."""
    for key in sorted(store.keys_under(_folder(model, name, version, part))):
        yield Look.model_validate_json(store.get_bytes(key))


def count_looks(store: Store, golden: GoldenSet) -> LookCount:
    """Read off the keys alone: cheap enough for every report."""
    keys = list(store.keys_under(_folder(golden.model, golden.name, golden.version, golden.part)))
    return LookCount(len(keys), len({key.rsplit("-", 1)[-1] for key in keys}))


def wear(found: LookCount, golden: GoldenSet, most: int) -> str | None:
    """What to do about a golden set on which more than ``most`` models were looked at, or None."""
    if found.models <= most:
        return None
    rows = "the sealed rows of " if golden.part == "sealed" else ""
    return (
        f"{found.models:,} models were looked at on {rows}the golden set {golden.name} version "
        f"{golden.version}, more than report.max_models of {most:,}: scores on it flatter, and "
        "chance has had many tries. Collect fresh rows and set golden.version to "
        f"{golden.version + 1} (make golden proposes rows)."
    )


def _folder(model: str, name: str, version: int, part: Part) -> str:
    sealed = "-sealed" if part == "sealed" else ""
    return f"golden/{model}/{name}-v{version}/looks{sealed}/"
