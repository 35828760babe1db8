"""Bury what was found: tombstones first, then marks, then what is erased. Safe to stop and repeat.

The order is what makes it so: nothing is erased before the tombstone holds the ids that lead to
it, and of an artifact the files by which it is found go last.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.errors import ConfigError
from tasks.forget.records import ModelHit, Place, Traces
from tasks.forget.trace import MARK
from tasks.objects import LocalStore, Store
from tasks.storage import MANIFEST
from tasks.tombstones import Tombstones, bury

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

logger = logging.getLogger(__name__)
# Golden sets change only by a person's hand, and a model is never deleted.
_KEPT = frozenset({"golden", "train"})


def check_share(traces: Traces, max_share: float) -> None:
    """Raises ConfigError for what is in so many rows that it can hardly be one person."""
    for place in traces.places:
        share = len(place.rows) / max(place.num_rows, 1)
        if (
            place.stage == "ingest"
            and place.key.endswith("/examples.parquet")
            and share > max_share
        ):
            raise ConfigError(
                f"{len(place.rows)} of {place.num_rows} rows of {place.uri} would be forgotten, "
                f"more than the share of {max_share:g} that max_share allows. Give a longer form, "
                "such as a full name, or raise max_share if this is meant."
            )


def mark(
    client: MlflowClient, hits: Iterable[ModelHit], request: str, date: str
) -> tuple[str, ...]:
    """Tag every version that was trained on it with the date and the request; answers which."""
    marked = []
    for hit in hits:
        if not hit.is_trained:
            continue
        tags = client.get_model_version(hit.name, hit.version).tags
        if request not in tags.get(MARK, ""):
            earlier = [tags[MARK]] if tags.get(MARK) else []
            value = "; ".join([*earlier, f"{date} {request}"])
            client.set_model_version_tag(hit.name, hit.version, MARK, value)
        marked.append(f"{hit.name} version {hit.version}")
    return tuple(marked)


def keep_out(store: Store, sought: Tombstones, traces: Traces, known: Iterable[str]) -> str:
    """Write the tombstone, with the ids of all rows that were ever found; answers its key."""
    return bury(store, sought, traces.links | set(known))


def erase(store: Store, places: Iterable[Place]) -> tuple[str, ...]:
    """Delete the artifacts and lone objects that hold it, also this machine's copies.

    The manifest goes first, so that the artifact counts as absent at once and is made anew; the
    files that hold it go last, so that a search finds what an interrupted run left. Answers what
    was erased.
    """
    held: dict[tuple[str, str], set[str]] = defaultdict(set)
    for place in places:
        if place.stage not in _KEPT:
            held[place.root, place.artifact or place.key].add(place.key)
    for (root, name), keys in sorted(held.items()):
        holder = store if root == store.root else LocalStore(Path(root))
        inside = set(holder.keys_under(f"{name}/")) | keys
        for key in sorted(inside, key=lambda k: (k in keys, not k.endswith(f"/{MANIFEST}"), k)):
            holder.delete(key)
        logger.info("forget: erased %s/%s", root, name)
    return tuple(f"{root}/{name}" for root, name in sorted(held))


def left_to_do(traces: Traces, *, in_clear: bool, erased: bool) -> tuple[str, ...]:
    """What only a person can do, in the order of its weight."""
    lines = [
        f"{hit.name} version {hit.version} ({', '.join(hit.aliases)}) was trained on it and may "
        "still serve: retrain, and promote a version without it."
        for hit in traces.models
        if hit.is_trained and hit.aliases
    ]
    golden = [place for place in traces.places if place.stage == "golden"]
    lines += [
        f"Golden set {place.uri}: {len(place.rows)} rows hold it. Take them out of its source file "
        "and raise golden.version."
        for place in golden
    ]
    lines += [
        f"Source file {file}: {num} rows came from it. Retune does not touch it; from now on such "
        "rows are left out when it is read."
        for file, num in traces.source_files.items()
    ]
    if traces.untraceable:
        lines.append(f"Nobody can tell of {', '.join(traces.untraceable)}: the data set is gone.")
    if in_clear:
        lines.append("The parameters of this flow run name it: delete the run in Prefect.")
    if not erased and any(place.stage not in _KEPT for place in traces.places):
        lines.append("The artifacts and local copies still hold it: run again with `erase`.")
    return tuple(lines)
