"""Group commit: events that wait at the same moment go to storage in one object.

Nobody waits for a timer: while one object is being written, what comes meanwhile gathers for the
next. One is written at a time: of several beside each other each would hold fewer. An event is
acknowledged when the object that holds it is there.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence

from tasks.collect.inbox import Event

_MOST_EVENTS = 500

Write = Callable[[Sequence[Event]], object]


class Committer:
    """Writes the events of one source; ``write`` blocks, and is called on threads."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self._waiting: list[tuple[Event, asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None

    async def commit(self, event: Event) -> None:
        """Returns when the event is in storage; raises what the write raised."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((event, future))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._run())
        await future

    async def close(self) -> None:
        """Wait for what is being written."""
        if self._writer is not None:
            await self._writer

    async def _run(self) -> None:
        while self._waiting:
            batch = self._waiting[:_MOST_EVENTS]
            del self._waiting[:_MOST_EVENTS]
            events = [event for event, _ in batch]
            error: Exception | None = None
            try:
                await asyncio.to_thread(self._write, events)
            except Exception as raised:  # noqa: BLE001 - told to each who waits for it
                error = raised
            for _, future in batch:
                with contextlib.suppress(asyncio.InvalidStateError):  # its sender went away
                    future.set_exception(error) if error else future.set_result(None)
