"""The traffic of one model as it comes into the store, read look by look."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from pydantic_core import to_json

from tasks.objects import Store
from tasks.serve.exchange import Figures
from tasks.serve.traffic import FEEDBACK, FIGURES, Feedback

# What is written late, after an absence of storage, stands under the hour in which it was asked.
_LOOKS_BETWEEN_WHOLE_ONES = 40


class Seen(NamedTuple):
    """What is new since the last look: in the order in which it was asked, and said."""

    answered: list[Figures]
    feedback: list[Feedback]


class Traffic:
    """Reads each record once. Raises what storage raises; the next look then reads it again."""

    def __init__(self, store: Store, model: str, since: datetime) -> None:
        self._store, self._model, self._since = store, model, since.astimezone(UTC)
        self._named = to_json(model)
        self._read: set[str] = set()
        self._looks = 0

    def look(self, now: datetime) -> Seen:
        """Everything that was written since the last look."""
        whole = self._looks % _LOOKS_BETWEEN_WHOLE_ONES == 0
        first = self._since if whole else max(self._since, now - timedelta(hours=1))
        figures, read = [], set()
        for hour in _steps(first, now, timedelta(hours=1)):
            for key in self._new(f"{FIGURES}{hour:%Y-%m-%d/%H}/"):
                lines = self._store.get_bytes(key).splitlines()
                figures += [f for line in lines if (f := self._figures(line)) is not None]
                read.add(key)
        feedback = []
        for day in _steps(self._since, now, timedelta(days=1)):
            for key in self._new(f"{FEEDBACK}{day:%Y-%m-%d}/"):
                feedback.append(Feedback.model_validate_json(self._store.get_bytes(key)))
                read.add(key)
        self._read |= read
        self._looks += 1
        return Seen(
            sorted(figures, key=lambda f: (f.created_at, f.request_id)),
            sorted(feedback, key=lambda f: (f.created_at, f.request_id)),
        )

    def _new(self, prefix: str) -> Iterator[str]:
        return (key for key in self._store.keys_under(prefix) if key not in self._read)

    def _figures(self, line: bytes) -> Figures | None:
        # Other models share the file: most of their lines are not worth being read.
        if self._named not in line:
            return None
        values = json.loads(line)
        if values["model"] != self._model:
            return None
        if datetime.fromisoformat(values["created_at"]) < self._since:
            return None
        return Figures.model_validate(values)


def _steps(first: datetime, last: datetime, step: timedelta) -> Iterator[datetime]:
    """Every hour or day from that of ``first`` to that of ``last``, in UTC."""
    moment = first.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    if step >= timedelta(days=1):
        moment = moment.replace(hour=0)
    while moment <= last.astimezone(UTC):
        yield moment
        moment += step
