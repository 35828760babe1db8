"""What no event told of: an export of Label Studio held against the rows that are known.

Label Studio sends a webhook once, within a second, and never again; a receiver that was down has
lost it. What is found missing goes into the inbox as if it had been sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from tasks.collect.changes import MalformedError, changes
from tasks.collect.inbox import Event
from tasks.collected import CollectedRow


def missed(
    tasks: Iterable[Any],
    project: int,
    rows: Mapping[str, CollectedRow],
    now: datetime,
) -> Iterator[Event]:
    """The events that bring ``rows`` to what the project's exported tasks say.

    Raises:
        MalformedError: a task is none of Label Studio's.
    """
    exported = set()
    for task in tasks:
        if not isinstance(task, Mapping) or not isinstance(task.get("annotations"), list):
            raise MalformedError("expected the tasks of an export, each with its annotations")
        row_id = f"{project}/{task.get('id')}"
        exported.add(row_id)
        known = rows.get(row_id)
        versions = known.versions if known is not None else {}
        for annotation in task["annotations"]:
            body = _event("ANNOTATION_UPDATED", project, task=task, annotation=annotation)
            (change,) = _changes(body)
            if change.part_id not in versions or change.at > versions[change.part_id]:
                yield Event.of(body, now)
        there = {str(annotation.get("id")) for annotation in task["annotations"]}
        yield from _deleted(project, known, there, now)
    # A task that was deleted, or has no annotation left, is not exported.
    for row_id, known in rows.items():
        if row_id.startswith(f"{project}/") and row_id not in exported:
            yield from _deleted(project, known, set(), now)


def _deleted(
    project: int, known: CollectedRow | None, there: set[str], now: datetime
) -> Iterator[Event]:
    held = known.row.get("annotations", ()) if known is not None else ()
    gone = [{"id": a["id"]} for a in held if str(a.get("id")) not in there]
    if gone:
        yield Event.of(_event("ANNOTATIONS_DELETED", project, annotations=gone), now)


def _event(action: str, project: int, **fields: Any) -> dict[str, Any]:
    if "task" in fields:
        fields["task"] = {k: v for k, v in fields["task"].items() if k != "annotations"}
    return {"action": action, "project": {"id": project}, **fields}


def _changes(body: Mapping[str, Any]) -> list[Any]:
    said = changes("label-studio", body)
    if not isinstance(said, list):
        raise MalformedError("expected an annotation with its task")
    return said
