"""The gateway of the stack on the real registry: promoted, rolled back under load, and away."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from mlflow.tracking import MlflowClient

from deployments.services.gateway import Gateway, make_app
from tasks.objects import open_store
from tasks.registry.rollback import roll_back
from tasks.serve.aliases import Registry
from tasks.serve.config import GatewayConfig, TrafficConfig
from tasks.serve.request_ids import RequestIds
from tests.asgi import serving
from tests.deployments.services.test_gateway import eventually
from tests.replica import StubReplica, running
from tests.tasks.registry.makers import promote

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("stack")]

NAME = "served-tickets"


@pytest.fixture(scope="module")
def client(stack: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A gateway before a replica that holds two versions, the second of them champion."""
    registry = MlflowClient()
    promote(registry, NAME, "one", None)
    promote(registry, NAME, "two", "one")
    served = {f"{NAME}@one", f"{NAME}@two"}
    with ExitStack() as exits:
        replica = exits.enter_context(running(StubReplica(served)))
        config = GatewayConfig(
            replicas=(replica.url,), traffic=TrafficConfig(flush_seconds=0.5, sampled=0.0)
        )
        folder = tmp_path_factory.mktemp("gateway")
        gateway = Gateway(config, Registry(registry, 0.1), folder, RequestIds("secret"))
        yield exits.enter_context(serving(make_app(gateway)))


def ask(client: httpx.Client) -> httpx.Response:
    body = {"model": NAME, "messages": [{"role": "user", "content": "hello"}]}
    return client.post("/v1/chat/completions", json=body)


def test_back_under_load_without_a_failed_request(client: httpx.Client) -> None:
    assert ask(client).headers["x-model-version"] == "2"
    answers: list[tuple[float, int, str]] = []
    stop = threading.Event()

    def load() -> None:
        with httpx.Client(base_url=client.base_url) as own:
            while not stop.is_set():
                answer = ask(own)
                version = answer.headers.get("x-model-version", "")
                answers.append((time.monotonic(), answer.status_code, version))

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    eventually(lambda: len(answers) > 20)
    started = time.monotonic()
    roll_back(MlflowClient(), NAME, None, "ada", "it times out", datetime.now(UTC))
    eventually(lambda: any(version == "1" for _, _, version in answers))
    first = next(at for at, _, version in answers if version == "1")
    print(f"rolled back within {first - started:.2f} s of the command")
    before = len(answers)
    eventually(lambda: len(answers) > before + 20)
    stop.set()
    for thread in threads:
        thread.join()
    assert {status for _, status, _ in answers} == {200}
    # None went to the version that was taken out once the other had answered all four.
    assert {version for _, _, version in answers[before + 8 :]} == {"1"}


def test_requests_are_in_s3(client: httpx.Client) -> None:
    request_id = ask(client).headers["x-request-id"]
    store = open_store()

    def is_kept() -> bool:
        bodies = [store.get_bytes(key) for key in store.keys_under("traffic/figures/")]
        lines = [json.loads(line) for body in bodies for line in body.splitlines()]
        return any(line["request_id"] == request_id for line in lines)

    eventually(is_kept)


def test_the_stacks_own_gateway_says_what_it_lacks(stack: Path) -> None:
    at = f"http://127.0.0.1:{os.environ['RETUNE_GATEWAY_PORT']}"

    def ready() -> dict[str, Any]:
        found: dict[str, Any] = httpx.get(f"{at}/readyz").json()
        return found

    eventually(lambda: ready() == {"registry": True, "replica": False})
    assert httpx.get(f"{at}/readyz").status_code == 503
    assert httpx.get(f"{at}/v1/models").json() == {"object": "list", "data": []}
    assert httpx.get(f"{at}/metrics").is_success
