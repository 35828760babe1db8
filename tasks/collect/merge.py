"""Changes into rows: each part as its tool changed it last, in whatever order the events came."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.collect.changes import UNKNOWN, Change
from tasks.collected import CollectedRow

_WHOLE = ""  # the version of a row that comes whole


class Rows:
    """Rows that are being brought up to date for the generation ``number``.

    ``changed`` are the ids of those that differ from what they were.
    """

    def __init__(self, rows: Mapping[str, CollectedRow], number: int) -> None:
        self.rows = dict(rows)
        self.changed: set[str] = set()
        self._number = number
        # Where a part stands, for events that name it alone.
        self._places = {part: row.id for row in rows.values() for part in row.versions}

    def apply(self, change: Change, received: str) -> bool:
        """Whether the change was news; one that came before, or is older, is none."""
        row_id = change.row_id
        if row_id == UNKNOWN:
            row_id = self._places.get(change.part_id, UNKNOWN)
        if row_id == UNKNOWN:
            return False  # taken back before it ever came
        known = self.rows.get(row_id)
        version = _WHOLE if change.parts is None else change.part_id
        if known is not None and change.at and change.at <= _latest(known, version):
            return False
        if known is None and (change.gone or (change.parts is not None and change.part is None)):
            return False
        before = known.row if known is not None else {}
        row = _changed(before, change)
        versions = {**(known.versions if known is not None else {}), version: change.at}
        is_news = row != before
        self.rows[row_id] = CollectedRow(
            id=row_id,
            changed=self._number if is_news or known is None else known.changed,
            received=received if is_news or known is None else known.received,
            versions=versions,
            row=row,
        )
        self.changed.add(row_id)
        self._places[version] = row_id
        return is_news


def _latest(row: CollectedRow, version: str) -> str:
    """When a part was changed last, or its row deleted."""
    return max(row.versions.get(version, ""), row.versions.get(_WHOLE, ""))


def _changed(before: Mapping[str, Any], change: Change) -> dict[str, Any]:
    if change.gone:
        return {}
    if change.parts is None:
        return dict(change.row)
    parts = [p for p in before.get(change.parts, ()) if str(p.get("id")) != change.part_id]
    if change.part is not None:
        parts.append(dict(change.part))
    return {**before, **change.row, change.parts: parts}
