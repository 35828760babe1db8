"""The local stack in the background: S3, Prefect, MLflow and a worker, supervised by honcho.

In: ``deployments/environment.py`` (ports, folders, keys) and ``infra/local/Procfile``. Out: running
services on 127.0.0.1, bootstrapped, with their logs and data in ``.local/``.

    python -m deployments.stack up|down|status
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from deployments import credentials, databases, environment, health, preflight, processes
from tasks.errors import ConfigError, RetuneError

_LONGEST_TMPDIR = 64
_TIMEOUT_SECONDS = 180
_TAIL_LINES = 15
# What a running stack cannot take over from the caller's environment without a restart.
_FIXED = (
    "RETUNE_S3_PORT", "RETUNE_PREFECT_PORT", "RETUNE_MLFLOW_PORT", "RETUNE_WEBHOOK_PORT",
    "RETUNE_GATEWAY_PORT", "RETUNE_STORE", "RETUNE_MODELS", "RETUNE_POOL", "RETUNE_AUTH",
    "RETUNE_POSTGRESQL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY",
)  # fmt: skip
_INHERITED = ("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "HF_TOKEN")


class StackError(RetuneError):
    """The local stack did not start, or a service of it ended."""


def up() -> None:
    """Start the stack and bootstrap it, or reuse the one that runs."""
    folder = environment.local()
    preflight.make_folders(folder)
    with _only_one(folder):
        if _reuse(folder):
            print("The stack is up already.")
        else:
            _start(folder)
        _bootstrap(folder)
        _await(folder, _worker(folder))
    _print_addresses()


def down() -> None:
    """Stop the stack, if it runs, and wait until all of it has ended."""
    folder = environment.local()
    stopped = _stop(folder)
    print("The stack is down." if stopped else "The stack was not running.")


def status() -> int:
    """Print what runs; 0 when all services answer, else 1."""
    folder = environment.local()
    if processes.supervisor(folder) is None:
        print(f"The stack is not running. {_epitaph(folder)}".rstrip())
        return 1
    answers = {name: check() for name, check in {**health.servers(), **_worker(folder)}.items()}
    for name, healthy in answers.items():
        print(f"{name:8} {'up' if healthy else 'does not answer'}")
    _print_addresses()
    return 0 if all(answers.values()) else 1


def _reuse(folder: Path) -> bool:
    leader = processes.supervisor(folder)
    if leader is None:
        if processes.pid_file(folder).exists():
            print(f"The stack had ended. {_epitaph(folder)}".rstrip())
        _stop(folder)
        return False
    _refuse_other_settings(leader)
    if all(check() for check in health.servers().values()):
        return True
    print("The stack runs but does not answer: restarting it.")
    _stop(folder)
    return False


def _refuse_other_settings(leader: psutil.Process) -> None:
    """A stack on other ports or with other keys than the caller's would fail later, obscurely."""
    has = processes.variables(leader)
    wanted = {**os.environ, **environment.environment()}
    changed = [name for name in _FIXED if (has.get(name) or "") != (wanted.get(name) or "")]
    if changed:
        raise ConfigError(
            f"The stack runs with another {', '.join(changed)}. Run `make down` first, or set what "
            "it was started with."
        )
    for name in _INHERITED:
        if name in os.environ and has.get(name) != os.environ[name]:
            print(f"Note: the stack was started with another {name}; `make down` first to pass it.")


def _start(folder: Path) -> None:
    for port in environment.ports():
        preflight.check_free(port)
    databases.prepare()
    print(f"Starting the stack in {folder} ...", flush=True)
    for log in (folder / "logs").glob("*.log"):
        log.replace(log.with_suffix(".log.old"))
    supervisor = _spawn(folder)
    processes.await_mark(supervisor, folder)
    processes.pid_file(folder).write_text(str(supervisor.pid), encoding="utf-8")
    _await(folder, health.servers())


def _spawn(folder: Path) -> subprocess.Popen[bytes]:
    procfile = environment.home() / "infra" / "local" / "Procfile"
    command = [sys.executable, "-m", "honcho", "-f", str(procfile), "--no-colour", "start"]
    extra = {processes.MARK: str(folder), **_temporary_folder(folder)}
    with (folder / "logs" / "honcho.log").open("wb") as log:
        # The stack's folder is the working folder, so that nothing a service drops lands elsewhere.
        return subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **environment.environment(), **extra},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _temporary_folder(folder: Path) -> dict[str, str]:
    """Prefect drops things in TMPDIR; Unix sockets there need a path of under 108 bytes."""
    inside = str(folder / "tmp")
    return {"TMPDIR": inside} if len(inside) <= _LONGEST_TMPDIR else {}


