"""A local server that speaks the Messages API and fails as scripted, for the real client."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
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


def message(content: list[dict[str, Any]], stop_reason: str = "tool_use") -> Reply:
    envelope = {"id": "msg_1", "type": "message", "role": "assistant", "model": "stub"}
    usage = {"input_tokens": 1, "output_tokens": 1}
    return Reply(200, {**envelope, "content": content, "stop_reason": stop_reason, "usage": usage})


def judgement(tool_input: Any, **options: str) -> Reply:
    block = {"type": "tool_use", "id": "t1", "name": "record_judgement", "input": tool_input}
    return message([block], **options)


def grade(score: int) -> Reply:
    return judgement({"score": score, "reason": "as scripted"})


def error(status: int, **headers: str) -> Reply:
    kind = {429: "rate_limit_error", 529: "overloaded_error"}.get(status, "api_error")
    body = {"type": "error", "error": {"type": kind, "message": f"scripted {status}"}}
    return Reply(status, body, {"retry-after-ms": "1", **headers})


class StubApi:
    """Plays each script once, chosen by a word in the request; otherwise grades 4."""

    def __init__(self) -> None:
        self.url = ""
        self.scripts: dict[str, list[Reply]] = {}
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
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
        return grade(4)


@pytest.fixture
def api() -> Iterator[StubApi]:
    stub = StubApi()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            with stub.lock:
                stub.num_at_once += 1
                stub.most_at_once = max(stub.most_at_once, stub.num_at_once)
            request = json.loads(self.rfile.read(int(self.headers["content-length"])))
            headers = {k.lower(): v for k, v in self.headers.items()}
            reply = stub.reply(request, headers) if self.path == "/v1/messages" else error(404)
            body = (reply.body if isinstance(reply.body, str) else json.dumps(reply.body)).encode()
            time.sleep(0.01)
            with stub.lock:
                stub.num_at_once -= 1
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
    yield stub
    server.shutdown()
    server.server_close()
    thread.join()
