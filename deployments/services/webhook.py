"""The webhook receiver: python -m deployments.services.webhook [CONFIG.yaml]

    POST /webhooks/{label-studio|argilla|labelbox|s3|generic}    GET /healthz /readyz /metrics

A body is hostile until its signature is verified; what is verified is in storage before it is
answered with 202, so that nothing is lost: where storage is away the answer is 503, and the sender
tries again. Another process empties the inbox and starts runs (``drain.py``).
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, get_args

import uvicorn
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Histogram,
    generate_latest,
)
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from deployments import environment
from deployments.services.bodies import TooLargeError, read_body
from deployments.services.commit import Committer
from deployments.services.signatures import is_genuine, secrets_of
from tasks.collect import inbox
from tasks.collect.changes import MalformedError, changes, without_secrets
from tasks.collect.config import HookConfig, WebhookConfig, read_config
from tasks.collect.inbox import Event
from tasks.collected import Hook
from tasks.errors import RetuneError, is_transient
from tasks.objects import Store, open_store

logger = logging.getLogger("retune.webhook")
HOOKS: tuple[Hook, ...] = get_args(Hook)


_BODY_SECONDS = 15.0
# What is left of a body that is too large or too slow is not read.
_CLOSE = {"connection": "close"}
_HEADERS = {408: _CLOSE, 413: _CLOSE, 429: {"retry-after": "1"}, 503: {"retry-after": "1"}}


class _Answer(NamedTuple):
    """``outcome`` is one of a few words, to be counted; ``detail`` is for the sender alone."""

    status: int
    outcome: str
    detail: str = ""


class RateLimit:
    """A bucket of as many tokens as a second brings."""

    def __init__(self, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second, self._clock = per_second, clock
        self._tokens, self._at = max(per_second, 1.0), clock()

    def allows(self) -> bool:
        now = self._clock()
        most = max(self._per_second, 1.0)
        self._tokens = min(most, self._tokens + (now - self._at) * self._per_second)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class _Source:
    """What the receiver keeps of one source."""

    def __init__(self, hook: Hook, config: HookConfig, store: Store) -> None:
        self.hook, self.config = hook, config
        self.limit = RateLimit(config.max_per_second)
        self.committer = Committer(lambda events: inbox.write(store, hook, events))


class Receiver:
    """The receiver's routes and counts."""

    def __init__(
        self, config: WebhookConfig, store: Store, environ: Mapping[str, str] = os.environ
    ) -> None:
        self._store, self._environ = store, environ
        self._sources = {hook: _Source(hook, c, store) for hook, c in config.hooks.items()}
        self.registry = CollectorRegistry()
        self._answers = Counter(
            "retune_webhook_answers",
            "Answers given",
            ("source", "status", "outcome"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "retune_webhook_seconds", "Seconds until an answer", ("source",), registry=self.registry
        )

    async def receive(self, request: Request) -> Response:
        """Answer one event."""
        started = time.monotonic()
        hook = str(request.path_params["source"])
        source = self._sources.get(hook)  # type: ignore[call-overload]
        if source is None or not (secrets := secrets_of(source.hook, self._environ)):
            # Whoever knows no secret is not told which sources there are.
            return JSONResponse({"error": "no such source is switched on"}, 404)
        answer = await self._answer(source, secrets, request)
        self._answers.labels(hook, answer.status, answer.outcome).inc()
        self._seconds.labels(hook).observe(time.monotonic() - started)
        told = {"status": answer.outcome} | ({"detail": answer.detail} if answer.detail else {})
        return JSONResponse(told, answer.status, _HEADERS.get(answer.status))

    async def _answer(self, source: _Source, secrets: tuple[str, ...], request: Request) -> _Answer:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            return _Answer(415, "not json", "expected application/json")
        try:
            raw = await read_body(request, source.config.max_body_bytes, _BODY_SECONDS)
        except TooLargeError:
            most = source.config.max_body_bytes
            return _Answer(413, "too large", f"expected at most {most:,} bytes")
        except TimeoutError:
            return _Answer(408, "too slow", f"expected the body within {_BODY_SECONDS:g} s")
        if not is_genuine(source.hook, secrets, request.headers, raw):
            return _Answer(401, "not genuine")
        # After the signature: who cannot sign cannot take the sender's share.
        if not source.limit.allows():
            return _Answer(429, "too fast")
        try:
            event = _event(source.hook, json.loads(raw))
        except (ValueError, RecursionError) as error:
            return _Answer(422, "malformed", str(error))  # the sender knows its body
        if event is None:
            return _Answer(202, "ignored")
        try:
            await source.committer.commit(event)
        except Exception as error:
            # S3's client raises many classes: what may pass is answered, the rest goes on.
            if not isinstance(error, RetuneError) and not is_transient(error):
                raise
            logger.warning("%s: 503: %s", source.hook, error)
            return _Answer(503, "storage is away")
        return _Answer(202, "accepted")

    async def ready(self, _: Request) -> Response:
        """Whether storage and Prefect can be reached."""
        found = {
            "storage": await run_in_threadpool(_is_up, self._store),
            "prefect": await run_in_threadpool(prefect_is_up, self._environ),
        }
        return JSONResponse(found, 200 if all(found.values()) else 503)

    async def healthy(self, _: Request) -> Response:
        return PlainTextResponse("ok")

    async def metrics(self, _: Request) -> Response:
        return Response(generate_latest(self.registry), media_type=CONTENT_TYPE_LATEST)

    async def close(self) -> None:
        """Wait for what is on its way to storage."""
        for source in self._sources.values():
            await source.committer.close()


def make_app(receiver: Receiver) -> Starlette:
    """The ASGI app."""

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await receiver.close()

    routes = [
        Route("/webhooks/{source}", receiver.receive, methods=["POST"]),
        Route("/healthz", receiver.healthy),
        Route("/readyz", receiver.ready),
        Route("/metrics", receiver.metrics),
    ]
    return Starlette(routes=routes, lifespan=lifespan)


def _event(hook: Hook, body: Any) -> Event | None:
    """The event to be kept; None for one of no interest. Raises ValueError for one that is none."""
    if not isinstance(body, dict):
        raise MalformedError(f"expected an object, came {type(body).__name__}")
    if changes(hook, body) is None:
        return None
    event = Event.of(without_secrets(hook, body), datetime.now(UTC))
    event.model_dump_json()  # half a character can be read, and not be written
    return event


def prefect_is_up(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether Prefect's server answers."""
    address = environ.get("PREFECT_API_URL", "")
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=2) as answer:  # noqa: S310
            return bool(answer.status == 200)
    except (urllib.error.URLError, ValueError, OSError):
        return False


def _is_up(store: Store) -> bool:
    try:
        store.size("inbox/ready")
    except Exception:  # noqa: BLE001 - whatever it is, it is not ready
        return False
    return True


def main(arguments: list[str]) -> int:
    if len(arguments) > 1:
        print("usage: python -m deployments.services.webhook [CONFIG.yaml]", file=sys.stderr)
        return 2
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    try:
        environment.apply()
        config = read_config(Path(arguments[0]) if arguments else None)
        uvicorn.run(
            make_app(Receiver(config, open_store())),
            host=environment.LOOPBACK,
            port=environment.webhook_port(),
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=20,
        )
    except RetuneError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