def _worker(folder: Path) -> dict[str, health.Check]:
    leader = processes.supervisor(folder)
    return health.worker(leader.create_time()) if leader else {"worker": lambda: False}


def _await(folder: Path, checks: dict[str, health.Check]) -> None:
    """Wait until every check answers; on failure say which did not and why, and stop everything."""
    started = time.monotonic()
    pending = dict(checks)
    while pending:
        for name in [name for name, check in pending.items() if check()]:
            del pending[name]
            print(f"  {name:8} ready after {time.monotonic() - started:4.1f} s", flush=True)
        if not pending:
            return
        ended: tuple[str, int | None] | None = _first_ended(folder)
        if ended is None and processes.supervisor(folder) is None:
            ended = ("honcho", None)
        late = time.monotonic() - started > _TIMEOUT_SECONDS
        if late or ended:
            _stop(folder)
            raise StackError(_story(folder, ended, late=next(iter(pending))))
        time.sleep(0.2)


def _bootstrap(folder: Path) -> None:
    # Its own process: Prefect reads its settings once, when first imported.
    done = subprocess.run(
        [sys.executable, "-m", "deployments.bootstrap"],
        env={**os.environ, **environment.environment()},
        cwd=environment.home(),
        check=False,
    )
    if done.returncode:
        raise StackError(
            f"The stack runs but could not be bootstrapped (see above). Logs: {folder}/logs. "
            "`make up` tries again."
        )


def _story(folder: Path, ended: tuple[str, int | None] | None, *, late: str) -> str:
    """What ended the start: the service that ``ended`` (with its code, if known), or a late one."""
    service, code = ended or (late, None)
    log = folder / "logs" / f"{service}.log"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    what = "ended" if ended else f"did not answer within {_TIMEOUT_SECONDS} s"
    what += f" with code {code}" if code is not None else ""
    shown = "\n".join(f"    {line}" for line in lines[-_TAIL_LINES:]) or "    (empty)"
    return (
        f"The stack did not start: {service} {what}. The last lines of {log}:\n{shown}\n"
        "Everything was stopped again. Remove the cause, then `make up`; `make clean` starts anew."
    )


def _first_ended(folder: Path) -> tuple[str, int] | None:
    """The service that ended first, by honcho's log: honcho then stops the others."""
    log = folder / "logs" / "honcho.log"
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    ended = re.search(r"(\w+)\.1 stopped \(rc=(-?\d+)\)", text.split(" received\n")[0])
    return (ended[1], int(ended[2])) if ended else None


def _epitaph(folder: Path) -> str:
    ended = _first_ended(folder)
    return f"{ended[0]} ended first, with code {ended[1]}: see {folder}/logs." if ended else ""


@contextlib.contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Two `up` at once: the second waits, and then finds the first one's stack."""
    with (folder / "stack.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _stop(folder: Path) -> bool:
    stopped = processes.stop(folder)
    # The worker keeps a run's environment here, secrets too; killed, it leaves it behind.
    for attempt in (folder / "tmp").glob("prefect-workspace-attempt-*"):
        shutil.rmtree(attempt, ignore_errors=True)
    # SeaweedFS names its sockets after its ports, ignores TMPDIR, and leaves one behind or all.
    for port in environment.ports():
        for left in Path("/tmp").glob(f"seaweedfs-*-{port.number}.sock"):  # noqa: S108
            left.unlink(missing_ok=True)
    return stopped


def _print_addresses() -> None:
    for name, url in environment.addresses().items():
        print(f"  {name:8} {url}")
    folder = environment.local()
    if credentials.login(folder) is not None:
        print(
            f"  Log in as {credentials.USER}; the password is in {credentials.login_file(folder)}"
        )


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or arguments[0] not in ("up", "down", "status"):
        print("Usage: python -m deployments.stack up|down|status", file=sys.stderr)
        return 2
    try:
        return {"up": up, "down": down, "status": status}[arguments[0]]() or 0
    except RetuneError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
