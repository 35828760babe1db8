"""A local server that speaks the Messages and Batches APIs and fails as scripted.

For the real client. ``api`` is a running stub; ``StubApi`` says how it is scripted.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any

import pytest


@dataclass(frozen=True)
class Reply:
    """One HTTP answer; a body that is not a string is sent as JSON."""

    status: int
    body: Any
    headers: dict[str, str] = field(default_factory=dict)


# What may become of one request of a batch, beside a message (200) and an error.
EXPIRED = Reply(0, "expired")
CANCELED = Reply(0, "canceled")
OMITTED = Reply(0, "omitted")  # paid, but the line lacks
GARBLED = Reply(0, "garbled")  # paid, but the line cannot be read
NOT_RUN = Reply(0, "not run")  # neither paid nor told
# What may become of a call: the connection breaks before or after it took effect.
LOST = Reply(-1, "before")
LOST_AFTER = Reply(-1, "after")


def message(
    content: list[dict[str, Any]],
    stop_reason: str = "tool_use",
    usage: tuple[int, int] = (1, 1),
) -> Reply:
    envelope = {"id": "msg_1", "type": "message", "role": "assistant", "model": "stub"}
    tokens = {"input_tokens": usage[0], "output_tokens": usage[1]}
    return Reply(200, {**envelope, "content": content, "stop_reason": stop_reason, "usage": tokens})


def tool_use(name: str, tool_input: Any, **options: Any) -> Reply:
    return message([{"type": "tool_use", "id": "t1", "name": name, "input": tool_input}], **options)


def judgement(tool_input: Any, **options: Any) -> Reply:
    return tool_use("record_judgement", tool_input, **options)


def grade(score: int) -> Reply:
    return judgement({"score": score, "reason": "as scripted"})


def error(status: int, **headers: str) -> Reply:
    kind = {400: "invalid_request_error", 429: "rate_limit_error", 529: "overloaded_error"}
    body = {
        "type": "error",
        "error": {"type": kind.get(status, "api_error"), "message": f"scripted {status}"},
    }
    return Reply(status, body, {"retry-after-ms": "1", **headers})


@dataclass
class StubBatch:
    """A batch, the lines of its results, and how often it still says in_progress."""

    id: str
    custom_ids: list[str]
    lines: list[str]
    counts: dict[str, int]
    looks: int
    created_at: datetime

    def describe(self, url: str) -> dict[str, Any]:
        ended = self.looks <= 0
        none = dict.fromkeys(("succeeded", "errored", "canceled", "expired"), 0)
        counts = {**none, "processing": len(self.custom_ids)}
        return {
            "id": self.id,
            "type": "message_batch",
            "processing_status": "ended" if ended else "in_progress",
            "request_counts": {**none, "processing": 0, **self.counts} if ended else counts,
            "created_at": self.created_at.isoformat(),
            "expires_at": (self.created_at + timedelta(days=1)).isoformat(),
            "ended_at": self.created_at.isoformat() if ended else None,
            "results_url": f"{url}/v1/messages/batches/{self.id}/results" if ended else None,
        }


class StubApi:
    """Plays each script once, chosen by a word in the request; otherwise what ``answer`` says.

    ``faults`` holds, by call (create, retrieve, list, results), what is answered instead; ``paid``
    counts the requests of batches that succeeded; a batch says in_progress ``looks`` times.
    """

    def __init__(self) -> None:
        self.url = ""
        self.scripts: dict[str, list[Reply]] = {}
        self.answer: Callable[[dict[str, Any]], Reply] = lambda _: grade(4)
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.faults: dict[str, list[Reply]] = {}
        self.calls: Counter[str] = Counter()
        self.batches: list[StubBatch] = []
        self.paid: Counter[str] = Counter()
        self.looks = 1
        self.num_at_once = 0
        self.most_at_once = 0
        self.lock = Lock()

    def reply(self, request: dict[str, Any], headers: dict[str, str]) -> Reply:
        with self.lock:
            self.requests.append(request)
            self.headers.append(headers)
            text = request["messages"][0]["content"]
            for word, script in self.scripts.items():
                if word in text and script:
                    return script.pop(0)
        return self.answer(request)

    def batch_call(self, method: str, path: str, body: Any, headers: dict[str, str]) -> Reply:
        """Any call of the Batches API."""
        parts = path.partition("?")[0].removeprefix("/v1/messages/batches").strip("/").split("/")
        if method == "POST":
            name = "create"
        else:
            name = "results" if parts[-1] == "results" else "retrieve" if parts[0] else "list"
        with self.lock:
            self.calls[name] += 1
            script = self.faults.get(name)
            fault = script.pop(0) if script else None
        if fault is not None and fault is not LOST_AFTER:
            return fault
        answer = self._take_effect(name, parts[0], body, headers)
        return fault or answer

    def _take_effect(self, name: str, batch_id: str, body: Any, headers: dict[str, str]) -> Reply:
        if name == "create":
            return Reply(200, self._create(body["requests"], headers).describe(self.url))
        if name == "list":
            newest_first = [self._look_at(batch) for batch in reversed(self.batches)]
            return Reply(200, {"data": newest_first, "has_more": False})
        found = next((batch for batch in self.batches if batch.id == batch_id), None)
        if found is None:
            return error(404)
        if name == "results":
            return Reply(200, "".join(f"{line}\n" for line in found.lines))
        return Reply(200, self._look_at(found))

    def _look_at(self, batch: StubBatch) -> dict[str, Any]:
        described = batch.describe(self.url)
        batch.looks -= 1
        return described

    def _create(self, requests: list[dict[str, Any]], headers: dict[str, str]) -> StubBatch:
        custom_ids = [request["custom_id"] for request in requests]
        assert len(set(custom_ids)) == len(custom_ids)
        lines, counts = [], Counter[str]()
        for request in requests:
            reply = self.reply(request["params"], headers)
            line, state = _line(request["custom_id"], reply)
            counts[state] += 1
            self.paid[request["custom_id"]] += state == "succeeded"
            lines += [line] if line is not None else []
        batch_id = f"msgbatch_{len(self.batches):04}"
        batch = StubBatch(batch_id, custom_ids, lines, counts, self.looks, datetime.now(UTC))
        self.batches.append(batch)
        return batch


def _line(custom_id: str, reply: Reply) -> tuple[str | None, str]:
    """The line of the results, or none, and how the request is counted."""
    if reply is OMITTED:
        return None, "succeeded"
    if reply is GARBLED:
        return f'{{"custom_id": "{custom_id}", "result": {{"ty', "succeeded"
    if reply is NOT_RUN:
        return None, "errored"
    if reply.status == 0:
        result, state = {"type": reply.body}, reply.body
    elif reply.status == 200:
        result, state = {"type": "succeeded", "message": reply.body}, "succeeded"
    else:
        result, state = {"type": "errored", "error": reply.body}, "errored"
    return json.dumps({"custom_id": custom_id, "result": result}), state


@pytest.fixture
def api() -> Iterator[StubApi]:
    with running(StubApi()) as stub:
        yield stub


@contextlib.contextmanager
def running(stub: StubApi) -> Iterator[StubApi]:
    """The stub behind a server of its own on loopback, at ``stub.url``."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer("GET", None)

        def do_POST(self) -> None:
            self._answer("POST", json.loads(self.rfile.read(int(self.headers["content-length"]))))

        def _answer(self, method: str, request: Any) -> None:
            headers = {k.lower(): v for k, v in self.headers.items()}
            if self.path.startswith("/v1/messages/batches"):
                self._send(stub.batch_call(method, self.path, request, headers))
            elif self.path == "/v1/messages" and method == "POST":
                self._send(self._message(request, headers))
            else:
                self._send(error(404))

        def _message(self, request: Any, headers: dict[str, str]) -> Reply:
            with stub.lock:
                stub.num_at_once += 1
                stub.most_at_once = max(stub.most_at_once, stub.num_at_once)
            reply = stub.reply(request, headers)
            time.sleep(0.01)
            with stub.lock:
                stub.num_at_once -= 1
            return reply

        def _send(self, reply: Reply) -> None:
            if reply in (LOST, LOST_AFTER):
                self.close_connection = True
                return
            body = (reply.body if isinstance(reply.body, str) else json.dumps(reply.body)).encode()
            self.send_response(reply.status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            for name, header in reply.headers.items():
                self.send_header(name, header)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    stub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
