"""What the gateway adds to the latency of the same upstream called directly.

    make bench B=gateway

200 requests a second, sent by a clock that waits for no answer, in turns of five seconds to the
upstream itself, through Retune's gateway and, where it is installed (``python -m
tests.benchmarks.peers``), through LiteLLM's proxy; first whole answers, then streamed ones, whose
first byte counts. Gateway, registry (MLflow), storage (S3), the recorder that scrubs a fifth of the
messages, upstream and sender share the same two cores. Latency counts from the moment at which a
request was due, so that what waits for a late one is counted too.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from deployments import environment
from tests.benchmarks import peers
from tests.benchmarks.harness import Result
from tests.conftest import free_port, free_ports_for_a_stack
from tests.services import services

RATE, TURN_SECONDS, TURNS = 200, 5.0, 6
NAME, DIGEST = "bench", "0123456789ab"
MEDIAN_MS, P99_MS, FIRST_BYTE_MS = 2.0, 8.0, 2.0
_MESSAGES = [
    {"role": "system", "content": "Answer in one sentence."},
    {"role": "user", "content": "Where is my parcel? I ordered it on Monday. " * 6},
]


def gateway() -> Result:
    with tempfile.TemporaryDirectory() as folder, ExitStack() as exits:
        direct = exits.enter_context(upstream([f"{NAME}@{DIGEST}"]))
        gateway = exits.enter_context(serve_gateway(Path(folder), direct, _register))
        ports = {"direct": direct, "gateway": gateway}
        litellm = exits.enter_context(peers.litellm(Path(folder), direct, NAME))
        if litellm is not None:
            ports["litellm"] = litellm
        whole = asyncio.run(_compared(ports, stream=False))
        streamed = asyncio.run(_compared(ports, stream=True))
    added = _added(whole, "gateway")
    first = _added(streamed, "gateway")
    holds = (
        added["p50_ms"] < MEDIAN_MS
        and added["p99_ms"] < P99_MS
        and first["p50_ms"] < FIRST_BYTE_MS
        and not any(found["failed"] for found in (*whole.values(), *streamed.values()))
    )
    others = {
        name: {"whole": _added(whole, name), "first_byte": _added(streamed, name)}
        for name in ports
        if name not in ("direct", "gateway")
    }
    return Result(
        "gateway",
        added["p50_ms"],
        f"ms added at the median, {RATE} requests/s",
        MEDIAN_MS,
        holds,
        peers=others,
        details={"added": added, "first_byte_added": first, "whole": whole, "streamed": streamed},
    )


def _added(found: dict[str, dict[str, float]], name: str) -> dict[str, float]:
    return {key: round(found[name][key] - found["direct"][key], 2) for key in ("p50_ms", "p99_ms")}


async def _compared(ports: dict[str, int], *, stream: bool) -> dict[str, dict[str, float]]:
    seconds: dict[str, list[float]] = {name: [] for name in ports}
    failed = dict.fromkeys(ports, 0)
    for turn in range(-1, TURNS):
        for name, port in ports.items():
            model = f"{NAME}@{DIGEST}" if name == "direct" else NAME
            taken, lost = await _turn(port, model, stream=stream)
            if turn >= 0:  # the first warms up
                seconds[name] += taken
                failed[name] += lost
        print(f"{'streamed' if stream else 'whole'}: turn {turn + 1} of {TURNS}", flush=True)
    found = {}
    for name, taken in seconds.items():
        cuts = statistics.quantiles(taken, n=100)
        found[name] = {
            "p50_ms": round(1000 * cuts[49], 2),
            "p99_ms": round(1000 * cuts[98], 2),
            "requests": len(taken),
            "failed": failed[name],
        }
    return found


async def _turn(port: int, model: str, *, stream: bool) -> tuple[list[float], int]:
    """Seconds of each request, to its first byte where it is streamed, and how many failed."""
    body = json.dumps({"model": model, "stream": stream, "messages": _MESSAGES, "user": "u"})
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer none\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    request = (head + body).encode()
    idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    seconds: list[float] = []
    failed = 0

    async def send(due: float) -> None:
        nonlocal failed
        reader, writer = idle.pop() if idle else await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        answer = await reader.readuntil(b"\r\n\r\n")
        if stream:
            await reader.readuntil(b"\n\n")
            seconds.append(time.perf_counter() - due)
            await reader.readuntil(b"0\r\n\r\n")
        else:
            length = int(answer.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            seconds.append(time.perf_counter() - due)
        failed += b" 200 " not in answer.split(b"\r\n")[0]
        idle.append((reader, writer))

    began = time.perf_counter()
    sent = []
    for number in range(round(RATE * TURN_SECONDS)):
        due = began + number / RATE
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        sent.append(asyncio.create_task(send(due)))
    lost = await asyncio.gather(*sent, return_exceptions=True)
    for _, writer in idle:
        writer.close()
    return seconds, failed + sum(isinstance(error, BaseException) for error in lost)


@contextmanager
def upstream(served: Sequence[str]) -> Iterator[int]:
    """A stub of a replica that holds the named models; yields its port."""
    port = free_port()
    command = [sys.executable, "-m", "tests.benchmarks.upstream", str(port), *served]
    with _process(command, f"http://127.0.0.1:{port}/v1/models"):
        yield port


@contextmanager
def serve_gateway(
    folder: Path,
    replica: int,
    register: Callable[[], None],
    settings: Mapping[str, Any] | None = None,
) -> Iterator[int]:
    """The gateway on a registry and a storage of its own, before one replica; yields its port."""
    os.environ.update(free_ports_for_a_stack())
    with services(folder, "s3", "mlflow", bootstrapped=False):
        register()
        config = folder / "gateway.yaml"
        values = {"replicas": [f"http://127.0.0.1:{replica}"], **(settings or {})}
        config.write_text(yaml.safe_dump(values))
        port = environment.gateway_port()
        command = [sys.executable, "-m", "deployments.services.gateway", str(config)]
        with _process(command, f"http://127.0.0.1:{port}/readyz"):
            yield port


def _register() -> None:
    from mlflow.tracking import MlflowClient

    from tests.tasks.registry.makers import promote

    promote(MlflowClient(), NAME, DIGEST, None)


@contextmanager
def _process(command: Sequence[str], url: str) -> Iterator[None]:
    """A server, once it answers; ended with its children."""
    process = subprocess.Popen(command, cwd=environment.home(), start_new_session=True)
    try:
        wait(url)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def wait(url: str, seconds: float = 120.0) -> None:
    """Until a server answers with 200."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if httpx.get(url, timeout=5, trust_env=False).is_success:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
    raise SystemExit(f"{url} did not answer")
