"""A local server that speaks OpenAI's Files, Fine-tuning and Chat APIs and fails as scripted.

For the real client; ``running(StubHosted())`` is a server at ``stub.url``.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

from tests.messages_api import LOST, LOST_AFTER, Reply

STATUSES = ("validating_files", "queued", "running", "running", "succeeded")
_ENDED = ("succeeded", "failed", "cancelled")


def error(status: int, message: str = "", **fields: Any) -> Reply:
    """An error as OpenAI sends it; the client is told not to wait."""
    body = {"message": message or f"scripted {status}", "type": "api_error", **fields}
    headers = {"retry-after-ms": "1"}
    return Reply(status, {"error": {"param": None, "code": None, **body}}, headers)


def completion(content: str | None, finish_reason: str = "stop", **message: Any) -> Reply:
    said = {"role": "assistant", "content": content, **message}
    choice = {"index": 0, "message": said, "finish_reason": finish_reason}
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    return Reply(200, {"id": "c", "object": "chat.completion", "choices": [choice], "usage": usage})


@dataclass
class StubJob:
    """A job that goes one status further with every look."""

    id: str
    request: dict[str, Any]
    rows: list[dict[str, Any]]
    statuses: list[str]
    created_at: int
    error: dict[str, Any] | None = None

    @property
    def status(self) -> str:
        return self.statuses[0]

    @property
    def model(self) -> str:
        return f"ft:{self.request['model']}:stub:{self.request['suffix']}:{self.id}"

    @property
    def hyperparameters(self) -> dict[str, Any]:
        found: dict[str, Any] = self.request["method"]["supervised"]["hyperparameters"]
        return found

    @property
    def epoch_steps(self) -> int:
        return math.ceil(len(self.rows) / int(self.hyperparameters["batch_size"]))

    @property
    def total_steps(self) -> int:
        return self.epoch_steps * int(self.hyperparameters["n_epochs"])

    def step_on(self) -> None:
        if len(self.statuses) > 1:
            self.statuses.pop(0)

    def describe(self) -> dict[str, Any]:
        succeeded = self.status == "succeeded"
        return {
            "object": "fine_tuning.job",
            "id": self.id,
            "model": self.request["model"],
            "status": self.status,
            "created_at": self.created_at,
            "finished_at": self.created_at + 60 if self.status in _ENDED else None,
            "fine_tuned_model": self.model if succeeded else None,
            "trained_tokens": 100 * self.total_steps if succeeded else None,
            "training_file": self.request["training_file"],
            "validation_file": self.request.get("validation_file"),
            "organization_id": "org-stub",
            "result_files": [],
            "seed": self.request.get("seed"),
            "metadata": self.request.get("metadata"),
            "method": self.request["method"],
            "hyperparameters": self.hyperparameters,
            "error": self.error or {"code": None, "message": None, "param": None},
        }


class StubHosted:
    """Answers what ``faults`` holds for a call, once each, else does what was asked.

    Calls: upload, files, create, jobs, retrieve, events, checkpoints, chat. ``loss`` gives the
    losses of a step; a list comes in pages of at most ``page``. ``key`` is the one accepted key.
    """

    def __init__(self, key: str = "") -> None:
        self.url = ""
        self.key = key
        self.page = 3
        self.statuses: tuple[str, ...] = STATUSES
        self.job_error: dict[str, Any] | None = None
        self.keeps_metadata = True
        self.answer: Callable[[dict[str, Any]], Reply] = lambda request: completion(
            f"{request['messages'][-1]['content']}!"
        )
        self.train_loss: Callable[[int], float] = lambda step: 2.0 / step
        self.full_valid_loss: Callable[[int], float] | None = lambda step: 3.0 / step
        self.faults: dict[str, list[Reply]] = {}
        self.calls: Counter[str] = Counter()
        self.files: dict[str, tuple[str, bytes]] = {}
        self.jobs: list[StubJob] = []
        self.requests: list[dict[str, Any]] = []  # of chat
        self.headers: list[dict[str, str]] = []
        self.lock = Lock()
        self._num_uploads = 0

    @property
    def paid(self) -> list[StubJob]:
        """The jobs that are billed, or will be."""
        return [job for job in self.jobs if job.statuses[-1] == "succeeded"]

    @property
    def models(self) -> set[str]:
        done = [job for job in self.jobs if job.status == "succeeded"]
        kept = {str(c["fine_tuned_model_checkpoint"]) for j in done for c in self._checkpoints(j)}
        return kept | {job.model for job in done}

    def call(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> Reply:
        url = urlsplit(path)
        parts = url.path.removeprefix("/v1/").strip("/").split("/")
        name = _name(method, parts)
        if name is None:
            return error(404, f"no such path {url.path}")
        with self.lock:
            self.calls[name] += 1
            self.headers.append(headers)
            script = self.faults.get(name)
            fault = script.pop(0) if script else None
            if self.key and headers.get("authorization") != f"Bearer {self.key}":
                sent = headers.get("authorization", "")
                return error(401, f"Incorrect API key provided: {sent}", code="invalid_api_key")
            if fault is not None and fault is not LOST_AFTER:
                return fault
            query = {name: values[0] for name, values in parse_qs(url.query).items()}
            answer = self._do(name, parts, query, body, headers)
        return fault or answer

    def _do(
        self, name: str, parts: list[str], query: dict[str, str], body: bytes, headers: Any
    ) -> Reply:
        if name == "upload":
            return self._upload(body, headers["content-type"])
        if name == "files":
            return self._listed([self._file(i) for i in reversed(self.files)], query)
        if name == "create":
            return self._create(json.loads(body))
        if name == "jobs":
            wanted = query.get("metadata[retune_key]")
            found = [job.describe() for job in reversed(self.jobs)]
            return self._listed(
                [j for j in found if wanted in (None, (j["metadata"] or {}).get("retune_key"))],
                query,
            )
        if name == "chat":
            request = json.loads(body)
            self.requests.append(request)
            if request["model"] not in self.models:
                return error(404, f"The model {request['model']} does not exist")
            return self.answer(request)
        job = next((job for job in self.jobs if job.id == parts[2]), None)
        if job is None:
            return error(404, f"Could not find fine tune: {parts[2]}")
        if name == "events":
            return self._listed(self._events(job)[::-1], query)
        if name == "checkpoints":
            return self._listed(self._checkpoints(job)[::-1], query)
        described = job.describe()
        job.step_on()
        return Reply(200, described)

    def _listed(self, items: list[dict[str, Any]], query: dict[str, str]) -> Reply:
        ids = [item["id"] for item in items]
        start = ids.index(query["after"]) + 1 if "after" in query else 0
        end = start + min(int(query["limit"]), self.page)
        body = {"object": "list", "data": items[start:end], "has_more": end < len(items)}
        return Reply(200, body)

    def _upload(self, body: bytes, content_type: str) -> Reply:
        boundary = content_type.partition("boundary=")[2].encode()
        fields: dict[str, tuple[str, bytes]] = {}
        for part in body.split(b"--" + boundary)[1:-1]:
            head, _, content = part.partition(b"\r\n\r\n")
            named = dict(
                item.strip().split("=", 1) for item in head.decode().split(";") if "=" in item
            )
            quoted = {k: v.split("\r\n")[0].strip('"') for k, v in named.items()}
            fields[quoted["name"]] = (quoted.get("filename", ""), content[:-2])
        assert fields["purpose"][1] == b"fine-tune"
        file_id = f"file-{self._num_uploads:04}"
        self._num_uploads += 1
        self.files[file_id] = fields["file"]
        return Reply(200, self._file(file_id))

    def _file(self, file_id: str) -> dict[str, Any]:
        name, content = self.files[file_id]
        return {
            "object": "file",
            "id": file_id,
            "filename": name,
            "bytes": len(content),
            "created_at": 1,
            "purpose": "fine-tune",
            "status": "processed",
        }

    def _create(self, request: dict[str, Any]) -> Reply:
        for name in ("training_file", "validation_file"):
            if request.get(name) is not None and request[name] not in self.files:
                return error(400, "invalid file", param=name, type="invalid_request_error")
        rows = [json.loads(line) for line in self.files[request["training_file"]][1].splitlines()]
        if not self.keeps_metadata:
            request["metadata"] = None
        number, created_at = len(self.jobs), int(time.time())
        job = StubJob(f"ftjob-{number:04}", request, rows, list(self.statuses), created_at)
        job.error = self.job_error
        if len(rows) < 10:
            job.statuses, job.error = ["failed"], {"code": "too_few", "message": "10 examples"}
        self.jobs.append(job)
        return Reply(200, job.describe())

    def _events(self, job: StubJob) -> list[dict[str, Any]]:
        done = {"running": 0.5, "succeeded": 1.0}.get(job.status, 0.0)
        started = {"id": f"{job.id}-0", "level": "info", "message": "created", "type": "message"}
        events: list[dict[str, Any]] = [{"object": "fine_tuning.job.event", **started, "data": {}}]
        for step in range(1, int(done * job.total_steps) + 1):
            data = {
                "step": step,
                "total_steps": job.total_steps,
                "train_loss": self.train_loss(step),
                "valid_loss": 4.0 / step,
            }
            if self.full_valid_loss is not None and step % job.epoch_steps == 0:
                data["full_valid_loss"] = self.full_valid_loss(step)
            events.append({**events[0], "id": f"{job.id}-{step}", "type": "metrics", "data": data})
        return events

    def _checkpoints(self, job: StubJob) -> list[dict[str, Any]]:
        if job.status != "succeeded":
            return []
        steps = range(job.epoch_steps, job.total_steps + 1, job.epoch_steps)
        return [self._checkpoint(job, step) for step in steps]

    def _checkpoint(self, job: StubJob, step: int) -> dict[str, Any]:
        suffix = "" if step == job.total_steps else f":ckpt-step-{step}"
        metrics = {"step": step, "train_loss": self.train_loss(step)}
        if self.full_valid_loss is not None:
            metrics["full_valid_loss"] = self.full_valid_loss(step)
        return {
            "object": "fine_tuning.job.checkpoint",
            "id": f"ftckpt-{step}",
            "created_at": job.created_at,
            "fine_tuned_model_checkpoint": f"{job.model}{suffix}",
            "fine_tuning_job_id": job.id,
            "step_number": step,
            "metrics": metrics,
        }


_Stub = TypeVar("_Stub", bound=StubHosted)


def _name(method: str, parts: list[str]) -> str | None:
    """The call, by method and path."""
    names = {
        ("POST", "files", 1): "upload",
        ("GET", "files", 1): "files",
        ("POST", "fine_tuning", 2): "create",
        ("GET", "fine_tuning", 2): "jobs",
        ("GET", "fine_tuning", 3): "retrieve",
        ("GET", "fine_tuning", 4): parts[-1],
        ("POST", "chat", 2): "chat",
    }
    return names.get((method, parts[0], len(parts)))


@contextlib.contextmanager
def running(stub: _Stub) -> Iterator[_Stub]:
    """The stub behind a server of its own on loopback, at ``stub.url``."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer("GET", b"")

        def do_POST(self) -> None:
            self._answer("POST", self.rfile.read(int(self.headers["content-length"])))

        def _answer(self, method: str, body: bytes) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            reply = stub.call(method, self.path, body, headers)
            if reply in (LOST, LOST_AFTER):
                self.close_connection = True
                return
            sent = (reply.body if isinstance(reply.body, str) else json.dumps(reply.body)).encode()
            self.send_response(reply.status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(sent)))
            for name, header in reply.headers.items():
                self.send_header(name, header)
            self.end_headers()
            self.wfile.write(sent)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    stub.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
