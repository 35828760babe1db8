"""The Message Batches API with its faults: created once, found again, read to the last good line.

A batch carries no name of ours. Where the answer to a creation was lost, the recent batches are
listed: those that hold as many requests are waited for, newest first, and known by the ids of the
requests in their results. For this reason the client must not repeat a creation by itself.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tasks.batch_log import BatchLog, Entry
from tasks.errors import RetuneError, is_transient

if TYPE_CHECKING:
    import anthropic
    from anthropic.types.messages.batch_create_params import Request

logger = logging.getLogger(__name__)
_MOST_WAITED_SECONDS = 60.0
_READS = 3  # of results that came incomplete
# How far this machine's clock and the API's may be apart.
_CLOCK_SKEW = timedelta(minutes=10)
# Errors of a single request that may pass; all others are the request's own.
_PASSING = frozenset({"api_error", "overloaded_error", "rate_limit_error", "timeout_error"})
# Answers after which nothing was created, and after which nothing will be any more.
_REFUSED = frozenset({429, 529})
_SETTLED = frozenset({500, 503})


class BatchError(RetuneError):
    """The API answered something that is not a batch."""


class Usage(BaseModel):
    """The tokens that were paid."""

    model_config = ConfigDict(frozen=True)

    input_tokens: int = Field(ge=0)
    output_tokens: int = Field(ge=0)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a request has no reply, or a reply no use: a stable reason and what was said."""

    reason: str
    detail: str


class Reply(BaseModel):
    """What the model answered, and when its batch was created."""

    model_config = ConfigDict(frozen=True)

    content: list[dict[str, Any]]
    stop_reason: str | None = None
    usage: Usage
    created_at: datetime

    def tool_input(self, tool: str) -> Any:
        """What the model handed to a tool; a Failure when it refused, was cut off or did not."""
        if self.stop_reason == "refusal":
            return Failure("refusal", "the model refused")
        if self.stop_reason == "max_tokens":
            return Failure("cut_off", "the answer reached max_tokens")
        for block in self.content:
            if block.get("type") == "tool_use" and block.get("name") == tool:
                return block.get("input")
        return Failure("no_tool_call", f"no call of {tool} (stop reason {self.stop_reason})")


class Counts(BaseModel):
    """The requests of a batch by their state."""

    model_config = ConfigDict(from_attributes=True)

    processing: int = 0
    succeeded: int = 0
    errored: int = 0
    canceled: int = 0
    expired: int = 0

    @property
    def total(self) -> int:
        return self.processing + self.succeeded + self.errored + self.canceled + self.expired


