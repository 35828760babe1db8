"""The stack's processes: found by a mark in their environment, never by their name.

The supervisor is started with RETUNE_STACK set to the stack's folder; whatever it starts inherits
the mark, flow runs too. A process id alone proves nothing: the system may have given it to a
stranger since. So a process is ours when the mark says so, and only ours are stopped.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

MARK = "RETUNE_STACK"
# Honcho kills what ignores its request to end after 5 s; it needs that time and a little more.
_GRACE_SECONDS = 15
_POLL_SECONDS = 0.005


def pid_file(folder: Path) -> Path:
    return folder / "stack.pid"


def supervisor(folder: Path) -> psutil.Process | None:
    """The process of the pid file, if it still runs and is ours."""
    try:
        process = psutil.Process(int(pid_file(folder).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, psutil.NoSuchProcess):
        return None
    return process if _is_ours(process, folder) and is_running(process) else None


def await_mark(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Wait until a process just started with the mark is known by it, or has ended.

    Linux starts a program in steps, and ``Popen`` returns before the last of them: for an instant
    the new process has no environment that could be read, and would pass for a stranger.
    """
    while process.poll() is None and not _is_ours(psutil.Process(process.pid), folder):
        time.sleep(_POLL_SECONDS)


def members(folder: Path) -> list[psutil.Process]:
    """All processes of the stack in ``folder``, less this one and those that started it."""
    me = psutil.Process()
    mine = {me.pid, *(parent.pid for parent in me.parents())}
    return [p for p in psutil.process_iter() if p.pid not in mine and _is_ours(p, folder)]


def stop(folder: Path) -> bool:
    """End the stack's processes, at the latest by force; whether there were any."""
    found = members(folder)
    if (leader := supervisor(folder)) is not None:
        _end([leader], _GRACE_SECONDS)
    _end(members(folder), _GRACE_SECONDS)
    pid_file(folder).unlink(missing_ok=True)
    return bool(found)


def variables(process: psutil.Process) -> Mapping[str, str]:
    """The environment that a process was started with; empty where it cannot be read."""
    with contextlib.suppress(psutil.Error, OSError):
        return process.environ()
    return {}


def is_running(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def _is_ours(process: psutil.Process, folder: Path) -> bool:
    return variables(process).get(MARK) == os.fspath(folder)


def _end(processes: list[psutil.Process], grace: float) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, stubborn = psutil.wait_procs(processes, timeout=grace)
    for process in stubborn:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(stubborn, timeout=grace)
