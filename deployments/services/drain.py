"""Empties what the webhook receiver filled: python -m deployments.services.drain [CONFIG.yaml]

The inbox becomes rows, and enough new rows start a run. A process of its own: receiving is not to
wait for it. Storage or Prefect may be away: the inbox waits, and is emptied when they are back.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

from deployments import environment
from deployments.services.reconcile import Reconciliation
from deployments.services.signatures import secrets_of
from flows.config import RetrainConfig
from tasks.collect.config import HookConfig, WebhookConfig, read_config
from tasks.collect.drain import Drained, drain
from tasks.collect.trigger import Start, Starter, start_if_due
from tasks.collected import Generation, Hook
from tasks.errors import ConfigError, RetuneError
from tasks.ingest.config import Collected
from tasks.objects import Store, open_store

logger = logging.getLogger("retune.webhook")
_REST = 1.0  # as long as it took: half of a core at most


class Drainer:
    """Empties the inboxes of all sources that are on."""

    def __init__(
        self,
        config: WebhookConfig,
        store: Store,
        start: Starter | None = None,
        environ: Mapping[str, str] = os.environ,
        reconciliation: Reconciliation | None = None,
    ) -> None:
        self._config, self._store, self._environ = config, store, environ
        self._start = start or (lambda hook, run: start_run(config.deployment, hook, run))
        self._known: dict[Hook, Generation] = {}
        self._told: dict[Hook, str] = {}
        self._reconciliation = reconciliation or Reconciliation()

    def run(self, ended: threading.Event) -> None:
        """Until it is ended, after the source that is being emptied."""
        while not ended.is_set():
            started = time.monotonic()
            self.drain_once()
            took = time.monotonic() - started
            ended.wait(max(self._config.drain_seconds, _REST * took))

    def drain_once(self, now: datetime | None = None) -> None:
        """Empty every inbox, and start what is due; what fails is told and tried the next time."""
        for hook, config in self._config.hooks.items():
            if not secrets_of(hook, self._environ):
                continue
            try:
                found = self._drain(hook, config)
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
                self._tell(hook, str(error))
            else:
                self._told.pop(hook, None)

    def _tell(self, hook: Hook, what: str) -> None:
        """Once, and not every second while it lasts."""
        if self._told.get(hook) != what:
            logger.warning("%s: left for the next time: %s", hook, what)
        self._told[hook] = what

    def _drain(self, hook: Hook, config: HookConfig) -> Drained:
        found = self._emptied(hook)
        if hook != "label-studio":
            return found
        if found.unresolved:
            self._reconciliation.want()
            if config.label_studio_url is None:
                told = found.unresolved[0]
                logger.warning("%s: %s; set label_studio_url for it to be asked", hook, told)
        if self._reconciliation.is_due(config):
            now = datetime.now(UTC)
            number = self._reconciliation.run(self._store, config, found.generation, now)
            logger.info("%s: asked, and %d changes were not told of", hook, number)
            found = self._emptied(hook) if number else found
        return found

    def _emptied(self, hook: Hook) -> Drained:
        found = drain(self._store, hook, self._known.get(hook))
        self._known[hook] = found.generation
        if found.num_events:
            outcomes = ", ".join(f"{n} {what}" for what, n in found.outcomes.items())
            logger.info("%s: %d events: %s", hook, found.num_events, outcomes)
        return found


def start_run(deployment: str, hook: Hook, start: Start) -> str:
    """Start a run through Prefect; the same run where the same cause started one before.

    Raises:
        ConfigError: the deployment's config does not read the rows: the run would learn nothing.
    """
    from prefect.client.orchestration import get_client
    from prefect.deployments import run_deployment

    with get_client(sync_client=True) as client:
        parameters = client.read_deployment_by_name(deployment).parameters
    if hook in get_args(Collected) and not _reads(hook, parameters):
        raise ConfigError(
            f"{deployment} reads no rows of {hook}: add `- collected: {hook}` to the "
            "`ingest.sources` of its config (RETUNE_WEEKLY_CONFIG), then `make up`"
        )
    run: Any = run_deployment(
        deployment,
        timeout=0,
        as_subflow=False,
        idempotency_key=start.key(hook),
        tags=["on-data", hook],
    )
    return str(run.id)


def _reads(hook: Hook, parameters: Mapping[str, Any]) -> bool:
    config = RetrainConfig.model_validate(parameters["config"])
    return any(source.collected == hook for source in config.ingest.sources)


def main(arguments: list[str]) -> int:
    if len(arguments) > 1:
        print("usage: python -m deployments.services.drain [CONFIG.yaml]", file=sys.stderr)
        return 2
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        environment.apply()
        config = read_config(Path(arguments[0]) if arguments else None)
        drainer = Drainer(config, open_store())
    except RetuneError as error:
        print(error, file=sys.stderr)
        return 1
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    drainer.run(ended)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
