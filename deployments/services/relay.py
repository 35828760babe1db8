"""One request to a replica and its answer back, byte by byte; and to another where that fails.

Until the first byte of an answer has gone out, a failure is made good: by another replica, and for
the challenger by the champion. After it, the client is told in the stream, and the connection ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import aiohttp

from deployments.services.fleet import Fleet, Replica
from tasks.serve.config import LimitsConfig
from tasks.serve.exchange import Failure
from tasks.serve.request_body import Body
from tasks.serve.routing import Route, Side, Version

STREAM = "text/event-stream"
# What a proxy's upstream says to the proxy alone.
_HOP = frozenset(
    {b"connection", b"keep-alive", b"transfer-encoding", b"server", b"date", b"trailer"}
)
# What says that this replica cannot answer, not that the request is wrong: it broke, or the model
# was taken out of it since it was looked at.
_NOT_HERE, _BROKEN = 404, 500
_ELSEWHERE = 2  # replicas that are tried for one version


class Attempt(NamedTuple):
    """A version on a replica."""

    side: Side
    version: Version
    replica: Replica


class FailedError(Exception):
    """An attempt that brought no answer."""

    def __init__(self, failure: Failure, detail: str) -> None:
        super().__init__(detail)
        self.failure: Failure = failure


@dataclass
class Reply:
    """An answer on its way. ``pieces`` may be read once; FailedError where they break off."""

    attempt: Attempt
    status: int
    headers: list[tuple[bytes, bytes]]
    streamed: bool
    pieces: AsyncIterator[bytes]
    failed: list[tuple[Attempt, Failure]] = field(default_factory=list)


class NoReplicaError(Exception):
    """No replica could answer. ``failed`` says which were tried, the last one last."""

    def __init__(self, failed: list[tuple[Attempt, Failure]]) -> None:
        super().__init__("no replica answered")
        self.failed = failed


def attempts(fleet: Fleet, route: Route, side: Side) -> Iterator[Attempt]:
    """Where to try: the side's version on its replicas, then the champion on its own."""
    if side == "challenger" and route.challenger is not None:
        for replica in fleet.holding(route.challenger.served)[:1]:
            yield Attempt("challenger", route.challenger, replica)
    for replica in fleet.holding(route.champion.served)[:_ELSEWHERE]:
        yield Attempt("champion", route.champion, replica)


@asynccontextmanager
async def answered(
    fleet: Fleet,
    route: Route,
    side: Side,
    path: str,
    body: Body,
    request_id: str,
    limits: LimitsConfig,
) -> AsyncIterator[Reply]:
    """The first answer that one of the attempts brings. Raises NoReplicaError where none does."""
    failed: list[tuple[Attempt, Failure]] = []
    for attempt in attempts(fleet, route, side):
        if any(tried.side == "champion" and why == "timed_out" for tried, why in failed):
            break  # what takes too long takes as long elsewhere, and keeps two replicas busy
        with attempt.replica.busy():
            try:
                response = await _asked(fleet, attempt, path, body, request_id, limits)
            except FailedError as error:
                failed.append((attempt, error.failure))
                continue
            try:
                reply = await _begun(attempt, response, limits)
                reply.failed = failed
            except FailedError as error:
                response.close()
                failed.append((attempt, error.failure))
                continue
            except BaseException:
                # Above all a cancellation: the replica is to stop as well.
                response.close()
                raise
            try:
                yield reply
            finally:
                # What was read to its end is given back to be used again; the rest is cut.
                response.close() if not response.content.at_eof() else response.release()
            return
    raise NoReplicaError(failed)


async def _asked(
    fleet: Fleet, attempt: Attempt, path: str, body: Body, request_id: str, limits: LimitsConfig
) -> aiohttp.ClientResponse:
    try:
        async with asyncio.timeout(limits.connect_seconds + limits.first_byte_seconds):
            return await fleet.session.post(
                attempt.replica.url + path,
                data=body.for_replica(attempt.version.served),
                headers={"content-type": "application/json", "x-request-id": request_id},
            )
    except TimeoutError as error:  # aiohttp's own time-outs too
        raise FailedError("timed_out", str(error)) from error
    except aiohttp.ClientConnectorError as error:
        raise FailedError("unreachable", str(error)) from error
    except (aiohttp.ClientError, OSError) as error:
        raise FailedError("broken_off", str(error)) from error


async def _begun(attempt: Attempt, response: aiohttp.ClientResponse, limits: LimitsConfig) -> Reply:
    """The answer with its first piece, or all of it where it is not streamed."""
    if response.status == _NOT_HERE or response.status >= _BROKEN:
        raise FailedError("upstream_error", f"{response.status}")
    streamed = response.content_type == STREAM
    first = await _piece(response, limits) if streamed else await _all(response, limits)
    lower = ((name.lower(), value) for name, value in response.raw_headers)
    headers = [(name, value) for name, value in lower if name not in _HOP]

    async def pieces() -> AsyncIterator[bytes]:
        piece = first
        while piece:
            yield piece
            piece = await _piece(response, limits) if streamed else b""

    return Reply(attempt, response.status, headers, streamed, pieces())


@contextmanager
def _told() -> Iterator[None]:
    """What goes wrong while an answer is read, in one word."""
    try:
        yield
    except TimeoutError as error:
        raise FailedError("timed_out", "it stopped on the way") from error
    except (aiohttp.ClientError, OSError) as error:
        raise FailedError("broken_off", str(error)) from error


async def _piece(response: aiohttp.ClientResponse, limits: LimitsConfig) -> bytes:
    with _told():
        async with asyncio.timeout(limits.idle_seconds):
            return await response.content.readany()


async def _all(response: aiohttp.ClientResponse, limits: LimitsConfig) -> bytes:
    with _told():
        async with asyncio.timeout(limits.idle_seconds):
            return await response.read()
