"""POST /v1/chat/completions and /v1/completions: who asks, who answers, and what is kept of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import NamedTuple

from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from deployments.services.admission import Gatekeeper, RefusalError
from deployments.services.bodies import TooLargeError
from deployments.services.bodies import read_body as read_raw
from deployments.services.directory import Directory
from deployments.services.fleet import Fleet
from deployments.services.gateway_metrics import Metrics
from deployments.services.outbox import Outbox
from deployments.services.relay import Attempt, FailedError, NoReplicaError, Reply, answered
from deployments.services.streams import Sending, watched, without_usage
from tasks.serve.answer import events, usage, whole
from tasks.serve.config import GatewayConfig
from tasks.serve.exchange import Exchange, Failure
from tasks.serve.request_body import Body, BodyError, read_body
from tasks.serve.request_ids import RequestIds
from tasks.serve.routing import Route, Side, place, side_of

_CLIENT_LEFT = 499  # nginx's number for it
_TAIL_BYTES = 4096


class _Asked(NamedTuple):
    """A request that is to be answered."""

    request_id: str
    path: str
    body: Body
    route: Route
    side: Side
    unit: str
    user: str | None
    conversation: str | None
    created_at: datetime
    started: float


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
            self._ids.pseudonym(unit),
            self._ids.pseudonym(user) if user else None,
            self._ids.pseudonym(conversation) if conversation else None,
            datetime.now(UTC),
            started,
        )

    async def _answer(self, asked: _Asked, receive: Receive, send: Send) -> None:
        if asked.route.shadow and asked.route.challenger is not None:
            self._cast_shadow(asked)
        with watched(receive) as client:
            sending = Sending(send, client)
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

    async def _pass_on(self, asked: _Asked, reply: Reply, sending: Sending) -> None:
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
                unit=asked.unit,
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


def _tokens(kept: bytes, *, streamed: bool) -> tuple[int | None, int | None]:
    if not streamed:
        return usage(whole(kept, streamed=False))
    last = (usage(event) for event in events(kept[-_TAIL_BYTES:]))
    return next((found for found in reversed(list(last)) if found != (None, None)), (None, None))
