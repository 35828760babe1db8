"""The webhook receiver under load and through outages, on real S3 and a real Prefect server.

    make bench B=webhook

Three parts, on the same two cores as everything else, the senders too. Rate: signed events of one
row each over 64 connections for 20 s, each sent when the one before was answered. Faults: 50,000
events, of which one in ten is a repeat, while S3 and Prefect are killed and started again twice;
senders try again until they hear 202, and then every row must be there once. Start: one row that
is enough for a run, from its acknowledgement to the run in Prefect, 30 times.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from standardwebhooks.webhooks import Webhook

from deployments import environment
from tests.benchmarks.harness import Result
from tests.conftest import WEBHOOK_SECRET, free_ports_for_a_stack
from tests.services import Services, services

CONNECTIONS, RATE_SECONDS = 64, 20.0
EVENTS, REPEATED, STARTS = 50_000, 0.1, 30
FAULTS_AT = (0.25, 0.6)
AWAY_SECONDS = 3.0
TARGET = 1000.0
_REQUEST = (
    "POST /webhooks/generic HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    "webhook-id: {id}\r\nwebhook-timestamp: {at}\r\nwebhook-signature: {signature}\r\n"
    "Content-Length: {length}\r\n\r\n"
)


def webhook() -> Result:
    with tempfile.TemporaryDirectory() as folder, _services(Path(folder)) as running:
        with _receiver(running, min_rows=10**9) as port:
            rate = asyncio.run(_rate(port))
            print("rate:", rate, flush=True)
        with _receiver(running, min_rows=20_000) as port:
            faults = asyncio.run(_through_faults(port, running))
            faults |= _counted()
            print("faults:", faults, flush=True)
        with _receiver(running, min_rows=1) as port:
            starts = _starts(port)
    holds = rate["events_per_second"] >= TARGET and faults["lost"] == faults["doubled"] == 0
    return Result(
        "webhook",
        rate["events_per_second"],
        "verified events a second, accepted into S3",
        TARGET,
        holds,
        details={"rate": rate, "faults": faults, "seconds_to_run": starts},
    )


@contextmanager
def _receiver(services: Services, min_rows: int) -> Iterator[int]:
    config = services.folder / "webhook.yaml"
    hook = {"min_rows": min_rows, "max_per_second": 1_000_000}
    config.write_text(json.dumps({"hooks": {"generic": hook}}))
    processes = []
    for name in ("webhook", "drain"):
        command = [sys.executable, "-m", f"deployments.services.{name}", str(config)]
        with (services.folder / "logs" / f"{name}.log").open("ab") as log:
            processes.append(subprocess.Popen(command, stdout=log, stderr=log))
    try:
        services.wait("webhook")
        yield environment.webhook_port()
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


@contextmanager
def _services(folder: Path) -> Iterator[Services]:
    os.environ.update(free_ports_for_a_stack())
    os.environ["RETUNE_WEBHOOK_GENERIC_SECRET"] = WEBHOOK_SECRET
    with services(folder, "s3", "prefect") as running:
        yield running


def _event(number: int) -> bytes:
    """A signed request, ready to be sent."""
    rows = [{"id": number, "q": f"question {number} " + "x" * 200, "a": "yes"}]
    body = json.dumps({"rows": rows}).encode()
    now = datetime.now(UTC)
    signature = Webhook(WEBHOOK_SECRET).sign(f"msg_{number}", now, body.decode())
    head = _REQUEST.format(
        id=f"msg_{number}", at=int(now.timestamp()), signature=signature, length=len(body)
    )
    return head.encode() + body


class _Connection:
    """One that is kept open, and opened again when it breaks."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, request: bytes) -> int:
        """The status of the answer; 0 where there was none."""
        try:
            if self._streams is None:
                self._streams = await asyncio.open_connection("127.0.0.1", self._port)
            reader, writer = self._streams
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            return int(head.split(b" ", 2)[1])
        except (OSError, asyncio.IncompleteReadError):
            self.close()
            return 0

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
        self._streams = None


