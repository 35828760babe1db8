"""A replica as fast as Python lets it be, to measure what stands before it: PORT NAME...

Answers /v1/models and, streamed or whole, /v1/chat/completions; always the same few tokens.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence

_HEAD = "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\n{length}\r\n\r\n"


def _replies(names: Sequence[str]) -> dict[str, bytes]:
    """Whole answers, heads and bodies; what is asked for one name is answered by the first."""
    made = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": names[0]}
    message = {"role": "assistant", "content": "all is well " * 20}
    usage = {"prompt_tokens": 30, "completion_tokens": 60, "total_tokens": 90}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    chunks = [
        {**made, "choices": [{"index": 0, "delta": {"content": "well "}, "finish_reason": end}]}
        for end in (*[None] * 19, "stop")
    ]
    counted = {**made, "choices": [], "usage": usage}
    events = "".join(f"data: {json.dumps(c)}\n\n" for c in (*chunks, counted)) + "data: [DONE]\n\n"
    return {
        "models": _whole(json.dumps({"object": "list", "data": [{"id": n} for n in names]})),
        "chat": _whole(json.dumps({**made, "choices": [choice], "usage": usage})),
        "stream": _streamed(events),
    }


def _whole(body: str) -> bytes:
    length = f"content-length: {len(body)}"
    return (_HEAD.format(kind="application/json", length=length) + body).encode()


def _streamed(events: str) -> bytes:
    head = _HEAD.format(kind="text/event-stream", length="transfer-encoding: chunked")
    pieces = [f"{event}\n\n" for event in events.split("\n\n")[:-1]]
    return (head + "".join(f"{len(p):x}\r\n{p}\r\n" for p in pieces) + "0\r\n\r\n").encode()


async def serve(port: int, names: Sequence[str]) -> None:
    replies = _replies(names)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lower = head.lower()
                length = 0
                if b"content-length:" in lower:
                    length = int(lower.split(b"content-length:")[1].split(b"\r\n")[0])
                body = await reader.readexactly(length)
                if head.startswith(b"GET"):
                    writer.write(replies["models"])
                else:
                    writer.write(replies["stream" if b'"stream": true' in body else "chat"])
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), sys.argv[2:]))
