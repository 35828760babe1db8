"""The export of a project, downloaded by the real client from a server on this machine."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tasks.errors import ConfigError, StorageError, is_transient
from tasks.ingest import label_studio_api
from tasks.ingest.label_studio_api import api_key, download_export

pytest.importorskip("label_studio_sdk")

TASKS = [{"id": i, "data": {"text": "é" * 1000}, "annotations": []} for i in range(300)]
EXPORT = json.dumps(TASKS, ensure_ascii=False).encode()


class Server:
    """Speaks the endpoints of Label Studio that an export uses."""

    def __init__(self) -> None:
        self.url = ""
        self.edition = "Community"
        self.status = 200
        self.snapshots = ["created", "in_progress", "completed"]
        self.num_bytes = len(EXPORT)
        self.stall = False
        self.released = Event()
        self.requests: list[tuple[str, dict[str, list[str]], str]] = []

    def answer(self, method: str, path: str) -> Any:
        if path == "/api/version/":
            return {"edition": self.edition, "release": "1.23.2"}
        if method == "POST" or path == "/api/projects/83/exports/5":
            status = self.snapshots.pop(0) if len(self.snapshots) > 1 else self.snapshots[0]
            return {"id": 5, "status": status, "title": "export"}
        return EXPORT


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            self.rfile.read(length)
            url = urlsplit(self.path)
            token = self.headers.get("authorization", "")
            state.requests.append((f"{self.command} {url.path}", parse_qs(url.query), token))
            body = state.answer(self.command, url.path)
            export = isinstance(body, bytes)
            status = 401 if token != "Token key-1" else state.status if export else 200
            content = body if export else json.dumps(body).encode()
            if status != 200:
                content = json.dumps({"detail": "refused"}).encode()
            if export and state.stall:
                state.released.wait(10)
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: state.num_bytes] if export else content)

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, format: str, *args: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{http.server_port}"
    monkeypatch.setattr(label_studio_api, "_POLL_SECONDS", 0.01)
    yield state
    state.released.set()
    http.shutdown()
    http.server_close()
    thread.join()


def test_the_community_edition_sends_the_export(server: Server, tmp_path: Path) -> None:
    download_export(server.url + "/", 83, "key-1", tmp_path / "export.json")
    assert (tmp_path / "export.json").read_bytes() == EXPORT
    path, query, token = server.requests[-1]
    assert path == "GET /api/projects/83/export"
    assert query["export_type"] == ["JSON"]
    assert token == "Token key-1"


def test_the_enterprise_edition_makes_a_snapshot_first(server: Server, tmp_path: Path) -> None:
    server.edition = "Enterprise"
    download_export(server.url, 83, "key-1", tmp_path / "export.json")
    assert (tmp_path / "export.json").read_bytes() == EXPORT
    assert [path for path, _, _ in server.requests] == [
        "GET /api/version/",
        "POST /api/projects/83/exports/",
        "GET /api/projects/83/exports/5",
        "GET /api/projects/83/exports/5",
        "GET /api/projects/83/exports/5/download",
    ]


def test_a_failed_snapshot_is_an_error(server: Server, tmp_path: Path) -> None:
    server.edition, server.snapshots = "Enterprise", ["created", "failed"]
    with pytest.raises(StorageError, match="could not make the export 5 of project 83") as caught:
        download_export(server.url, 83, "key-1", tmp_path / "export.json")
    assert not is_transient(caught.value)


def test_a_snapshot_that_never_ends_is_a_timeout(server: Server, tmp_path: Path) -> None:
    server.edition, server.snapshots = "Enterprise", ["in_progress"]
    with pytest.raises(TimeoutError) as caught:
        download_export(server.url, 83, "key-1", tmp_path / "export.json", timeout=0.05)
    assert is_transient(caught.value)


def test_a_refused_key_names_the_variable(server: Server, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="refused the key in LABEL_STUDIO_API_KEY") as caught:
        download_export(server.url, 83, "old-key", tmp_path / "export.json")
    assert "old-key" not in str(caught.value)
    assert not is_transient(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_project_is_an_error_of_the_config(server: Server, tmp_path: Path) -> None:
    server.status = 404
    with pytest.raises(ConfigError, match="has no project 83"):
        download_export(server.url, 83, "key-1", tmp_path / "export.json")


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_what_passes_is_left_to_the_caller(server: Server, tmp_path: Path, status: int) -> None:
    server.status = status
    with pytest.raises(Exception, match=str(status)) as caught:
        download_export(server.url, 83, "key-1", tmp_path / "export.json")
    assert is_transient(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_download_that_breaks_off_leaves_nothing(server: Server, tmp_path: Path) -> None:
    server.num_bytes = 5000
    with pytest.raises(Exception, match="peer closed connection") as caught:
        download_export(server.url, 83, "key-1", tmp_path / "export.json")
    assert is_transient(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_silent_server_is_a_timeout(server: Server, tmp_path: Path) -> None:
    server.stall = True
    with pytest.raises(Exception, match="timed out") as caught:
        download_export(server.url, 83, "key-1", tmp_path / "export.json", timeout=0.2)
    assert is_transient(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_is_down_is_worth_a_retry(server: Server, tmp_path: Path) -> None:
    with pytest.raises(Exception, match="refused") as caught:
        download_export("http://127.0.0.1:9", 83, "key-1", tmp_path / "export.json")
    assert is_transient(caught.value)


def test_the_key_is_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", " key-1\n")
    assert api_key() == "key-1"
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", " ")
    with pytest.raises(ConfigError, match="LABEL_STUDIO_API_KEY is not set"):
        api_key()
