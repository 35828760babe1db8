"""Many Messages requests through Anthropic's Message Batches: resumable, paid once, in a budget.

A request is named by the digest of its body, and its reply is kept in the store under that name:
the same request is never paid twice, in this run or another. Before a batch is created an intent is
logged, and its id after (``tasks/batch_log.py``); a run that was killed anywhere finds its batches
again and reads their results instead of sending them anew, also where the kill fell between a
creation and the record of its id (``tasks/batch_api.py``). What remains: a batch that was created
later than ``settle_seconds`` after its intent, or that this key cannot list, or that was deleted
before its results were read, is paid again; and so are requests that two processes send for the
first time at the same moment.

Money: a wave is sent only if what was spent, plus the most that everything in flight can cost,
stays within the budget. A request costs at most one token for each byte of its JSON (no tokenizer
makes more), a surcharge for the API's own tool prompt, and ``max_tokens`` of output.
"""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from tasks.anthropic_client import TIMEOUT_SECONDS
from tasks.artifacts import Record
from tasks.batch_api import Batch, BatchApi, Failure, Reply, Usage
from tasks.batch_log import BatchLog, Entry
from tasks.objects import Store
from tasks.replies import store_replies, stored_replies
from tasks.storage import digest_of

if TYPE_CHECKING:
    import anthropic

logger = logging.getLogger(__name__)
# More than the API adds to the input for one forced tool.
_TOOL_TOKENS = 1000
# Nothing was paid for these: they may be sent again.
_UNPAID = frozenset({"errored", "expired", "canceled", "missing"})


class BatchConfig(Record):
    """Prices, the budget, and how much is sent at once."""

    budget_usd: float = Field(gt=0, description="Stop sending before more could be spent")
    budget_hours: float = Field(
        24.0,
        ge=0,
        description="Replies to the same requests that were paid within so many hours count "
        "against the budget, so that a run that was killed and resumed has only one",
    )
    input_usd_per_million: float = Field(
        ge=0, description="Price of a million input tokens by batch"
    )
    output_usd_per_million: float = Field(
        ge=0, description="Price of a million output tokens by batch"
    )
    max_requests: int = Field(1000, ge=1, le=100_000, description="Requests in a batch")
    max_bytes: int = Field(32_000_000, ge=1, le=256_000_000, description="Bytes in a batch")
    max_in_flight: int = Field(4, ge=1, le=100, description="Batches that wait at once")
    max_sends: int = Field(
        3, ge=1, le=10, description="Times a request is sent when it expires, errs or is canceled"
    )
    poll_seconds: float = Field(30.0, gt=0, le=3600, description="Time between two looks")
    settle_seconds: float = Field(
        TIMEOUT_SECONDS + 30,
        ge=0,
        description="Time in which a creation that was not answered may still take effect",
    )

    def usd(self, usage: Usage) -> float:
        """What so many tokens cost."""
        input_usd = usage.input_tokens * self.input_usd_per_million
        return (input_usd + usage.output_tokens * self.output_usd_per_million) / 1e6


@dataclass(frozen=True)
class BatchRequest:
    """The body of a Messages request. Two equal bodies are one request, with one reply."""

    params: Mapping[str, Any]

    @cached_property
    def custom_id(self) -> str:
        return digest_of(self.params)

    @cached_property
    def num_bytes(self) -> int:
        return len(json.dumps(self.params, ensure_ascii=False).encode()) + 100

    def most_usd(self, config: BatchConfig) -> float:
        """The most that it can cost."""
        input_tokens = self.num_bytes + _TOOL_TOKENS
        output_tokens = int(self.params["max_tokens"])
        return config.usd(Usage(input_tokens=input_tokens, output_tokens=output_tokens))


