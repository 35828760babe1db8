"""The gateway: python -m deployments.services.gateway [CONFIG.yaml]

    POST /v1/chat/completions, /v1/completions    GET /v1/models
    POST /v1/feedback {request_id, score?, accepted?, correction?}
    GET /healthz /readyz /metrics

A request names a model of the registry; its champion answers, or for a share of the users its
challenger. The answer goes on as it came, and says in x-model-version who gave it. The gateway
keeps nothing that it could not ask for again, so that there may be any number of it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import uvicorn
from mlflow.tracking import MlflowClient
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import Field, ValidationError, model_validator
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from deployments import credentials, environment
from deployments.services.admission import Gatekeeper, RefusalError
from deployments.services.bodies import TooLargeError, read_body
from deployments.services.completions import Completions
from deployments.services.directory import Directory
from deployments.services.fleet import Fleet
from deployments.services.gateway_metrics import Metrics
from deployments.services.outbox import Outbox
from tasks.artifacts import Record
from tasks.errors import RetuneError
from tasks.serve.aliases import Registry
from tasks.serve.config import GatewayConfig, read_config
from tasks.serve.keys import Keys
from tasks.serve.request_ids import RequestIds
from tasks.serve.traffic import Feedback

_MOST_FEEDBACK = 64 * 1024  # bytes
_DAY = 86_400.0
# The registry is asked again in a moment: a client that waits for minutes would know too late.
_IMPATIENT = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "2", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}


class _Said(Record):
    """A body of /v1/feedback."""

    request_id: str = Field(max_length=100)
    score: float | None = Field(None, allow_inf_nan=False)
    accepted: bool | None = Field(None, strict=True)
    correction: str | None = Field(None, min_length=1)

    @model_validator(mode="after")
    def _says_something(self) -> _Said:
        if self.score is None and self.accepted is None and self.correction is None:
            raise ValueError("expected at least one of score, accepted and correction")
        return self


class Gateway:
    """All endpoints of the gateway, and what they share."""

    def __init__(
        self, config: GatewayConfig, registry: Registry, folder: Path, ids: RequestIds
    ) -> None:
        keys = Keys(config.keys_file) if config.keys_file else None
        self._config, self._ids = config, ids
        self._fleet = Fleet(config.replicas, config.limits.connect_seconds)
        self._outbox = Outbox(config.traffic)
        self._metrics = Metrics(self._outbox)
        self.directory = Directory(registry, self._fleet, folder / "routes.json", keys)
        self._gatekeeper = Gatekeeper(config, keys)
        self.completions = Completions(
            config,
            self._gatekeeper,
            self.directory,
            self._fleet,
            self._outbox,
            self._metrics,
            ids,
        )

    @contextlib.asynccontextmanager
    async def running(self, _: Starlette) -> AsyncIterator[None]:
        """From the first look at registry and replicas to the last record that is written."""
        await self._fleet.open()
        await self._outbox.open()
        await self.directory.open(self._config.refresh_seconds)
        try:
            yield
        finally:
            await self.completions.close()
            await self.directory.close()
            await self._outbox.close()
            await self._fleet.close()

    async def models(self, request: Request) -> Response:
        """The models that answer at this moment."""
        try:
            self._gatekeeper.owner(request)
        except RefusalError as refusal:
            return refusal.response(self._ids.new())
        loaded = self._fleet.loaded
        names = [n for n, route in self.directory.routes.items() if route.among(loaded)]
        data = [{"id": n, "object": "model", "created": 0, "owned_by": "retune"} for n in names]
        return JSONResponse({"object": "list", "data": data})

    async def feedback(self, request: Request) -> Response:
        """What a user says of an answer: once for each, and only for one that was given."""
        try:
            with self._gatekeeper.admitted(self._gatekeeper.owner(request)):
                return await self._feedback(request)
        except RefusalError as refusal:
            self._metrics.refused(refusal.status, refusal.code)
            return refusal.response(self._ids.new())

    async def _feedback(self, request: Request) -> Response:
        try:
            raw = await read_body(request, _MOST_FEEDBACK, self._config.limits.body_seconds)
            said = _Said.model_validate_json(raw)
        except (TooLargeError, TimeoutError):
            most = f"Expected a body of at most {_MOST_FEEDBACK:,} bytes, in good time."
            raise RefusalError(413, "too_large", most, close=True) from None
        except ClientDisconnect:
            raise RefusalError(400, "client_left", "The body broke off.") from None
        except ValidationError as error:
            wrong = "; ".join(
                f"{'.'.join(map(str, e['loc'])) or 'body'}: {e['msg']}" for e in error.errors()
            )
            raise RefusalError(422, "invalid_feedback", wrong) from None
        made = self._ids.made_at(said.request_id)
        if made is None:
            raise RefusalError(
                404, "unknown_request", "No answer was given under this id.", "request_id"
            )
        if time.time() - made > self._config.feedback_days * _DAY:
            days = f"Feedback is taken for {self._config.feedback_days:g} days."
            raise RefusalError(410, "too_late", days, "request_id")
        asked_at = datetime.fromtimestamp(made, UTC)
        kept = Feedback(asked_at=asked_at, created_at=datetime.now(UTC), **said.model_dump())
        outcome = await self._outbox.feedback(kept)
        if outcome == "repeated":
            raise RefusalError(409, "repeated", "There is feedback on this answer already.")
        if outcome == "refused":
            raise RefusalError(422, "invalid_feedback", "The correction could not be kept.")
        if outcome == "away":
            raise RefusalError(503, "storage_away", "Storage is away: try again shortly.")
        return JSONResponse({"request_id": said.request_id, "status": "stored"}, 201)

    async def ready(self, _: Request) -> Response:
        """Whether there is something to route by, and a replica to route to."""
        found = {"registry": self.directory.is_known, "replica": bool(self._fleet.loaded)}
        return JSONResponse(found, 200 if all(found.values()) else 503)

    async def healthy(self, _: Request) -> Response:
        return PlainTextResponse("ok")

    async def metrics(self, _: Request) -> Response:
        return Response(generate_latest(self._metrics.registry), media_type=CONTENT_TYPE_LATEST)


def make_app(gateway: Gateway) -> Starlette:
    """The ASGI app."""
    routes = [
        Route("/v1/chat/completions", gateway.completions, methods=["POST"]),
        Route("/v1/completions", gateway.completions, methods=["POST"]),
        Route("/v1/models", gateway.models),
        Route("/v1/feedback", gateway.feedback, methods=["POST"]),
        Route("/healthz", gateway.healthy),
        Route("/readyz", gateway.ready),
        Route("/metrics", gateway.metrics),
    ]
    return Starlette(routes=routes, lifespan=gateway.running)


def main(arguments: list[str]) -> int:
    if len(arguments) > 1:
        print("usage: python -m deployments.services.gateway [CONFIG.yaml]", file=sys.stderr)
        return 2
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    try:
        environment.apply()
        os.environ.update(_IMPATIENT)
        config = read_config(Path(arguments[0]) if arguments else None)
        if not config.replicas:
            here = f"http://{environment.LOOPBACK}:{environment.vllm_port()}"
            config = config.model_copy(update={"replicas": (here,)})
        folder = environment.local() / "gateway"
        folder.mkdir(parents=True, exist_ok=True)
        ids = RequestIds(credentials.gateway_secret(environment.local()))
        registry = Registry(MlflowClient(), config.challenger_share)
        uvicorn.run(
            make_app(Gateway(config, registry, folder, ids)),
            host=environment.LOOPBACK,
            port=environment.gateway_port(),
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=60,
        )
    except RetuneError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
