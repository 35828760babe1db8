"""What an event says of rows, by the tool that sent it.

Formats: Label Studio's guide, "Webhook event format reference"; Argilla's, "Webhooks internals";
the notifications of Amazon S3, MinIO and SeaweedFS. Rows keep the form of the tool's own export, so
that they are read as such (``ingest.sources`` with the shape of the tool).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote_plus

from tasks.collected import Hook
from tasks.storage import digest_of

# Later than whatever a tool writes: what was taken back does not come again.
LAST = "~"
UNKNOWN = ""  # the id of a row that an event does not name: it is found by its part
# What an event must hold to say what it changes.
_LABEL_STUDIO = {
    "ANNOTATION_CREATED": ("annotation", "task"),
    "ANNOTATION_UPDATED": ("annotation", "task"),
    "ANNOTATIONS_DELETED": ("annotations",),
    "TASKS_DELETED": ("tasks", "project"),
}


@dataclass(frozen=True, slots=True)
class Change:
    """One row as it is now, or one part of it, such as an annotator's answer.

    ``parts`` names the row's list that the part belongs to, None for a row that comes whole;
    ``part`` is None where it was taken back. ``at`` is when the tool made the change, as it writes
    it: of two changes of a part the later stands, in whatever order they come. None where the tool
    does not say when: the change follows all that is known of the part, and was made when it was
    told.
    """

    row_id: str
    at: str | None
    row: Mapping[str, Any] = field(default_factory=dict)
    parts: str | None = None
    part_id: str = ""
    part: Mapping[str, Any] | None = None
    gone: bool = False  # the row itself was deleted


@dataclass(frozen=True, slots=True)
class Unresolved:
    """The event says that something changed, and not what: the tool must be asked."""

    detail: str


Said = list[Change] | Unresolved | None


class MalformedError(ValueError):
    """The body is not what its tool sends."""


def changes(hook: Hook, body: Mapping[str, Any]) -> Said:
    """What an event changes; None for one that is of no interest. Raises MalformedError."""
    readers = {
        "label-studio": _label_studio,
        "argilla": _argilla,
        "labelbox": _labelbox,
        "s3": _s3,
        "generic": _generic,
    }
    return readers[hook](body)


def without_secrets(hook: Hook, body: Mapping[str, Any]) -> dict[str, Any]:
    """The body less what must not be kept: Label Studio sends the project's token along."""
    kept = dict(body)
    if hook == "label-studio" and isinstance(body.get("project"), Mapping):
        kept["project"] = {k: v for k, v in body["project"].items() if k in {"id", "title"}}
    return kept


def _label_studio(body: Mapping[str, Any]) -> Said:
    """What is deleted is not so for good: on SQLite its id may be given to another one."""
    action = _text(body, "action")
    missing = [name for name in _LABEL_STUDIO.get(action, ()) if name not in body]
    if missing:
        told = f"{action} without its {missing[0]}"
        return Unresolved(f"{told} (is the webhook's payload switched on?)")
    if action in {"ANNOTATION_CREATED", "ANNOTATION_UPDATED"}:
        return [_annotation(body)]
    if action == "ANNOTATIONS_DELETED":
        given = _objects(body, "annotations")
        return [
            Change(UNKNOWN, None, parts="annotations", part_id=_id(annotation))
            for annotation in given
        ]
    if action == "TASKS_DELETED":
        project = _id(_object(body, "project"))
        given = _objects(body, "tasks")
        return [Change(f"{project}/{_id(task)}", None, gone=True) for task in given]
    if action in {"ANNOTATIONS_CREATED", "TASKS_CREATED"}:
        return Unresolved(f"{action} names tasks alone")
    return None


def _annotation(body: Mapping[str, Any]) -> Change:
    task, annotation = _object(body, "task"), _object(body, "annotation")
    project = _object(body, "project") if "project" in body else {}
    at = str(annotation.get("updated_at") or annotation.get("created_at") or "")
    return Change(
        row_id=f"{project.get('id', '')}/{_id(task)}",
        at=at,
        row={key: task[key] for key in ("id", "data", "meta") if key in task},
        parts="annotations",
        part_id=_id(annotation),
        part={k: v for k, v in annotation.items() if k not in {"task", "project"}},
    )


