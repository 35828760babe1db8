"""Behind the receiver: the inbox is emptied again and again, and new rows start runs.

Storage or Prefect may be away: the inbox waits, and is emptied when they are back.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from deployments.services.signatures import secrets_of
from tasks.collect.config import WebhookConfig
from tasks.collect.drain import drain
from tasks.collect.trigger import Start, Starter, start_if_due
from tasks.collected import Generation, Hook
from tasks.objects import Store

logger = logging.getLogger("retune.webhook")
# Rows are rewritten whole: however many there are, emptying takes a sixth of the time.
_REST = 5.0


class Drainer:
    """A thread that empties the inboxes of all sources that are on."""

    def __init__(
        self,
        config: WebhookConfig,
        store: Store,
        start: Starter | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._config, self._store, self._environ = config, store, environ
        self._start = start or (lambda hook, run: start_run(config.deployment, hook, run))
        self._known: dict[Hook, Generation] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="drain", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End after the source that is being emptied."""
        self._ended.set()
        self._thread.join()

    def drain_once(self, now: datetime | None = None) -> None:
        """Empty every inbox, and start what is due; what fails is told and tried the next time."""
        for hook, config in self._config.hooks.items():
            if self._ended.is_set():
                return
            if not secrets_of(hook, self._environ):
                continue
            try:
                found = drain(self._store, hook, self._known.get(hook))
                self._known[hook] = found.generation
                if found.num_events:
                    outcomes = ", ".join(f"{n} {what}" for what, n in found.outcomes.items())
                    logger.info("%s: %d events: %s", hook, found.num_events, outcomes)
                started = start_if_due(
                    self._store,
                    hook,
                    found.generation,
                    config,
                    now or datetime.now(UTC),
                    self._start,
                )
                if started is not None:
                    logger.info("%s: run %s: %s", hook, started.flow_run_id, started.reason)
            except Exception as error:  # noqa: BLE001 - the next time may be better
                logger.warning("%s: left for the next time: %s", hook, error)

    def _run(self) -> None:
        while not self._ended.is_set():
            started = time.monotonic()
            self.drain_once()
            took = time.monotonic() - started
            self._ended.wait(max(self._config.drain_seconds, _REST * took))


def start_run(deployment: str, hook: Hook, start: Start) -> str:
    """Start a run through Prefect; the same run where the same cause started one before."""
    from prefect.deployments import run_deployment

    run: Any = run_deployment(
        deployment,
        timeout=0,
        as_subflow=False,
        idempotency_key=start.key(hook),
        tags=["on-data", hook],
    )
    return str(run.id)


def prefect_is_up(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether Prefect's server answers."""
    address = environ.get("PREFECT_API_URL", "")
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=2) as answer:  # noqa: S310
            return bool(answer.status == 200)
    except (urllib.error.URLError, ValueError, OSError):
        return False
