"""The receiver over HTTP: what it takes, what it refuses, and that what it took is in storage."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from deployments.services import webhook
from deployments.services.commit import Committer
from deployments.services.drain import Drainer
from deployments.services.webhook import RateLimit, Receiver, make_app, prefect_is_up
from tasks import collected
from tasks.collect import inbox
from tasks.collect.config import HookConfig, WebhookConfig, read_config
from tasks.collect.inbox import Event
from tasks.collect.trigger import Start
from tasks.collected import Hook
from tasks.errors import ConfigError, StorageError
from tasks.objects import LocalStore
from tests.asgi import serving
from tests.deployments.services.signed import SECRET, headers_of

ENVIRON = {
    f"RETUNE_WEBHOOK_{name}_SECRET": SECRET
    for name in ("GENERIC", "LABEL_STUDIO", "LABELBOX", "ARGILLA", "S3")
}
ROWS = {"rows": [{"id": 1, "q": "where"}]}


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.fixture
def client(store: LocalStore) -> Iterator[httpx.Client]:
    with serving(make_app(Receiver(WebhookConfig(), store, ENVIRON))) as client:
        yield client


def send(
    client: httpx.Client, body: Any = ROWS, hook: Hook = "generic", **headers: str
) -> httpx.Response:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    signed = headers_of(hook, SECRET, raw)
    sent = {"content-type": "application/json", **signed, **headers}
    return client.post(f"/webhooks/{hook}", content=raw, headers=sent)


def waiting(store: LocalStore, hook: Hook = "generic") -> list[Event]:
    return inbox.read(store, inbox.keys(store, hook))


def test_what_was_acknowledged_is_in_storage(client: httpx.Client, store: LocalStore) -> None:
    assert send(client).status_code == 202
    assert [event.body for event in waiting(store)] == [ROWS]
    assert send(client).status_code == 202  # the sender did not hear the first answer
    assert len(waiting(store)) == 1


def test_label_studios_event_is_kept_without_the_projects_token(
    client: httpx.Client, store: LocalStore
) -> None:
    body = {
        "action": "ANNOTATION_CREATED",
        "annotation": {"id": 1, "result": []},
        "task": {"id": 2, "data": {"text": "x"}},
        "project": {"id": 3, "token": "planted-token"},
    }
    assert send(client, body, "label-studio").status_code == 202
    (key,) = inbox.keys(store, "label-studio")
    assert b"planted-token" not in store.get_bytes(key)


def test_events_of_no_interest_are_acknowledged_and_counted(
    client: httpx.Client, store: LocalStore
) -> None:
    found = send(client, {"action": "PROJECT_UPDATED"}, "label-studio")
    assert (found.status_code, found.json()) == (202, {"status": "ignored"})
    assert waiting(store, "label-studio") == []
    metrics = client.get("/metrics").text
    ignored = 'retune_webhook_answers_total{outcome="ignored",source="label-studio",status="202"}'
    assert f"{ignored} 1.0" in metrics


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (ROWS, {"webhook-signature": "v1,AAAA"}, 401),
        (ROWS, {"webhook-timestamp": "0"}, 401),
        (ROWS, {"content-type": "text/plain"}, 415),
        (ROWS, {"content-type": "application/x-www-form-urlencoded"}, 415),
        (b"not json", {}, 422),
        (b"[1, 2]", {}, 422),
        (b'{"rows": 3}', {}, 422),
        (b"[" * 100_000, {}, 422),
        (b'{"rows": [{"q": "\\ud800"}]}', {}, 422),
        (b'{"rows": [{"q": "' + b"x" * 2**21 + b'"}]}', {}, 413),
        (b"\xff\xfe", {}, 401),
    ],
)
def test_what_is_refused_is_not_kept(
    client: httpx.Client, store: LocalStore, body: Any, headers: dict[str, str], status: int
) -> None:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    signed = headers_of("generic", SECRET, raw) if raw != b"\xff\xfe" else {}
    sent = {"content-type": "application/json", **signed, **headers}
    found = client.post("/webhooks/generic", content=raw, headers=sent)
    assert found.status_code == status, found.text
    assert waiting(store) == []


def test_a_body_without_a_length_is_cut_off_where_it_is_too_long(client: httpx.Client) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(1000):
            sent += 2**16
            yield b"x" * 2**16

    headers = {"content-type": "application/json"}
    try:
        status = client.post("/webhooks/generic", content=endless(), headers=headers).status_code
    except (
        httpx.WriteError,
        httpx.ReadError,
    ):  # closed while we wrote
        status = 413
    assert status == 413
    assert sent < 1000 * 2**16


def test_a_source_without_a_secret_is_off(store: LocalStore) -> None:
    with serving(make_app(Receiver(WebhookConfig(), store, {}))) as client:
        assert send(client).status_code == 404
        assert client.post("/webhooks/other").status_code == 404
        assert client.get("/webhooks/generic").status_code == 405


def test_a_source_that_sends_too_fast_is_told_to_wait(store: LocalStore) -> None:
    config = WebhookConfig(hooks={"generic": HookConfig(max_per_second=2), "s3": HookConfig()})
    with serving(make_app(Receiver(config, store, ENVIRON))) as client:
        found = [send(client, {"rows": [{"id": n}]}) for n in range(4)]
        other = send(client, {"Records": []}, "s3")
    assert [f.status_code for f in found][:2] == [202, 202]
    assert found[3].status_code == 429
    assert found[3].headers["retry-after"] == "1"
    assert other.status_code == 202


def test_a_bucket_fills_with_time() -> None:
    now = 0.0
    limit = RateLimit(2, lambda: now)
    assert [limit.allows() for _ in range(3)] == [True, True, False]
    now = 0.5
    assert [limit.allows() for _ in range(2)] == [True, False]


class Away(LocalStore):
    """Storage that is away for as long as it is told to."""

    away = True

    def put_bytes(self, key: str, body: bytes, *, if_absent: bool = False) -> bool:
        if self.away:
            raise StorageError("away")
        return super().put_bytes(key, body, if_absent=if_absent)

    def size(self, key: str) -> int | None:
        if self.away:
            raise StorageError("away")
        return super().size(key)


def test_without_storage_the_sender_is_told_to_try_again(tmp_path: Path) -> None:
    store = Away(tmp_path)
    with serving(make_app(Receiver(WebhookConfig(), store, ENVIRON))) as client:
        refused = send(client)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert client.get("/readyz").json()["storage"] is False
        assert client.get("/healthz").status_code == 200
        store.away = False
        assert send(client).status_code == 202
        assert client.get("/readyz").json()["storage"] is True
    assert len(waiting(store)) == 1


def test_no_body_and_no_secret_stands_in_the_log(
    client: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        send(client, {"rows": [{"id": 1, "q": "planted-in-a-body"}]})
        refused = send(client, {"rows": "planted-in-a-body"})
        send(client, ROWS, **{"webhook-signature": "v1,AAAA"})
    assert "planted-in-a-body" not in caplog.text
    assert SECRET not in caplog.text
    assert refused.json() == {
        "status": "malformed",
        "detail": "rows: expected a list of objects, came str",
    }
    assert "planted-in-a-body" not in client.get("/metrics").text


def test_who_cannot_sign_does_not_take_the_senders_share(store: LocalStore) -> None:
    config = WebhookConfig(hooks={"generic": HookConfig(max_per_second=2)})
    with serving(make_app(Receiver(config, store, ENVIRON))) as client:
        strangers = [send(client, **{"webhook-signature": "v1,AAAA"}) for _ in range(9)]
        assert {answer.status_code for answer in strangers} == {401}
        assert send(client).status_code == 202


def test_a_body_that_does_not_come_is_not_waited_for(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook, "_BODY_SECONDS", 0.2)
    hold = threading.Event()

    def slow() -> Iterator[bytes]:
        yield b"{"
        hold.wait(5)

    with serving(make_app(Receiver(WebhookConfig(), store, ENVIRON))) as client:
        threading.Timer(1.0, hold.set).start()
        headers = {"content-type": "application/json"}
        try:
            status = client.post("/webhooks/generic", content=slow(), headers=headers).status_code
        except (httpx.WriteError, httpx.ReadError, httpx.RemoteProtocolError):  # closed meanwhile
            status = 408
        counted = client.get("/metrics").text
    assert status == 408
    assert 'outcome="too slow",source="generic",status="408"} 1.0' in counted


def test_ready_asks_prefect(store: LocalStore) -> None:
    assert not prefect_is_up({})
    assert not prefect_is_up({"PREFECT_API_URL": "http://127.0.0.1:9/api"})
    assert not prefect_is_up({"PREFECT_API_URL": "no address"})
    with serving(make_app(Receiver(WebhookConfig(), store, ENVIRON))) as client:
        assert client.get("/readyz").status_code == 503


def test_what_came_while_it_was_written_goes_together() -> None:
    written: list[list[str]] = []
    hold = threading.Event()

    def write(events: Sequence[Event]) -> None:
        hold.wait(5)
        written.append([e.digest for e in events])

    async def run() -> None:
        committer = Committer(write)
        events = [webhook_event(n) for n in range(100)]
        waits = [asyncio.create_task(committer.commit(event)) for event in events]
        await asyncio.sleep(0.1)
        hold.set()
        await asyncio.gather(*waits)
        await committer.close()
        assert sorted(d for batch in written for d in batch) == sorted(e.digest for e in events)

    asyncio.run(run())
    assert len(written) < 10


def test_each_who_waits_is_told_what_went_wrong_and_the_next_is_tried() -> None:
    def write(events: Sequence[Event]) -> None:
        if any("bad" in str(e.body) for e in events):
            raise StorageError("away")

    async def run() -> None:
        committer = Committer(write)
        with pytest.raises(StorageError):
            await committer.commit(webhook_event("bad"))
        await committer.commit(webhook_event("good"))

    asyncio.run(run())


def webhook_event(name: object) -> Event:
    from datetime import UTC, datetime

    return Event.of({"rows": [{"id": str(name)}]}, datetime.now(UTC))


def test_behind_it_the_inbox_is_emptied_and_a_run_is_started(store: LocalStore) -> None:
    started: list[tuple[Hook, int]] = []

    def start(hook: Hook, run: Start) -> str:
        started.append((hook, run.num_rows))
        return "run-1"

    hooks: dict[Hook, HookConfig] = {"generic": HookConfig(min_rows=3)}
    config = WebhookConfig(drain_seconds=0.05, hooks=hooks)
    ended = threading.Event()
    drainer = threading.Thread(target=Drainer(config, store, start, ENVIRON).run, args=(ended,))
    drainer.start()
    with serving(make_app(Receiver(config, store, ENVIRON))) as client:
        for number in range(5):
            assert send(client, {"rows": [{"id": number}]}).status_code == 202
        deadline = time.monotonic() + 20
        # Keys alone: what is read while it is being emptied may be gone.
        while inbox.keys(store, "generic") or not started:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    ended.set()
    drainer.join(20)
    newest = collected.load(store, "generic", collected.newest_number(store, "generic"))
    assert set(newest.rows) == {"0", "1", "2", "3", "4"}
    assert [hook for hook, _ in started] == ["generic"]
    assert started[0][1] >= 3


def test_what_fails_behind_it_is_told_and_tried_again(
    store: LocalStore, caplog: pytest.LogCaptureFixture
) -> None:
    asked = 0

    def start(hook: Hook, run: Start) -> str:
        nonlocal asked
        asked += 1
        if asked <= 3:
            raise ConnectionError("Prefect is away")
        return "run-1"

    config = WebhookConfig(hooks={"generic": HookConfig(min_rows=1), "s3": HookConfig()})
    drainer = Drainer(config, store, start, ENVIRON)
    inbox.write(store, "generic", [webhook_event(1)])
    for _ in range(3):
        drainer.drain_once()
    told = [r for r in caplog.messages if "generic: left for the next time: Prefect is away" in r]
    assert (asked, len(told)) == (3, 1), "once, and not at each try"
    drainer.drain_once()
    drainer.drain_once()
    assert asked == 4


def test_a_config_that_is_none_is_named(tmp_path: Path) -> None:
    file = tmp_path / "webhook.yaml"
    file.write_text("hooks: {generic: {min_rows: 0}}")
    with pytest.raises(ConfigError, match="min_rows"):
        read_config(file)
    file.write_text("hooks: {other: {}}")
    with pytest.raises(ConfigError, match="other"):
        read_config(file)
    file.write_text("hooks: {generic: {min_rows: 7}}")
    assert read_config(file).hooks["generic"].min_rows == 7
    assert set(read_config(None).hooks) == set(webhook.HOOKS)
