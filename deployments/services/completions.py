"""POST /v1/chat/completions and /v1/completions: who asks, who answers, and what is kept of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from deployments.services.bodies import TooLargeError
from deployments.services.bodies import read_body as read_raw
from deployments.services.directory import Directory
from deployments.services.fleet import Fleet
from deployments.services.gateway_metrics import Metrics
from deployments.services.outbox import Outbox
from deployments.services.relay import Attempt, FailedError, NoReplicaError, Reply, answered
from tasks.serve.answer import events, usage, whole
from tasks.serve.config import GatewayConfig
from tasks.serve.exchange import Exchange, Failure
from tasks.serve.keys import Keys
from tasks.serve.request_body import Body, BodyError, read_body
from tasks.serve.request_ids import RequestIds
from tasks.serve.routing import Route, Side, place, side_of

_CLIENT_LEFT = 499  # nginx's number for it
_MOST_KEPT = 2**20  # bytes of an answer
_TAIL_BYTES = 4096
_NO_CHOICES = re.compile(rb'"choices"\s*:\s*\[\s*\]')
_EVENT = re.compile(rb".*?(?:\r\n\r\n|\n\n)", re.DOTALL)


class RefusalError(Exception):
    """A request that goes to no replica, in the form of OpenAI's errors."""

    def __init__(
        self, status: int, code: str, message: str, param: str | None = None, *, close: bool = False
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.param, self.close = status, code, param, close

    def response(self, request_id: str) -> JSONResponse:
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        error = {"message": str(self), "type": kind, "param": self.param, "code": self.code}
        headers = {"x-request-id": request_id}
        if self.status in (429, 503):
            headers["retry-after"] = "1"
        if self.close:  # what is left of the body is not read
            headers["connection"] = "close"
        return JSONResponse({"error": error}, self.status, headers)


class _Asked(NamedTuple):
    """A request that is to be answered."""

    request_id: str
    path: str
    body: Body
    route: Route
    side: Side
    user: str | None
    conversation: str | None
    created_at: datetime
    started: float


class Gatekeeper:
    """Who may ask, and how many at once."""

    def __init__(self, config: GatewayConfig, keys: Keys | None) -> None:
        self._limits, self._keys = config.limits, keys
        self._in_flight: Counter[str] = Counter()

    def owner(self, request: Request) -> str:
        """Whose request it is. Raises RefusalError."""
        if self._keys is None:
            return ""
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        owner = self._keys.owner(key, datetime.now(UTC)) if scheme.lower() == "bearer" else None
        if owner is None:
            raise RefusalError(
                401, "invalid_api_key", "The API key is missing, unknown or expired."
            )
        return owner

    @contextlib.contextmanager
    def admitted(self, owner: str) -> Iterator[None]:
        """A place among the requests at once. Raises RefusalError where there is none."""
        if self._in_flight.total() >= self._limits.max_in_flight:
            raise RefusalError(503, "overloaded", "Too many requests at once: try again shortly.")
        if self._keys and self._in_flight[owner] >= self._limits.max_in_flight_of_a_key:
            raise RefusalError(
                429, "rate_limit_exceeded", "Too many requests at once with this API key."
            )
        self._in_flight[owner] += 1
        try:
            yield
        finally:
            self._in_flight[owner] -= 1


class Completions:
    """The two endpoints, as an ASGI app."""

    def __init__(
        self,
        config: GatewayConfig,
        gatekeeper: Gatekeeper,
        directory: Directory,
        fleet: Fleet,
        outbox: Outbox,
        metrics: Metrics,
        ids: RequestIds,
    ) -> None:
        self._config, self._gatekeeper = config, gatekeeper
        self._directory, self._fleet = directory, fleet
        self._outbox, self._metrics, self._ids = outbox, metrics, ids
        self._shadows: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request, started = Request(scope, receive), time.monotonic()
        request_id = self._ids.new()
        try:
            owner = self._gatekeeper.owner(request)
            with self._gatekeeper.admitted(owner), self._metrics.in_flight.track_inprogress():
                asked = self._asked(request, await self._body(request), request_id, started)
                await self._answer(asked, receive, send)
        except RefusalError as refusal:
            self._metrics.refused(refusal.status, refusal.code)
            await refusal.response(request_id)(scope, receive, send)
        except ClientDisconnect:
            self._metrics.refused(_CLIENT_LEFT, "client_left")

    async def close(self) -> None:
        """Wait for the copies that are still being answered."""
        await asyncio.gather(*self._shadows, return_exceptions=True)

    async def _body(self, request: Request) -> Body:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise RefusalError(415, "not_json", "Expected content-type application/json.")
        limits = self._config.limits
        try:
            return read_body(await read_raw(request, limits.max_body_bytes, limits.body_seconds))
        except TooLargeError:
            most = f"Expected a body of at most {limits.max_body_bytes:,} bytes."
            raise RefusalError(413, "too_large", most, close=True) from None
        except TimeoutError:
            within = f"Expected the body within {limits.body_seconds:g} s."
            raise RefusalError(408, "too_slow", within, close=True) from None
        except BodyError as error:
            raise RefusalError(400, "invalid_body", str(error), error.field) from None

    def _asked(self, request: Request, body: Body, request_id: str, started: float) -> _Asked:
        route = self._directory.route(body.model)
        if route is None:
            raise RefusalError(
                404, "model_not_found", f"There is no model {body.model!r} in production.", "model"
            )
        served = route.among(self._fleet.loaded)
        if served is None:
            raise RefusalError(503, "not_loaded", f"No replica holds {body.model!r} at the moment.")
        field = body.fields.get("user")
        user = field if isinstance(field, str) and field else request.headers.get("x-user-id")
        conversation = request.headers.get("x-conversation-id")
        units = {"user": user, "conversation": conversation, "request": request_id}
        order = list(units)[list(units).index(self._config.assign_by) :]
        unit = next(value for name in order if (value := units[name]))
        return _Asked(
            request_id,
            request.url.path,
            body,
            served,
            side_of(served, unit),
            self._ids.pseudonym(user) if user else None,
            self._ids.pseudonym(conversation) if conversation else None,
            datetime.now(UTC),
            started,
        )

    async def _answer(self, asked: _Asked, receive: Receive, send: Send) -> None:
        if asked.route.shadow and asked.route.challenger is not None:
            self._cast_shadow(asked)
        with _watched(receive) as client:
            sending = _Sending(send, client)
            try:
                async with self._reply(asked, asked.route, asked.side) as reply:
                    await self._pass_on(asked, reply, sending)
            except NoReplicaError as error:
                raise self._not_answered(asked, error.failed) from None
            except asyncio.CancelledError:
                if not client.left:
                    raise
                version = asked.route.of(asked.side).version
                self._record(asked, asked.side, version, _CLIENT_LEFT, "client_left")

    def _not_answered(self, asked: _Asked, failed: list[tuple[Attempt, Failure]]) -> RefusalError:
        self._tell_failed(asked, failed)
        failure: Failure = failed[-1][1] if failed else "unreachable"
        late = failure == "timed_out"
        refusal = (
            RefusalError(504, failure, "The model did not answer in time.")
            if late
            else RefusalError(503, failure, "The model could not answer: try again shortly.")
        )
        version = asked.route.of(asked.side).version
        self._record(asked, asked.side, version, refusal.status, failure)
        return refusal

    async def _pass_on(self, asked: _Asked, reply: Reply, sending: _Sending) -> None:
        """The answer to the client, piece by piece, and then into the records."""
        self._tell_failed(asked, reply.failed)
        version = reply.attempt.version.version
        ours = [
            (b"x-request-id", asked.request_id.encode()),
            (b"x-model-version", version.encode()),
        ]
        failure: Failure | None = None
        pieces = reply.pieces
        if reply.streamed and not asked.body.counts_tokens:
            pieces = without_usage(pieces, sending.keep)
        try:
            async for piece in pieces:
                await sending.piece(reply, ours, piece)
        except FailedError as broken:
            failure = broken.failure
            self._metrics.failed(asked.body.model, version, reply.attempt.side, failure)
            if reply.streamed:
                # In the stream, since the status has gone out; OpenAI's clients raise it.
                error = {"error": {"message": "The answer broke off.", "code": failure}}
                await sending.piece(reply, ours, f"data: {json.dumps(error)}\n\n".encode())
        await sending.end(reply, ours)
        fell_back = asked.side == "challenger" and reply.attempt.side == "champion"
        self._record(
            asked, asked.side, version, reply.status, failure, sending.kept, reply.streamed,
            sending.first_at, fell_back=fell_back,
        )  # fmt: skip

    def _cast_shadow(self, asked: _Asked) -> None:
        """Have the challenger answer a copy, unless there are many at it already."""
        if len(self._shadows) >= self._config.limits.max_in_flight // 4:
            self._outbox.lost["shadow"] += 1
            return
        task = asyncio.create_task(self._shadow(asked))
        self._shadows.add(task)
        task.add_done_callback(self._shadows.discard)

    async def _shadow(self, asked: _Asked) -> None:
        challenger = asked.route.challenger
        if challenger is None:
            return
        asked = asked._replace(started=time.monotonic())
        failure: Failure | None = None
        status, streamed, kept = 504, False, bytearray()
        try:
            async with self._reply(asked, Route(champion=challenger), "champion") as reply:
                status, streamed = reply.status, reply.streamed
                async for piece in reply.pieces:
                    kept += piece
        except NoReplicaError as error:
            failure = error.failed[-1][1] if error.failed else "unreachable"
        except FailedError as error:
            failure = error.failure
        self._record(asked, "shadow", challenger.version, status, failure, kept, streamed)

    @contextlib.asynccontextmanager
    async def _reply(self, asked: _Asked, route: Route, side: Side) -> AsyncIterator[Reply]:
        async with answered(
            self._fleet, route, side, asked.path, asked.body, asked.request_id, self._config.limits
        ) as reply:
            yield reply

    def _tell_failed(self, asked: _Asked, failed: list[tuple[Attempt, Failure]]) -> None:
        for attempt, failure in failed:
            version = attempt.version.version
            self._metrics.failed(asked.body.model, version, attempt.side, failure)

    def _record(
        self,
        asked: _Asked,
        side: Side,
        version: str,
        status: int,
        failure: Failure | None,
        kept: bytes | bytearray = b"",
        streamed: bool = False,
        first_at: float | None = None,
        *,
        fell_back: bool = False,
    ) -> None:
        seconds = time.monotonic() - asked.started
        first = None if first_at is None else first_at - asked.started
        model = asked.body.model.rpartition("@")[0] or asked.body.model
        self._metrics.answered(
            model, version, side, status, seconds, first, _tokens(bytes(kept), streamed=streamed)
        )
        sampled = place("sampled", asked.request_id) < self._config.traffic.sampled
        wanted = sampled or "response_format" in asked.body.fields
        self._outbox.send(
            Exchange(
                request_id=asked.request_id,
                created_at=asked.created_at,
                endpoint=asked.path,
                model=model,
                model_version=version,
                side=side,
                fell_back=fell_back,
                user=asked.user,
                conversation=asked.conversation,
                status=status,
                failure=failure,
                seconds=seconds,
                first_byte_seconds=first,
                streamed=streamed,
                sampled=sampled,
                request=asked.body.text if wanted else "",
                response=bytes(kept).decode("utf-8", "replace"),
            )
        )


class _Sending:
    """An answer on its way to the client, and what of it is kept."""

    def __init__(self, send: Send, client: _Client) -> None:
        self._send, self._client = send, client
        self.kept = bytearray()
        self.first_at: float | None = None

    async def piece(self, reply: Reply, ours: list[tuple[bytes, bytes]], piece: bytes) -> None:
        await self._start(reply, ours)
        self.keep(piece)
        await self._send({"type": "http.response.body", "body": piece, "more_body": True})

    async def end(self, reply: Reply, ours: list[tuple[bytes, bytes]]) -> None:
        await self._start(reply, ours)
        self._client.served = True
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    def keep(self, piece: bytes) -> None:
        """Of the answer's first part, as much as is kept of one."""
        if len(self.kept) < _MOST_KEPT:
            self.kept += piece

    async def _start(self, reply: Reply, ours: list[tuple[bytes, bytes]]) -> None:
        if self.first_at is None:
            self.first_at = time.monotonic()
            headers = [*reply.headers, *ours]
            message = {"type": "http.response.start", "status": reply.status, "headers": headers}
            await self._send(message)


async def without_usage(
    pieces: AsyncIterator[bytes], keep: Callable[[bytes], None]
) -> AsyncIterator[bytes]:
    """A stream of events less the one with the number of tokens, which the client did not ask for.

    That one is handed to ``keep``. What arrives of an event is passed on when it is complete.
    """
    pending = b""
    async for piece in pieces:
        block, pending = _complete(pending + piece)
        if _NO_CHOICES.search(block) is None:
            if block:
                yield block
            continue
        parts = _EVENT.findall(block)
        for part in parts:
            if _counts(part):
                keep(part)
        if rest := b"".join(part for part in parts if not _counts(part)):
            yield rest
    if pending:
        yield pending


def _complete(data: bytes) -> tuple[bytes, bytes]:
    """The events that are complete, each with the empty line that ends it, and what follows."""
    ends = (data.rfind(mark) + len(mark) for mark in (b"\n\n", b"\r\n\r\n") if mark in data)
    end = max(ends, default=0)
    return data[:end], data[end:]


def _counts(event: bytes) -> bool:
    return b'"usage"' in event and _NO_CHOICES.search(event) is not None


def _tokens(kept: bytes, *, streamed: bool) -> tuple[int | None, int | None]:
    if not streamed:
        return usage(whole(kept, streamed=False))
    last = (usage(event) for event in events(kept[-_TAIL_BYTES:]))
    return next((found for found in reversed(list(last)) if found != (None, None)), (None, None))


@dataclass
class _Client:
    """Whether it ``left`` before it was ``served``."""

    left: bool = False
    served: bool = False


@contextlib.contextmanager
def _watched(receive: Receive) -> Iterator[_Client]:
    """Cancels the caller when the client goes away before it has its answer."""
    caller, client = asyncio.current_task(), _Client()

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        if caller is not None and not client.served:  # servers say so too after the whole answer
            client.left = True
            caller.cancel()

    watcher = asyncio.create_task(watch())
    try:
        yield client
    finally:
        watcher.cancel()
        if client.left and caller is not None:
            caller.uncancel()
