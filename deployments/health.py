"""Whether the services of the local stack answer, asked over HTTP on 127.0.0.1."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial

import httpx

from deployments import credentials, environment

Check = Callable[[], bool]

# A worker reports every 30 s, and Prefect itself gives up on it after three missing reports.
_HEARTBEAT = timedelta(seconds=90)
_TIMEOUT_SECONDS = 3
# No proxy of the surroundings has a say in calls to the loopback interface.
_client = httpx.Client(timeout=_TIMEOUT_SECONDS, trust_env=False)


def servers() -> dict[str, Check]:
    """A check for each server, by the name of its line in the Procfile and of its log."""
    at = environment.addresses()
    pages = {
        "s3": f"{at['S3']}/healthz",
        "prefect": f"{at['Prefect']}/api/health",
        "mlflow": f"{at['MLflow']}/health",
        "webhook": f"{at['Webhook']}/healthz",
        "gateway": f"{at['Gateway']}/healthz",
    }
    return {name: partial(_answers, url) for name, url in pages.items()}


def worker(started: float) -> dict[str, Check]:
    """A check for a worker that has reported lately, and since the stack ``started``."""
    since = datetime.fromtimestamp(started, UTC)
    return {"worker": lambda: _worker_reported(max(since, datetime.now(UTC) - _HEARTBEAT))}


def _answers(url: str) -> bool:
    try:
        return _client.get(url).is_success
    except httpx.HTTPError:
        return False


def _worker_reported(since: datetime) -> bool:
    pool = f"{environment.addresses()['Prefect']}/api/work_pools/{environment.pool()}"
    try:
        answer = httpx.post(
            f"{pool}/workers/filter",
            json={},
            auth=credentials.login(environment.local()),
            timeout=_TIMEOUT_SECONDS,
            trust_env=False,
        )
        workers = answer.raise_for_status().json()
    except httpx.HTTPError:
        return False
    return any(datetime.fromisoformat(w["last_heartbeat_time"]) > since for w in workers)