@dataclass(frozen=True)
class BatchOutcome:
    """Replies and failures by request id; what was not sent has neither.

    ``spent_usd`` was paid in this run, ``spent_earlier_usd`` for replies that were in the store and
    count against the same budget. ``num_sent`` counts requests sent or found under way.
    """

    results: dict[str, Reply | Failure]
    spent_usd: float
    spent_earlier_usd: float
    num_sent: int
    num_cached: int
    num_unsent: int
    status: Literal["completed", "budget_reached"]


@dataclass(frozen=True, slots=True)
class _Flight:
    """A batch whose results are awaited, and the most that it can still cost this run."""

    entry: Entry
    batch_id: str
    most_usd: float


def run_batches(
    requests: Iterable[BatchRequest],
    client: anthropic.Anthropic,
    store: Store,
    config: BatchConfig,
) -> BatchOutcome:
    """A reply or a failure for each distinct request, in order, as far as the budget goes.

    Raises:
        anthropic.APIError: the API did not answer, after retries. Run again to go on.
        BatchError: it answered something that is not a batch. Run again to go on.
    """
    return _Run({r.custom_id: r for r in requests}, client, store, config).outcome()


class _Run:
    """One run over a set of requests."""

    def __init__(
        self,
        requests: dict[str, BatchRequest],
        client: anthropic.Anthropic,
        store: Store,
        config: BatchConfig,
    ) -> None:
        self._requests = requests
        self._store = store
        self._config = config
        self._log = BatchLog(store)
        self._api = BatchApi(client, self._log, config.poll_seconds, config.settle_seconds)
        self._results: dict[str, Reply | Failure] = {}
        self._pending: list[str] = []
        self._flights: list[_Flight] = []
        self._known: set[str] = set()
        self._sends: Counter[str] = Counter()
        self._spent = 0.0
        self._spent_earlier = 0.0

    def outcome(self) -> BatchOutcome:
        num_cached = self._resume()
        while True:
            self._send_wave()
            if not self._flights:
                break
            self._collect()
        if self._pending:
            logger.warning(
                "batches: budget reached, %d of %d requests not sent: the next may cost up to "
                "%.4f USD, and %.4f of %.2f USD are left",
                *(len(self._pending), len(self._requests)),
                self._requests[self._pending[0]].most_usd(self._config),
                *(self._left(), self._config.budget_usd),
            )
        return BatchOutcome(
            results={i: self._results[i] for i in self._requests if i in self._results},
            spent_usd=self._spent,
            spent_earlier_usd=self._spent_earlier,
            num_sent=len(self._sends),
            num_cached=num_cached,
            num_unsent=sum(i not in self._results for i in self._requests),
            status="budget_reached" if self._pending else "completed",
        )

    def _resume(self) -> int:
        """Take what is in the store and what is under way; answers how many replies were there."""
        entries = self._log.open_entries()
        self._known = {e.batch_id for e in entries if e.batch_id}
        cached = stored_replies(self._store, self._requests)
        self._results.update(cached)
        since = datetime.now(UTC) - timedelta(hours=self._config.budget_hours)
        recent = [reply.usage for reply in cached.values() if reply.created_at >= since]
        self._spent_earlier = sum(map(self._config.usd, recent))
        for entry in entries:
            if not self._requests.keys().isdisjoint(entry.custom_ids):
                self._rejoin(entry)
        under_way = {i for flight in self._flights for i in flight.entry.custom_ids}
        wanted = [i for i in self._requests if i not in cached]
        self._sends.update(i for i in wanted if i in under_way)
        self._pending = [i for i in wanted if i not in under_way]
        logger.info(
            "batches: %d requests, %d replies in the store, %d batches under way, %d to send",
            *(len(self._requests), len(cached), len(self._flights), len(self._pending)),
        )
        return len(cached)

    def _rejoin(self, entry: Entry) -> None:
        if entry.batch_id is None:
            batch_id = self._api.find(entry, self._known)
            if batch_id is None:
                self._log.close(entry)
                return
            entry = self._log.confirm(entry, batch_id)
        self._fly(entry)

    def _fly(self, entry: Entry) -> None:
        if entry.batch_id is None:
            raise ValueError(f"intent {entry.number} has no batch")
        self._known.add(entry.batch_id)
        own = [i for i in entry.custom_ids if i in self._requests and i not in self._results]
        most = sum(self._requests[i].most_usd(self._config) for i in own)
        self._flights.append(_Flight(entry, entry.batch_id, most))

    def _send_wave(self) -> None:
        """Send what the budget and the number of batches at once allow."""
        while len(self._flights) < self._config.max_in_flight and (chunk := self._affordable()):
            self._pending = self._pending[len(chunk) :]
            bodies = {request.custom_id: request.params for request in chunk}
            entry = self._api.create(bodies, self._known)
            self._sends.update(entry.custom_ids)
            self._fly(entry)
            logger.info("batches: sent %d requests as %s", len(chunk), entry.batch_id)

    def _left(self) -> float:
        in_flight = sum(flight.most_usd for flight in self._flights)
        return self._config.budget_usd - self._spent - self._spent_earlier - in_flight

    def _affordable(self) -> list[BatchRequest]:
        """The next requests in order that fit into a batch and into the budget."""
        left, size = self._left(), 0
        chunk: list[BatchRequest] = []
        for custom_id in self._pending[: self._config.max_requests]:
            request = self._requests[custom_id]
            left -= request.most_usd(self._config)
            size += request.num_bytes
            if left < 0 or (chunk and size > self._config.max_bytes):
                break
            chunk.append(request)
        return chunk

    def _collect(self) -> None:
        """Look at every batch under way; take the results of those that have ended."""
        still: list[_Flight] = []
        for flight in self._flights:
            batch = self._api.look(flight.batch_id)
            if batch is None or not batch.has_ended:
                still.append(flight)
            else:
                self._take(flight.entry, batch)
        none_ended = len(still) == len(self._flights)
        self._flights = still
        if none_ended:
            time.sleep(self._config.poll_seconds)
            return
        failed = sum(isinstance(result, Failure) for result in self._results.values())
        logger.info(
            "batches: %d of %d answered, %d failed, %.4f of %.2f USD spent, %d batches under way",
            *(len(self._results) - failed, len(self._requests), failed),
            *(self._spent + self._spent_earlier, self._config.budget_usd, len(still)),
        )

    def _take(self, entry: Entry, batch: Batch) -> None:
        """Store the replies, note the failures, and close the entry if nothing paid is missing."""
        read: dict[str, Reply | Failure] = {}
        num_unread = 0
        if batch.archived_at is None:
            read, num_unread = self._api.results(batch, set(entry.custom_ids))
        # All of them, also those to requests of another run: they are paid.
        replies = {i: result for i, result in read.items() if isinstance(result, Reply)}
        store_replies(self._store, replies)
        for custom_id in entry.custom_ids:
            if custom_id in self._requests and custom_id not in self._results:
                self._note(custom_id, read.get(custom_id) or _missing(batch, num_unread))
        if not num_unread:
            self._log.close(entry)

    def _note(self, custom_id: str, result: Reply | Failure) -> None:
        if isinstance(result, Reply):
            self._spent += self._config.usd(result.usage)
        elif result.reason in ("malformed", "unread"):
            # Paid, as far as anybody knows, and nobody knows how much.
            self._spent += self._requests[custom_id].most_usd(self._config)
        elif result.reason in _UNPAID and self._sends[custom_id] < self._config.max_sends:
            self._pending.append(custom_id)
            return
        self._results[custom_id] = result


def _missing(batch: Batch, num_unread: int) -> Failure:
    """A request without a line: perhaps paid, then the next run reads again; or surely not."""
    if batch.archived_at is not None:
        return Failure("gone", f"the results of batch {batch.id} are no longer there")
    if num_unread:
        return Failure("unread", f"the results of batch {batch.id} lack it; it may be paid")
    return Failure("missing", f"the results of batch {batch.id} lack it; it was not paid")
