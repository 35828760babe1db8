"""People are told of a run through Prefect's notification blocks."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from prefect.blocks.notifications import CustomWebhookNotificationBlock

from flows.retrain import retrain
from tasks.errors import DataError
from tests.flows.conftest import Tiny, write_rows

pytestmark = pytest.mark.integration


@pytest.fixture
def told(stack: object) -> Iterator[list[dict[str, Any]]]:
    """What a chat that speaks Slack's webhooks was told; its block is custom-webhook/team."""
    messages: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            messages.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    chat = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=chat.serve_forever, daemon=True).start()
    CustomWebhookNotificationBlock(
        name="team",
        url=f"http://127.0.0.1:{chat.server_port}/services/planted-secret",
        json_data={"text": "{{subject}}\n{{body}}"},
    ).save("team", overwrite=True)
    try:
        yield messages
    finally:
        chat.shutdown()
        chat.server_close()


def test_a_promotion_and_a_failure_are_told_once_and_no_change_is_not(
    tiny: Tiny, told: list[dict[str, Any]], tmp_path: Any
) -> None:
    notify = {"notify": {"blocks": ["custom-webhook/team"]}}
    summary = retrain(tiny(report=notify))
    assert summary.decision == "promoted"
    (message,) = told
    subject, sentence, link = message["text"].splitlines()
    assert subject == f"{summary.name}: promoted"
    assert sentence == summary.sentence
    assert link.startswith("http://127.0.0.1:")
    retrain(tiny(report=notify))
    assert len(told) == 1
    write_rows(tmp_path / "rows.jsonl", [], 1)
    with pytest.raises(DataError):
        retrain(tiny(report=notify))
    assert told[1]["text"].startswith(f"{summary.name}: failed\n")


def test_a_chat_that_is_away_undoes_no_decision_and_its_address_is_not_logged(
    tiny: Tiny, stack: object, caplog: pytest.LogCaptureFixture
) -> None:
    CustomWebhookNotificationBlock(
        name="away",
        url="http://127.0.0.1:9/services/planted-secret",
        json_data={"text": "{{body}}"},
    ).save("away", overwrite=True)
    blocks = ["custom-webhook/away", "custom-webhook/absent"]
    with caplog.at_level(logging.WARNING):
        summary = retrain(tiny(report={"notify": {"blocks": blocks}}))
    assert summary.decision == "promoted"
    for block in blocks:
        assert f"{block} was not told" in caplog.text
    assert "planted-secret" not in caplog.text