class Batch(BaseModel):
    """The part of a batch that matters here; the client hands on whatever it was answered."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    processing_status: Literal["in_progress", "canceling", "ended"]
    request_counts: Counts
    created_at: datetime
    archived_at: datetime | None = None

    @property
    def has_ended(self) -> bool:
        return self.processing_status == "ended"


class _Line(BaseModel):
    custom_id: str
    result: dict[str, Any]


class BatchApi:
    """The calls, each safe to repeat; ``known`` are the ids of batches that are accounted for."""

    def __init__(
        self,
        client: anthropic.Anthropic,
        log: BatchLog,
        poll_seconds: float,
        settle_seconds: float,
    ) -> None:
        self._client = client
        self._log = log
        self._poll_seconds = poll_seconds
        self._settle_seconds = settle_seconds
        self._unreadable = 0

    def create(self, bodies: Mapping[str, Mapping[str, Any]], known: Collection[str]) -> Entry:
        """A batch of these requests by id, created exactly once, logged before and after."""
        from anthropic import APIError

        # Retries of the client's own would create a second batch where the first answer was lost.
        batches = self._client.with_options(max_retries=0).messages.batches
        requests: list[Request] = [{"custom_id": i, "params": b} for i, b in bodies.items()]  # type: ignore[typeddict-item]
        attempts = self._client.max_retries + 1
        for attempt in range(1, attempts + 1):
            entry = self._log.intend(list(bodies))
            try:
                batch = Batch.model_validate(batches.create(requests=requests))
                return self._log.confirm(entry, batch.id)
            except (APIError, ValueError) as error:  # ValueError: no JSON, or no batch
                problem = error
            if (batch_id := self._created_after_all(entry, problem, known)) is not None:
                return self._log.confirm(entry, batch_id)
            self._log.close(entry)
            if isinstance(problem, APIError) and not is_transient(problem):
                break
            if attempt < attempts:
                logger.warning("batches: not created (%s), trying again", problem)
                time.sleep(_wait(problem, attempt))
        if isinstance(problem, APIError):
            raise problem
        raise BatchError(f"the API answered something that is not a batch: {problem}")

    def _created_after_all(
        self, entry: Entry, problem: Exception, known: Collection[str]
    ) -> str | None:
        status = getattr(problem, "status_code", None)
        if status in _REFUSED or (status is not None and not is_transient(problem)):
            return None
        return self.find(entry, known, settle_seconds=0.0 if status in _SETTLED else None)

    def find(
        self, entry: Entry, known: Collection[str], settle_seconds: float | None = None
    ) -> str | None:
        """The batch of an intent without an id, or None when there is none and will be none."""
        patience = self._settle_seconds if settle_seconds is None else settle_seconds
        while True:
            found, wait = self._look_for(entry, known)
            age = (datetime.now(UTC) - entry.created_at).total_seconds()
            if found is not None or (not wait and age >= patience):
                return found
            logger.info("batches: waiting to see whether intent %d took effect", entry.number)
            time.sleep(self._poll_seconds)

    def _look_for(self, entry: Entry, known: Collection[str]) -> tuple[str | None, bool]:
        """Its batch if it is seen, and whether an unfinished one could still turn out to be it.

        Newest first: an older batch of the same requests may have expired and been sent again.
        """
        for listed in self._client.messages.batches.list(limit=100):
            batch = Batch.model_validate(listed)
            if batch.created_at < entry.created_at - _CLOCK_SKEW:
                break
            if batch.id in known or batch.request_counts.total != len(entry.custom_ids):
                continue
            if batch.archived_at is not None:
                continue
            if not batch.has_ended:
                return None, True
            try:
                first = next(self._lines(batch.id), None)
            except ValueError:
                first = None
            if first is None:  # every batch has results: these could not be read, this time
                return None, True
            if first.custom_id in set(entry.custom_ids):
                return batch.id, False
        return None, False

    def look(self, batch_id: str) -> Batch | None:
        """The batch as it stands; None when the answer could not be read, this time.

        One that is not there is one whose results are not there.
        """
        from anthropic import NotFoundError

        try:
            batch = Batch.model_validate(self._client.messages.batches.retrieve(batch_id))
        except NotFoundError:
            now = datetime.now(UTC)
            return Batch(
                id=batch_id,
                processing_status="ended",
                request_counts=Counts(),
                created_at=now,
                archived_at=now,
            )
        except ValueError as error:
            self._unreadable += 1
            if self._unreadable > self._client.max_retries:
                raise BatchError(f"batch {batch_id}: unreadable answer: {error}") from error
            return None
        self._unreadable = 0
        return batch

    def results(
        self, batch: Batch, wanted: Collection[str]
    ) -> tuple[dict[str, Reply | Failure], int]:
        """The results by request id, and how many paid ones could not be read."""
        read: dict[str, Reply | Failure] = {}
        unread = 0
        for _ in range(_READS):
            try:
                for line in self._lines(batch.id):
                    if line.custom_id in wanted and not isinstance(read.get(line.custom_id), Reply):
                        read[line.custom_id] = _result(line.result, batch)
            except ValueError as error:  # the client looks at the batch first, and met no JSON
                logger.warning("batches: results of %s: %s", batch.id, error)
            num_replies = sum(isinstance(result, Reply) for result in read.values())
            unread = max(batch.request_counts.succeeded - num_replies, 0)
            if read and not unread:
                break
            logger.warning("batches: %d results of %s cannot be read", unread, batch.id)
        return read, unread

    def _lines(self, batch_id: str) -> Iterator[_Line]:
        """The readable lines; the client's own decoder would stop at the first bad one."""
        results = self._client.messages.batches.with_streaming_response.results
        with results(batch_id) as response:
            for text in response.iter_lines():
                try:
                    yield _Line.model_validate_json(text)
                except ValidationError:
                    continue


def _result(result: Mapping[str, Any], batch: Batch) -> Reply | Failure:
    kind = str(result.get("type"))
    if kind == "succeeded":
        message = result.get("message")
        if not isinstance(message, dict):
            return Failure("malformed", "a reply without a message")
        try:
            return Reply.model_validate({**message, "created_at": batch.created_at})
        except ValidationError as error:
            told = "; ".join(f"{e['loc']}: {e['msg']}" for e in error.errors())
            return Failure("malformed", told)
    if kind == "errored":
        error_type, text = _error_of(result)
        reason = "errored" if error_type in _PASSING else "invalid_request"
        return Failure(reason, f"{error_type}: {text}")
    if kind in ("expired", "canceled"):
        return Failure(kind, f"{kind} in batch {batch.id}")
    return Failure("malformed", f"a result of type {kind!r}")


def _error_of(result: Mapping[str, Any]) -> tuple[str, str]:
    outer = result.get("error")
    inner = outer.get("error", outer) if isinstance(outer, dict) else None
    if not isinstance(inner, dict):
        return "api_error", str(outer)
    return str(inner.get("type", "api_error")), str(inner.get("message", ""))


def _wait(problem: Exception, attempt: int) -> float:
    """As long as the API asks for, else twice as long each time."""
    headers = getattr(getattr(problem, "response", None), "headers", {})
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            return min(float(headers[name]) * unit, _MOST_WAITED_SECONDS)
        except (KeyError, ValueError):
            continue
    return min(0.5 * 2.0**attempt, _MOST_WAITED_SECONDS)
