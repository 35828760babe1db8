"""A server that answers as a vLLM replica does, at once or as scripted; not a model.

with running(StubReplica({"tickets@aaa"})) as replica: ... replica.url
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

PIECES = ("all", " is", " well")


@dataclass
class StubReplica:
    """What it holds, how it answers, and what it was asked.

    ``status`` other than 200 is answered to every request; ``delay`` seconds come before the first
    byte, ``pause`` between two pieces of a stream; ``breaks_after`` pieces it drops the connection.
    While it is ``held`` nothing is answered.
    """

    loaded: set[str]
    status: int = 200
    delay: float = 0.0
    pause: float = 0.0
    breaks_after: int | None = None
    held: bool = False
    pieces: tuple[str, ...] = PIECES
    asked: list[dict[str, Any]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    cut: int = 0
    url: str = ""

    def app(self) -> web.Application:
        app = web.Application(client_max_size=2**26)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/chat/completions", self._chat)
        return app

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": name} for name in sorted(self.loaded)]})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        try:
            return await self._answer(request)
        except (asyncio.CancelledError, ConnectionResetError):
            self.cut += 1
            raise

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        asked = json.loads(raw)
        self.bodies.append(raw)
        self.asked.append(asked)
        await asyncio.sleep(self.delay)
        while self.held:
            await asyncio.sleep(0.02)
        if self.status != 200:
            return web.json_response({"error": {"message": "scripted"}}, status=self.status)
        if asked["model"] not in self.loaded:
            return web.json_response({"error": {"message": "no such model"}}, status=404)
        if asked.get("stream"):
            return await self._stream(request, asked)
        message = {"role": "assistant", "content": "".join(self.pieces)}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return web.json_response(_object(asked, [choice]) | {"usage": _usage(self.pieces)})

    async def _stream(self, request: web.Request, asked: dict[str, Any]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        for number, event in enumerate(self._events(asked)):
            if number == self.breaks_after and request.transport is not None:
                request.transport.abort()
                return response
            await asyncio.sleep(self.pause if number else 0)
            await response.write(event)
        await response.write_eof()
        return response

    def _events(self, asked: dict[str, Any]) -> Iterator[bytes]:
        for number, piece in enumerate(self.pieces, start=1):
            ended = "stop" if number == len(self.pieces) else None
            choice = {"index": 0, "delta": {"content": piece}, "finish_reason": ended}
            yield _event(_object(asked, [choice]))
        if (asked.get("stream_options") or {}).get("include_usage"):
            yield _event(_object(asked, []) | {"usage": _usage(self.pieces)})
        yield b"data: [DONE]\n\n"


def _object(asked: dict[str, Any], choices: list[Any]) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "created": 1, "model": asked["model"], "choices": choices}


def _usage(pieces: Iterable[str]) -> dict[str, int]:
    return {"prompt_tokens": 7, "completion_tokens": len(list(pieces)), "total_tokens": 10}


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


@contextmanager
def running(replica: StubReplica) -> Iterator[StubReplica]:
    """On a free port, in a thread of its own."""
    loop, ready, ended = asyncio.new_event_loop(), threading.Event(), asyncio.Event()

    async def serve() -> None:
        runner = web.AppRunner(replica.app(), handler_cancellation=True, shutdown_timeout=1.0)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        replica.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        ready.set()
        await ended.wait()
        await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield replica
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join(10)
