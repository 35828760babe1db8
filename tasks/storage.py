"""Content-addressed folders in a store: ``<root>/<stage>/<digest>/``, manifest written last.

An artifact exists when its ``manifest.json`` does. The manifest lists every file with its SHA-256
and size, and the SHA-256 of the manifest is the artifact's digest and its address: two runs that
make the same bytes write the same place, and a reader can prove what it read.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tasks.artifacts import Artifact
from tasks.errors import ArtifactMissingError, ConfigError, StorageError
from tasks.objects import Store

MANIFEST = "manifest.json"


def commit(store: Store, stage: str, folder: Path) -> tuple[str, str]:
    """Store every file of ``folder`` as an artifact of ``stage``; answers its URI and digest.

    Safe to repeat and to kill: files first, then the manifest, only if it is not there yet. Of an
    artifact that lost files after it was committed, those are put back.
    """
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    files = [
        {"path": n, "sha256": file_digest(folder / n), "bytes": (folder / n).stat().st_size}
        for n in names
    ]
    manifest = json.dumps({"stage": stage, "files": files}, indent=1, sort_keys=True).encode()
    digest = hashlib.sha256(manifest).hexdigest()
    prefix = f"{stage}/{digest}"
    found = _bytes_or_none(store, f"{prefix}/{MANIFEST}")
    for file in files:
        key = f"{prefix}/{file['path']}"
        if found is None or store.size(key) != file["bytes"]:
            store.put(key, folder / str(file["path"]))
    if found != manifest:
        store.put_bytes(f"{prefix}/{MANIFEST}", manifest, if_absent=found is None)
    return f"{store.root}/{prefix}", digest


def is_intact(store: Store, artifact: Artifact) -> bool:
    """Whether the artifact's manifest is there with the right digest, and every file in full.

    One in another store counts as absent: whoever asks can make it again in this one.
    """
    if not artifact.uri.startswith(f"{store.root}/"):
        return False
    try:
        files = _manifest(store, artifact.uri, artifact.digest)["files"]
    except StorageError as error:
        if isinstance(error, ArtifactMissingError):
            return False
        raise
    prefix = _key(store, artifact.uri)
    return all(store.size(f"{prefix}/{file['path']}") == file["bytes"] for file in files)


def fetch(store: Store, uri: str, digest: str) -> Path:
    """A local, read-only copy of an artifact, every file checked against its SHA-256.

    Kept under ``RETUNE_LOCAL/cache`` by digest, so that a second reader copies nothing.
    """
    target = local_folder() / "cache" / digest
    files = _manifest(store, uri, digest)["files"]
    if not _has_sizes(target, files):
        with scratch() as folder:
            for file in files:
                _fetch_file(store, f"{_key(store, uri)}/{file['path']}", folder, file)
            _move_into_place(folder, target, files)
    return target


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A temporary folder beside the cache, so that moving it there is a rename."""
    parent = local_folder() / "tmp"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.mkdtemp(dir=parent)
    except OSError as error:
        raise StorageError(
            f"Cannot write to {parent}: {error.strerror}. Free some space, or set RETUNE_LOCAL to "
            "a folder that can be written."
        ) from error
    try:
        yield Path(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def local_folder() -> Path:
    """Where this machine keeps what it can make again: ``RETUNE_LOCAL``, by default ``.local``."""
    return Path(os.environ.get("RETUNE_LOCAL", ".local")).absolute()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(value: object) -> str:
    """SHA-256 of JSON-ready data in its canonical form."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _manifest(store: Store, uri: str, digest: str) -> dict[str, Any]:
    body = store.get_bytes(f"{_key(store, uri)}/{MANIFEST}")
    if (found := hashlib.sha256(body).hexdigest()) != digest:
        raise ArtifactMissingError(f"{uri}/{MANIFEST} has digest {found}, expected {digest}.")
    manifest: dict[str, Any] = json.loads(body)
    return manifest


def _bytes_or_none(store: Store, key: str) -> bytes | None:
    try:
        return store.get_bytes(key)
    except ArtifactMissingError:
        return None


def _key(store: Store, uri: str) -> str:
    if not uri.startswith(f"{store.root}/"):
        raise ConfigError(f"{uri} is not in the store {store.root}; set RETUNE_STORE to its root.")
    return uri.removeprefix(f"{store.root}/")


def _has_sizes(folder: Path, files: list[dict[str, Any]]) -> bool:
    return all(
        (path := folder / f["path"]).is_file() and path.stat().st_size == f["bytes"] for f in files
    )


def _fetch_file(store: Store, key: str, folder: Path, file: dict[str, Any]) -> None:
    path = folder / file["path"]
    path.parent.mkdir(parents=True, exist_ok=True)
    store.get(key, path)
    if (found := file_digest(path)) != file["sha256"]:
        raise ArtifactMissingError(
            f"{store.root}/{key} is corrupt: SHA-256 {found}, expected {file['sha256']}. "
            "Delete the artifact's folder; the next run makes it again."
        )


def _move_into_place(folder: Path, target: Path, files: list[dict[str, Any]]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    # One at a time: what is found incomplete must not be whole, and read, when it is removed.
    with target.parent.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _has_sizes(target, files):
            shutil.rmtree(target, ignore_errors=True)
            folder.rename(target)