def _argilla(body: Mapping[str, Any]) -> Said:
    kind = _text(body, "type")
    family, _, verb = kind.partition(".")
    if family != "response":
        return None
    data = _object(body, "data")
    record = _object(data, "record")
    user = data.get("user")
    who = _id(user) if isinstance(user, Mapping) else str(data.get("user_id") or _id(data))
    given = {k: v for k, v in data.items() if k not in {"record", "user"}} | {"user_id": who}
    return [
        Change(
            row_id=_id(record),
            at=LAST if verb == "deleted" else str(data.get("updated_at") or body.get("timestamp")),
            row={k: v for k, v in record.items() if k not in {"responses", "dataset"}},
            parts="responses",
            part_id=_id(data),
            part=None if verb == "deleted" else given,
        )
    ]


def _labelbox(body: Mapping[str, Any]) -> Said:
    """Its events name a label and do not hold the row: what is counted is read from an export."""
    return [Change(row_id=_id(body), at=str(body.get("updated_at", "")), row={"label": _id(body)})]


def _s3(body: Mapping[str, Any]) -> Said:
    """Objects that were made, each a row of its own: they are read by their own source."""
    if "Records" not in body and "key" in body:
        return list(_seaweedfs(body)) or None
    found = []
    for record in _objects(body, "Records"):
        if ":ObjectCreated:" not in f":{_text(record, 'eventName')}".replace("s3:", ""):
            continue
        s3 = _object(record, "s3")
        thing = _object(s3, "object")
        place = f"s3://{_text(_object(s3, 'bucket'), 'name')}/{unquote_plus(_text(thing, 'key'))}"
        row = {"object": place, "etag": str(thing.get("eTag", ""))}
        at = f"{record.get('eventTime', '')} {thing.get('sequencer', '')}"
        found.append(Change(row_id=place, at=at, row=row))
    return found or None


def _seaweedfs(body: Mapping[str, Any]) -> Iterator[Change]:
    if str(body.get("event_type", "")).lower() not in {"create", "update", "rename"}:
        return
    message = _object(body, "message")
    entry = message.get("new_entry")
    if isinstance(entry, Mapping) and not entry.get("is_directory"):
        place = f"s3:/{_text(body, 'key').removeprefix('/buckets')}"
        attributes = entry.get("attributes")
        at = str(attributes.get("mtime", "")) if isinstance(attributes, Mapping) else ""
        yield Change(row_id=place, at=at, row={"object": place, "etag": digest_of(dict(entry))})


def _generic(body: Mapping[str, Any]) -> Said:
    """``{"rows": [...]}``; a row with an ``id`` replaces the one that came under it before."""
    at = str(body.get("timestamp", ""))
    return [
        Change(row_id=_id(row) if "id" in row else digest_of(dict(row)), at=at, row=row)
        for row in _objects(body, "rows")
    ]


def _object(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = values.get(name)
    if not isinstance(found, Mapping):
        raise MalformedError(f"{name}: expected an object, came {_shown(found)}")
    return found


def _objects(values: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    found = values.get(name)
    if not isinstance(found, list) or not all(isinstance(one, Mapping) for one in found):
        raise MalformedError(f"{name}: expected a list of objects, came {_shown(found)}")
    return found


def _text(values: Mapping[str, Any], name: str) -> str:
    found = values.get(name)
    if not isinstance(found, str) or not found:
        raise MalformedError(f"{name}: expected a text, came {_shown(found)}")
    return found


def _id(values: Mapping[str, Any]) -> str:
    found = values.get("id")
    if isinstance(found, bool) or not isinstance(found, int | str) or found == "":
        raise MalformedError(f"id: expected a text or a number, came {_shown(found)}")
    return str(found)


def _shown(value: object) -> str:
    return "nothing" if value is None else type(value).__name__  # the value may be anyone's
