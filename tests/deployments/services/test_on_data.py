"""From an annotated row to a run, on the real stack: receiver, S3, Prefect."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from deployments.services.drain import start_run
from tasks import collected
from tasks.collect import inbox
from tasks.collect.trigger import Start
from tasks.errors import ConfigError
from tasks.objects import open_store
from tests.deployments.services.signed import SECRET, headers_of

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("stack")]
QUEUE = "/work_pools/cpu/queues/retrain"


def api(method: str, path: str, **body: Any) -> Any:
    url = f"{os.environ['PREFECT_API_URL']}{path}"
    answer = httpx.request(method, url, json=body or None, trust_env=False, timeout=30)
    return answer.raise_for_status().json() if answer.content else None


@pytest.fixture
def held() -> Iterator[None]:
    """No run begins: they wait in their queue, and are cancelled in the end."""
    api("PATCH", QUEUE, is_paused=True)
    try:
        yield
    finally:
        for run in runs():
            state = {"type": "CANCELLED", "name": "Cancelled"}
            api("POST", f"/flow_runs/{run['id']}/set_state", state=state, force=True)
        api("PATCH", QUEUE, is_paused=False)


def runs() -> list[dict[str, Any]]:
    wanted = {"tags": {"all_": ["on-data", "generic"]}, "state": {"type": {"any_": ["SCHEDULED"]}}}
    found: list[dict[str, Any]] = api("POST", "/flow_runs/filter", flow_runs=wanted)
    return found


def send(*numbers: int) -> None:
    raw = json.dumps({"rows": [{"id": n, "q": f"question {n}"} for n in numbers]}).encode()
    url = f"http://127.0.0.1:{os.environ['RETUNE_WEBHOOK_PORT']}/webhooks/generic"
    headers = {"content-type": "application/json", **headers_of("generic", SECRET, raw)}
    answer = httpx.post(url, content=raw, headers=headers, trust_env=False, timeout=30)
    assert answer.status_code == 202, answer.text


def wait_for(number_of_runs: int) -> list[dict[str, Any]]:
    deadline = time.monotonic() + 60
    while len(found := runs()) < number_of_runs:
        assert time.monotonic() < deadline, f"{len(found)} runs were started"
        time.sleep(0.5)
    return found


def test_enough_rows_start_one_run_and_the_same_rows_no_other(held: None) -> None:
    store = open_store()
    ready = httpx.get(f"http://127.0.0.1:{os.environ['RETUNE_WEBHOOK_PORT']}/readyz", timeout=30)
    assert ready.json() == {"storage": True, "prefect": True}
    send(1, 2)
    send(1, 2)
    time.sleep(3)  # a few looks into the inbox: two rows are too few
    assert runs() == []
    send(3)
    (run,) = wait_for(1)
    assert run["work_queue_name"] == "retrain"
    assert run["parameters"]["config"]
    newest = collected.load(store, "generic", collected.newest_number(store, "generic"))
    since = min(row.received for row in newest.rows.values())
    assert run["idempotency_key"] == f"generic-{newest.number}-{since}"
    assert {row.row["q"] for row in newest.rows.values()} == {f"question {n}" for n in (1, 2, 3)}
    assert inbox.keys(store, "generic") == []
    send(1, 2, 3)
    time.sleep(3)
    assert len(runs()) == 1
    send(4, 5, 6)
    assert len({run["idempotency_key"] for run in wait_for(2)}) == 2


def test_no_run_is_started_that_would_not_read_the_rows() -> None:
    start = Start(generation=1, since="2026-11-27T00:00:00+00:00", num_rows=1, reason="1 new row")
    with pytest.raises(ConfigError, match=r"add `- collected: argilla` to the `ingest\.sources`"):
        start_run("retrain/retrain-on-data", "argilla", start)
