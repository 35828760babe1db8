"""The stack's services one by one, without a supervisor: to be killed and started again."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from deployments import environment

_ANSWER_SECONDS = 120


class Services:
    """Started by the commands of the Procfile, in the environment of the caller."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        procfile = environment.home() / "infra" / "local" / "Procfile"
        lines = procfile.read_text(encoding="utf-8").splitlines()
        self._commands = dict(line.split(": ", 1) for line in lines if ": " in line)
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        self._running[name] = subprocess.Popen(
            ["bash", "-c", self._commands[name]], start_new_session=True, cwd=self.folder
        )

    def process_id(self, name: str) -> int:
        return self._running[name].pid

    def wait(self, name: str) -> None:
        """Until it answers."""
        from deployments.health import servers

        check, deadline = servers()[name], time.monotonic() + _ANSWER_SECONDS
        while not check():
            if time.monotonic() > deadline:
                raise RuntimeError(f"{name} did not answer: see {self.folder}/logs/{name}.log")
            time.sleep(0.2)

    def kill(self, name: str) -> None:
        """With all that it started, as a machine does that is switched off."""
        process = self._running.pop(name)
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
        process.kill()
        process.wait()

    def stop(self) -> None:
        for name in list(self._running):
            self.kill(name)


@contextmanager
def services(folder: Path, *servers: str, bootstrapped: bool = True) -> Iterator[Services]:
    """Servers in a folder, bootstrapped, for which Prefect is needed.

    Their environment stays set: the caller restores it.
    """
    os.environ["RETUNE_LOCAL"] = str(folder)
    for name in (*servers, "runs", "logs", "tmp"):
        (folder / name).mkdir(exist_ok=True)
    environment.apply()

    running = Services(folder)
    try:
        for name in servers:
            running.start(name)
            running.wait(name)
        if bootstrapped:
            bootstrap = [sys.executable, "-m", "deployments.bootstrap"]
            subprocess.run(bootstrap, cwd=environment.home(), check=True)
        yield running
    finally:
        running.stop()
