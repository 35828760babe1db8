"""Streams of events on their way: a client that leaves, and the count that it did not ask for."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass

from starlette.types import Receive, Send

from deployments.services.relay import Reply

_NO_CHOICES = re.compile(rb'"choices"\s*:\s*\[\s*\]')
_MOST_KEPT = 2**20  # bytes of an answer
_EVENT = re.compile(rb".*?(?:\r\n\r\n|\n\n)", re.DOTALL)


@dataclass
class Client:
    """Whether it ``left`` before it was ``served``."""

    left: bool = False
    served: bool = False


@contextlib.contextmanager
def watched(receive: Receive) -> Iterator[Client]:
    """Cancels the caller when the client goes away before it has its answer."""
    caller, client = asyncio.current_task(), Client()

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


class Sending:
    """An answer on its way to the client, and what of it is kept."""

    def __init__(self, send: Send, client: Client) -> None:
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
