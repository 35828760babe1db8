"""Requests on their way to storage, in batches; what does not fit while storage is away is counted.

Messages are scrubbed of personal data before anything of them is written, here and nowhere else.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from tasks.artifacts import Record
from tasks.errors import RetuneError, is_transient
from tasks.objects import Store
from tasks.serve.exchange import Counted, Exchange, counted, figures_of, record_of
from tasks.serve.texts import texts_of, with_texts
from tasks.storage import digest_of

logger = logging.getLogger(__name__)
FIGURES, MESSAGES, FEEDBACK = "traffic/figures/", "traffic/messages/", "traffic/feedback/"
_MOST_TEXT = 256 * 1024  # characters of one request and its answer
_BATCH = 1000

# The same texts without personal data, or None for a record that cannot be made free of it.
Scrub = Callable[[Sequence[list[str]]], Sequence[list[str] | None]]


class Feedback(Record):
    """What a user said of an answer, which was asked for at ``asked_at``."""

    request_id: str
    asked_at: datetime
    created_at: datetime
    score: float | None = None
    accepted: bool | None = None
    correction: str | None = None


class Book:
    """Takes exchanges, and writes them when it is told to. For one thread that takes and one that
    writes.

    ``lost`` counts what was not kept, by reason: ``full`` (storage was away for too long),
    ``too_long``, ``personal_data`` (could not be scrubbed), ``unreadable``.
    """

    def __init__(self, store: Store, scrub: Scrub, max_records: int) -> None:
        self._store, self._scrub, self._most = store, scrub, max_records
        self._counted: list[Counted] = []
        self._records: list[dict[str, Any]] = []
        self.lost: Counter[str] = Counter()

    def take(self, exchange: Exchange) -> None:
        """Keep one for the next write."""
        if len(self._counted) >= self._most:
            self.lost["full"] += 1
            return
        self._counted.append(counted(exchange))
        if not exchange.sampled:
            return
        if len(exchange.request) + len(exchange.response) > _MOST_TEXT:
            self.lost["too_long"] += 1
        else:
            self._records.append(record_of(exchange))

    def write(self) -> bool:
        """Write what there is; False where storage is away, and all of it is kept for later."""
        try:
            while self._counted:
                batch = figures_of(self._counted[:_BATCH])
                self._put(FIGURES, batch[0].created_at, [f.model_dump_json() for f in batch])
                del self._counted[: len(batch)]
            while self._records:
                chunk = self._records[:_BATCH]
                clean = self._scrubbed(chunk)
                if clean:
                    created = datetime.fromisoformat(clean[0]["created_at"])
                    self._put(MESSAGES, created, [json.dumps(record) for record in clean])
                del self._records[: len(chunk)]
        except Exception as error:
            # S3's client raises many classes: what may pass is waited for, the rest goes on.
            if not isinstance(error, RetuneError) and not is_transient(error):
                raise
            logger.warning("traffic waits, storage is away: %s", error)
            return False
        return True

    def _put(self, folder: str, moment: datetime, lines: list[str]) -> None:
        """Under a name that its content decides: written twice, it is there once."""
        body = "".join(f"{line}\n" for line in lines)
        hour = moment.astimezone(UTC).strftime("%Y-%m-%d/%H")
        self._store.put_bytes(f"{folder}{hour}/{digest_of(body)}.jsonl", body.encode())

    def _scrubbed(self, records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        texts = [texts_of(record) for record in records]
        try:
            clean = self._scrub(texts)
        except Exception:
            # One record that the recognisers choke on must not take the others with it.
            if len(records) == 1:
                logger.exception("a request's messages were not kept")
                self.lost["unreadable"] += 1
                return []
            return [kept for record in records for kept in self._scrubbed([record])]
        self.lost["personal_data"] += sum(found is None for found in clean)
        pairs = zip(records, clean, strict=True)
        return [with_texts(record, found) for record, found in pairs if found is not None]


def keep_feedback(store: Store, feedback: Feedback, scrub: Scrub) -> bool:
    """Write feedback on a request; False where there is feedback on it already.

    Raises what storage raises, and ValueError for a correction that cannot be scrubbed.
    """
    if feedback.correction is not None:
        clean = scrub([[feedback.correction]])[0]
        if clean is None:
            raise ValueError("the correction holds personal data that could not be taken out")
        feedback = feedback.model_copy(update={"correction": clean[0]})
    day = feedback.asked_at.astimezone(UTC).strftime("%Y-%m-%d")
    key = f"{FEEDBACK}{day}/{feedback.request_id}.json"
    return store.put_bytes(key, feedback.model_dump_json().encode(), if_absent=True)
