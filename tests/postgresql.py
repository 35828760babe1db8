"""A PostgreSQL server of the tests' own: Debian's binaries, a new cluster, loopback alone."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_DEBIAN = Path("/usr/lib/postgresql")
_USER = "retune"
_SECONDS = 30


def binaries() -> Path | None:
    """The folder of ``postgres`` and ``initdb``; None where they are not installed."""
    found = sorted(_DEBIAN.glob("*/bin/initdb"), key=lambda file: int(file.parts[-3]))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


@contextmanager
def running(port: int) -> Iterator[str]:
    """A server on a port, with a password; its address as RETUNE_POSTGRESQL takes it."""
    at = binaries()
    if at is None:
        raise RuntimeError("PostgreSQL is not installed: apt-get install postgresql.")
    # It refuses to run as root: Debian's package brings a user for it.
    owner = "postgres" if os.geteuid() == 0 else None
    password = secrets.token_hex(16)
    folder = Path(tempfile.mkdtemp(prefix="retune-postgresql-"))
    try:
        secret = folder / "password"
        secret.write_text(password)
        if owner:
            shutil.chown(folder, owner)
            shutil.chown(secret, owner)
        data = folder / "data"
        make = [at / "initdb", "-D", data, "-U", _USER, f"--pwfile={secret}", "-A", "scram-sha-256"]
        subprocess.run(
            [*make, "-E", "UTF8", "--no-sync"],
            user=owner,
            cwd=folder,
            check=True,
            capture_output=True,
        )
        serve = [at / "postgres", "-D", data, "-p", str(port), "-h", "127.0.0.1", "-F"]
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen(
                [*serve, "-c", "unix_socket_directories="],
                user=owner,
                cwd=folder,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            try:
                _await(server, port, folder / "log")
                yield f"postgresql://{_USER}:{password}@127.0.0.1:{port}"
            finally:
                server.send_signal(signal.SIGINT)  # a "fast" end: it does not wait for its clients
                server.wait(timeout=_SECONDS)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def dump(server: str, database: str) -> str:
    """All of a database as text; the server's address as ``running`` gives it."""
    at = binaries()
    assert at is not None
    address, _, password = server.rpartition("@")[0].rpartition(":")
    host = server.rpartition("@")[2]
    done = subprocess.run(
        [at / "pg_dump", f"{address}@{host}/{database}"],
        env={**os.environ, "PGPASSWORD": password},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def _await(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise RuntimeError(f"PostgreSQL did not start:\n{log.read_text()}")
