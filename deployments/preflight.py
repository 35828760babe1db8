"""What must hold before the local stack is started: free ports, folders that take files, space."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

from deployments import environment
from tasks.errors import ConfigError, StorageError

_FOLDERS = ("logs", "s3", "prefect", "mlflow", "runs", "models", "tmp")
_LEAST_FREE_GIB = 3


def check_free(port: environment.Port) -> None:
    """Raise ConfigError, naming the variable to change, where something listens already."""
    with socket.socket() as probe:
        # As servers do: a connection that is still closing does not count as taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port.number))
        except OSError as error:
            raise ConfigError(
                f"Port {port.number} for {port.service} cannot be used: {error.strerror}. Stop "
                f"what listens there, or set {port.variable} to another port."
            ) from error


def make_folders(folder: Path) -> None:
    """Make the stack's folders; raise StorageError where they cannot be written or filled."""
    try:
        for name in _FOLDERS:
            (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / "stack.lock").touch()
        free = shutil.disk_usage(folder).free / 2**30
    except OSError as error:
        raise StorageError(
            f"Cannot write to {folder}: {error.strerror}. Free some space, or set RETUNE_LOCAL to "
            "a folder that can be written."
        ) from error
    if free < _LEAST_FREE_GIB:
        raise StorageError(
            f"{folder} has {free:.1f} GiB free, expected {_LEAST_FREE_GIB}. Free some space, or "
            "set RETUNE_LOCAL to a folder elsewhere."
        )
