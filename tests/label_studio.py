"""A Label Studio server of the tests' own, from ``.venv-label-studio``, and its API.

The API is spoken as anybody would with curl: what README.md says of it is what is called here.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from deployments import environment

# What it asks an annotator: a text, and whether it is right.
INTERFACE = (
    '<View><Text name="text" value="$text"/><Choices name="answer" toName="text">'
    '<Choice value="yes"/><Choice value="no"/></Choices></View>'
)
_SECONDS = 240  # its first start makes the database, on busy cores


@dataclass(frozen=True)
class LabelStudio:
    """A running server, and the legacy token of its one user."""

    url: str
    token: str

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"authorization": f"Token {self.token}"}
        answer = httpx.request(
            method,
            f"{self.url}/api/{path}",
            json=body,
            headers=headers,
            trust_env=False,
            timeout=60,
        )
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def make_project(self, title: str) -> int:
        made = self.ask("POST", "projects", {"title": title, "label_config": INTERFACE})
        return int(made["id"])

    def import_texts(self, project: int, texts: Sequence[str]) -> list[int]:
        """The tasks that they became."""
        tasks = [{"data": {"text": text}} for text in texts]
        made = self.ask("POST", f"projects/{project}/import?return_task_ids=true", tasks)
        return [int(task) for task in made["task_ids"]]

    def register(self, project: int, url: str, headers: dict[str, str]) -> None:
        """A webhook for all that happens in the project."""
        self.ask(
            "POST",
            "webhooks",
            {
                "project": project,
                "url": url,
                "headers": headers,
                "send_payload": True,
                "send_for_all_actions": True,
            },
        )

    def annotate(self, task: int, says: str) -> int:
        """The annotation that was made."""
        return int(self.ask("POST", f"tasks/{task}/annotations", {"result": result(says)})["id"])


def result(says: str) -> list[dict[str, Any]]:
    """What an annotator's choice is to Label Studio."""
    asked = {"from_name": "answer", "to_name": "text", "type": "choices"}
    return [{**asked, "value": {"choices": [says]}}]


def command() -> Path | None:
    """What starts it; None where it is not installed."""
    found = environment.home() / ".venv-label-studio" / "bin" / "label-studio"
    return found if found.is_file() else None


@contextmanager
def running(port: int) -> Iterator[LabelStudio]:
    """A server on a port, with a new database."""
    at = command()
    if at is None:
        raise RuntimeError("Label Studio is not installed: make test-label-studio.")
    token = secrets.token_hex(20)
    folder = Path(tempfile.mkdtemp(prefix="retune-label-studio-"))
    log = folder / "log"
    start = [str(at), "start", "--no-browser", "--internal-host", "127.0.0.1", "--port", str(port)]
    try:
        with log.open("wb") as output:
            server = subprocess.Popen(
                start,
                cwd=folder,
                env=_variables(folder, token),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            found = LabelStudio(f"http://127.0.0.1:{port}", token)
            _await(server, found, log)
            yield found
        finally:
            server.terminate()
            server.wait(timeout=60)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _variables(folder: Path, token: str) -> dict[str, str]:
    """None of the caller's: its secrets, and a proxy, are no business of the server."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "LABEL_STUDIO_BASE_DATA_DIR": str(folder / "data"),
        "LABEL_STUDIO_USERNAME": "ada@example.org",
        "LABEL_STUDIO_PASSWORD": secrets.token_hex(16),
        "LABEL_STUDIO_USER_TOKEN": token,
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
        # Else it sends no webhook to an address of this machine or of a private network.
        "SSRF_PROTECTION_ENABLED": "false",
        # By default a second, and then the event is lost: busy cores take longer.
        "WEBHOOK_TIMEOUT": "60",
        "LABEL_STUDIO_COLLECT_ANALYTICS": "false",
        "LATEST_VERSION_CHECK": "false",
        "SENTRY_DSN": "",
        "FRONTEND_SENTRY_DSN": "",
    }


def _await(server: subprocess.Popen[bytes], studio: LabelStudio, log: Path) -> None:
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            if httpx.get(f"{studio.url}/health", trust_env=False, timeout=10).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise RuntimeError(f"Label Studio did not start:\n{log.read_text()[-4000:]}")