async def _rate(port: int) -> dict[str, Any]:
    # Signed beforehand, so that what is measured is the receiver.
    requests = iter([_event(-1 - n) for n in range(60_000)])
    seconds: list[float] = []
    statuses: dict[int, int] = {}
    ends = time.monotonic() + RATE_SECONDS

    async def sender() -> None:
        connection = _Connection(port)
        while time.monotonic() < ends and (request := next(requests, None)) is not None:
            started = time.monotonic()
            status = await connection.send(request)
            seconds.append(time.monotonic() - started)
            statuses[status] = statuses.get(status, 0) + 1
        connection.close()

    began = time.monotonic()
    await asyncio.gather(*(sender() for _ in range(CONNECTIONS)))
    taken = time.monotonic() - began
    cuts = statistics.quantiles(seconds, n=100)
    return {
        "events_per_second": round(statuses.get(202, 0) / taken, 1),
        "p50_ms": round(1000 * cuts[49], 1),
        "p99_ms": round(1000 * cuts[98], 1),
        "statuses": statuses,
    }


async def _through_faults(port: int, services: Services) -> dict[str, Any]:
    unique = round(EVENTS * (1 - REPEATED))
    shuffle = random.Random(0)
    numbers = [*range(unique), *shuffle.sample(range(unique), EVENTS - unique)]
    shuffle.shuffle(numbers)
    waiting = iter(numbers)
    acknowledged = tries = 0

    async def sender() -> None:
        nonlocal acknowledged, tries
        connection = _Connection(port)
        for number in waiting:
            while True:
                tries += 1
                if await connection.send(_event(number)) == 202:
                    break
                await asyncio.sleep(0.5)
            acknowledged += 1
        connection.close()

    async def faults() -> None:
        for share in FAULTS_AT:
            while acknowledged < share * EVENTS:
                await asyncio.sleep(0.1)
            for name in ("s3", "prefect"):
                await asyncio.to_thread(services.kill, name)
            await asyncio.sleep(AWAY_SECONDS)
            for name in ("s3", "prefect"):
                services.start(name)
                await asyncio.to_thread(services.wait, name)

    await asyncio.gather(faults(), *(sender() for _ in range(CONNECTIONS)))
    return {"acknowledged": acknowledged, "tries": tries, "outages": len(FAULTS_AT)}


def _counted() -> dict[str, int]:
    """What became of the events, when the inbox is empty."""
    from tasks import collected
    from tasks.collect import inbox
    from tasks.objects import open_store

    store, deadline = open_store(), time.monotonic() + 300
    while inbox.keys(store, "generic"):
        if time.monotonic() > deadline:
            raise SystemExit("the inbox was not emptied")
        time.sleep(1)
    rows = collected.load(store, "generic", collected.newest_number(store, "generic")).rows
    unique = round(EVENTS * (1 - REPEATED))
    wanted = {str(number) for number in range(unique)}
    found = [str(row.row["id"]) for row in rows.values() if int(row.row["id"]) >= 0]
    time.sleep(5)
    runs = _runs()
    keys = [run["idempotency_key"] for run in runs]
    return {
        "unique": unique,
        "lost": len(wanted - set(found)),
        "doubled": len(found) - len(set(found)) + len(keys) - len(set(keys)),
        "runs_started": len(runs),
    }


def _starts(port: int) -> dict[str, float]:
    taken: list[float] = []
    before = len(_runs())
    for number in range(STARTS):
        assert asyncio.run(_Connection(port).send(_event(10**6 + number))) == 202
        started = time.monotonic()
        while len(_runs()) <= before + number:
            if time.monotonic() - started > 60:
                raise SystemExit("no run was started")
            time.sleep(0.05)
        taken.append(time.monotonic() - started)
    cuts: Sequence[float] = statistics.quantiles(taken, n=20)
    return {"median": round(statistics.median(taken), 2), "p95": round(cuts[18], 2)}


def _runs() -> list[dict[str, Any]]:
    url = f"{os.environ['PREFECT_API_URL']}/flow_runs/filter"
    wanted = {"flow_runs": {"tags": {"all_": ["on-data", "generic"]}}, "limit": 200}
    answer = httpx.post(url, json=wanted, trust_env=False, timeout=30).raise_for_status()
    found: list[dict[str, Any]] = answer.json()
    return found
