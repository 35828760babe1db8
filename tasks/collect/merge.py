"""Changes into rows: each part as its tool changed it last, in whatever order the events came.

What was taken back before it came is remembered: a part whose row is not known, in the row UNKNOWN,
which holds nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.collect.changes import LAST, UNKNOWN, Change
from tasks.collected import CollectedRow

_WHOLE = ""  # the version of a row that comes whole


class Rows:
    """Rows that are being brought up to date for the generation ``number``.

    ``changed`` are the ids of those that differ from what they were. A row that changed after the
    generation ``started`` still waits for a run, since the first of its changes.
    """

    def __init__(self, rows: Mapping[str, CollectedRow], number: int, started: int = 0) -> None:
        self.rows = dict(rows)
        self.changed: set[str] = set()
        self._number, self._started = number, started
        # Where a part stands, for events that name it alone.
        self._places = {part: row.id for row in rows.values() for part in row.versions}

    def apply(self, change: Change, received: str) -> bool:
        """Whether the change was news; one that came before, or is older, is none."""
        row_id = change.row_id
        if row_id == UNKNOWN:
            row_id = self._places.get(change.part_id, UNKNOWN)
        known = self.rows.get(row_id)
        version = _WHOLE if change.parts is None else change.part_id
        latest = self._latest(known, version)
        if change.at is not None and change.at <= latest and (change.at or latest == LAST):
            return False
        at = change.at
        if at is None:  # by this clock, which may be behind the tool's
            told = known.versions.values() if known is not None and change.gone else ()
            at = max(received, latest, *told)
        before = known.row if known is not None else {}
        row = {} if row_id == UNKNOWN else _changed(before, change)
        is_news = row != before
        waits = known is not None and bool(known.row) and known.changed > self._started
        self.rows[row_id] = CollectedRow(
            id=row_id,
            changed=self._number if is_news or known is None else known.changed,
            received=known.received if known is not None and (waits or not is_news) else received,
            versions={**(known.versions if known is not None else {}), version: at},
            row=row,
        )
        self.changed.add(row_id)
        self._places[version] = row_id
        return is_news

    def _latest(self, row: CollectedRow | None, version: str) -> str:
        """When a part was changed last, or taken back, or its row deleted."""
        told = [found.versions for found in (row, self.rows.get(UNKNOWN)) if found is not None]
        return max((v.get(key, "") for v in told for key in (version, _WHOLE)), default="")


def _changed(before: Mapping[str, Any], change: Change) -> dict[str, Any]:
    if change.gone:
        return {}
    if change.parts is None:
        return dict(change.row)
    parts = [p for p in before.get(change.parts, ()) if str(p.get("id")) != change.part_id]
    if change.part is not None:
        parts.append(dict(change.part))
    return {**before, **change.row, change.parts: parts}
