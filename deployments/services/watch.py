"""Marks runs whose machine is gone: python -m deployments.services.watch

A run that is killed alone is marked by its worker within a second. Where the worker went with it
nobody would say so, and the run would keep its place in the queue: it is marked Crashed here when
its heartbeats stay away. It is not started again by itself: the next run finds what it finished.

Prefect's guide does this by an automation, which sees events alone: a heartbeat that arrives a
moment after its run was suspended would end a run that waits for a person. Here the run's state is
asked for as well.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from deployments import credentials, environment
from tasks.errors import ConfigError, RetuneError

logger = logging.getLogger("retune.watch")
_EVERY_SECONDS = 60.0
_LONGEST_GAP = timedelta(minutes=5)  # between two looks that still hear all
_CLOCK_SKEW = timedelta(hours=1)
_ALIVE = ["RUNNING", "CANCELLING"]


def silence() -> timedelta:
    """How long a run may be silent: RETUNE_SILENT_MINUTES, by default 15.

    Generous: a process that compiles on busy cores says nothing for minutes, and lives. Raises
    ConfigError for less than two heartbeats.
    """
    given = os.environ.get("RETUNE_SILENT_MINUTES") or "15"
    try:
        minutes = float(given)
    except ValueError:
        minutes = 0.0
    heartbeat = float(os.environ["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"])
    if not minutes * 60 >= 2 * heartbeat:
        raise ConfigError(
            f"RETUNE_SILENT_MINUTES={given}: expected a number of minutes of at least two "
            f"heartbeats of {heartbeat:g} s (PREFECT_FLOWS_HEARTBEAT_FREQUENCY)."
        )
    return timedelta(minutes=minutes)


class Watch:
    """Looks at the runs of the Prefect server at ``api``."""

    def __init__(self, api: str, silence: timedelta, login: tuple[str, str] | None = None) -> None:
        self._client = httpx.Client(base_url=api, timeout=30, trust_env=False, auth=login)
        self._silence = silence
        self._heard: datetime | None = None  # the server, last
        self._since = datetime.max.replace(tzinfo=UTC)  # without a long gap

    def look(self, now: datetime) -> list[str]:
        """Mark the runs that fell silent; answers their names.

        What could not be heard, before the first look or while the server was away for long, is
        nobody's silence. Raises httpx.HTTPError where the server does not answer.
        """
        runs = self._post("/flow_runs/filter", flow_runs={"state": {"type": {"any_": _ALIVE}}})
        if self._heard is None or now - self._heard > _LONGEST_GAP:
            self._since = now
        self._heard = now
        if now - self._since < self._silence:
            return []
        dead = [run for run in runs if self._is_silent(run, now)]
        message = f"The run gave no sign of life for {self._silence}: its machine may be gone."
        for run in dead:
            state = {"type": "CRASHED", "name": "Crashed", "message": message}
            self._post(f"/flow_runs/{run['id']}/set_state", state=state)
        return [str(run["name"]) for run in dead]

    def _is_silent(self, run: dict[str, Any], now: datetime) -> bool:
        since = now - self._silence
        if datetime.fromisoformat(run["state"]["timestamp"]) > since:
            return False
        heartbeats = {
            "event": {"name": ["prefect.flow-run.heartbeat"]},
            "resource": {"id": [f"prefect.flow-run.{run['id']}"]},
            # By the clock of the run's machine, which may be ahead of this one's.
            "occurred": {"since": since.isoformat(), "until": (now + _CLOCK_SKEW).isoformat()},
        }
        return not self._post("/events/filter", filter=heartbeats, limit=1)["events"]

    def _post(self, path: str, **body: Any) -> Any:
        return self._client.post(path, json=body).raise_for_status().json()


def main(arguments: list[str]) -> int:
    if arguments:
        print("usage: python -m deployments.services.watch", file=sys.stderr)
        return 2
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        environment.apply()
        watch = Watch(
            os.environ["PREFECT_API_URL"], silence(), credentials.login(environment.local())
        )
    except RetuneError as error:
        print(error, file=sys.stderr)
        return 1
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    while not ended.wait(_EVERY_SECONDS):
        try:
            for name in watch.look(datetime.now(UTC)):
                logger.warning("%s gave no sign of life and was marked Crashed", name)
        except httpx.HTTPError as error:
            logger.warning("Prefect does not answer: %s", type(error).__name__)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
