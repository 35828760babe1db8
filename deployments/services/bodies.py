"""The body of a request from whom nobody knows: read within a limit of bytes and of time."""

from __future__ import annotations

import asyncio

from starlette.requests import Request


class TooLargeError(Exception):
    """The body is longer than it may be."""


async def read_body(request: Request, most: int, seconds: float) -> bytes:
    """The body; what its header says of the length is not waited for, nor believed.

    Raises TooLargeError, and TimeoutError where it does not arrive in time.
    """
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > most:
        raise TooLargeError
    parts, size = [], 0
    async with asyncio.timeout(seconds):
        async for part in request.stream():
            size += len(part)
            if size > most:
                raise TooLargeError
            parts.append(part)
    return b"".join(parts)
