"""Who may ask the gateway, how many at once, and how whoever may not is told."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import JSONResponse

from tasks.serve.config import GatewayConfig
from tasks.serve.keys import Keys


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
