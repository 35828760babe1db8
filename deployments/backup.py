"""The local stack in one file, and back: python -m deployments.backup save|restore FILE.tar

A backup is taken at rest, so that S3, Prefect's and MLflow's databases tell of the same moment: the
stack is stopped for it and started again. It holds the stack's S3 keys, and is readable by its
owner alone. What can be made anew, such as caches, logs and base models, is not in it.
"""

from __future__ import annotations

import os
import shutil
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import httpx

from deployments import credentials, databases, environment, processes, stack
from tasks.errors import ConfigError, DataError, MissingFileError, RetuneError, StorageError

_PARTS = ("s3", "prefect", "mlflow", "runs", "credentials.env", "login.env", "gateway.env")
_MARK = "retune-backup"  # the first entry, by which a backup is known
_UNFINISHED = ["RUNNING", "PENDING", "CANCELLING"]


def save(target: Path) -> None:
    """Write a backup; whole or not at all.

    Raises:
        ConfigError: a run is on, there is a file already, or the databases are PostgreSQL's.
        StorageError: the file cannot be written.
    """
    folder = environment.local()
    _refuse_postgresql()
    if target.exists():
        raise ConfigError(f"{target} is there already: name another file, or move it away.")
    partial = target.with_name(f"{target.name}.part")
    with _at_rest(folder):
        try:
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w") as tar:
                tar.addfile(tarfile.TarInfo(_MARK))
                for part in _PARTS:
                    if (folder / part).exists():
                        tar.add(folder / part, arcname=part)
            partial.replace(target)
        except OSError as error:
            raise StorageError(f"Cannot write {target}: {error.strerror or error}.") from error
        finally:
            partial.unlink(missing_ok=True)
    print(f"Saved {target.stat().st_size / 2**20:,.0f} MiB in {target}. It holds the S3 keys.")


def restore(source: Path) -> None:
    """Put a backup in the place of a stack that is not there.

    Raises:
        MissingFileError: there is no such file.
        DataError: it is no backup.
        ConfigError: a stack is there; nothing is overwritten. Or the databases are PostgreSQL's.
    """
    _refuse_postgresql()
    folder = environment.local()
    if not source.is_file():
        raise MissingFileError(f"{source}: expected a backup, found no file.")
    there = [part for part in _PARTS if (folder / part).exists()]
    if processes.supervisor(folder) is not None or there:
        raise ConfigError(
            f"{folder} holds {', '.join(there)}: a backup overwrites nothing. Run `make down`, "
            "move the folder away, then restore."
        )
    folder.mkdir(parents=True, exist_ok=True)
    making = folder / "restoring"
    shutil.rmtree(making, ignore_errors=True)
    try:
        with tarfile.open(source) as tar:
            if tar.next() is None or tar.getnames()[0] != _MARK:
                raise DataError(f"{source} is no backup of Retune.")
            # Checked here and not by a filter of tarfile's, which Python before 3.11.4 lacks.
            tar.extractall(making, _checked(tar, source))  # noqa: S202
        for part in _PARTS:
            if (making / part).exists():
                (making / part).rename(folder / part)
    except (tarfile.TarError, EOFError) as error:
        raise DataError(f"{source} is no whole backup of Retune: {error}") from error
    finally:
        shutil.rmtree(making, ignore_errors=True)
    print(f"Restored {source} into {folder}. `make up` starts it.")


def _checked(tar: tarfile.TarFile, source: Path) -> list[tarfile.TarInfo]:
    """The entries, where each is a file or folder inside, or a link to what lies beside it."""
    entries = tar.getmembers()
    for entry in entries:
        path = PurePosixPath(entry.name)
        beside = (
            entry.issym() and entry.linkname not in ("", ".", "..") and "/" not in entry.linkname
        )
        if (
            path.is_absolute()
            or ".." in path.parts
            or not (entry.isreg() or entry.isdir() or beside)
        ):
            raise DataError(f"{source} is no backup of Retune: it holds {entry.name!r}.")
    return entries


@contextmanager
def _at_rest(folder: Path) -> Iterator[None]:
    """The stack down for a while, and up again where it was up."""
    was_up = processes.supervisor(folder) is not None
    if was_up:
        if number := _num_unfinished():
            raise ConfigError(f"{number} runs are on: wait for them, or cancel them, then save.")
        stack.down()
    try:
        yield
    finally:
        if was_up:
            stack.up()


def _refuse_postgresql() -> None:
    if databases.server() is not None:
        raise ConfigError(
            "RETUNE_POSTGRESQL is set: this command knows SQLite alone, and half a backup would be "
            "worse than none. `make down`, then pg_dump both databases and copy the stack's folder."
        )


def _num_unfinished() -> int:
    url = f"{environment.addresses()['Prefect']}/api/flow_runs/count"
    wanted = {"flow_runs": {"state": {"type": {"any_": _UNFINISHED}}}}
    login = credentials.login(environment.local())
    try:
        answer = httpx.post(url, json=wanted, timeout=30, trust_env=False, auth=login)
        answer.raise_for_status()
    except httpx.HTTPError as error:
        raise StorageError(
            f"Prefect at {url} does not say whether a run is on: {error}. `make down`, then save."
        ) from error
    return int(answer.text)


def main(arguments: list[str]) -> int:
    if len(arguments) != 2 or arguments[0] not in ("save", "restore"):
        print("usage: python -m deployments.backup save|restore FILE.tar", file=sys.stderr)
        return 2
    try:
        {"save": save, "restore": restore}[arguments[0]](Path(arguments[1]))
    except RetuneError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
