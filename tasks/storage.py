"""Content-addressed folders in S3 or on disk: ``<root>/<stage>/<digest>/``, manifest written last.

An artifact exists when its ``manifest.json`` does. The manifest lists every file with its SHA-256
and size, and the SHA-256 of the manifest is the artifact's digest and its address: two runs that
make the same bytes write the same place, and a reader can prove what it read.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlparse

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from tasks.artifacts import Artifact
from tasks.errors import ArtifactMissingError, ConfigError, StorageError

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
_CHUNK = 1 << 20
# A few quick attempts for a lost packet; an outage is bridged by the stage's own retries, which are
# seen in the Prefect UI.
_S3_CONFIG = Config(
    retries={"mode": "standard", "total_max_attempts": 4}, connect_timeout=5, read_timeout=60
)
_S3_ENVIRONMENT = ("AWS_ENDPOINT_URL_S3", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
_DENIED = frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", "403"})
_ABSENT = frozenset({"NoSuchKey", "404", "NotFound"})


class Store(Protocol):
    """Where objects live. Keys are relative to the store's root."""

    root: str

    def put(self, key: str, source: Path) -> None: ...
    def put_bytes(self, key: str, body: bytes, *, if_absent: bool = False) -> bool: ...
    def get(self, key: str, target: Path) -> None: ...
    def get_bytes(self, key: str) -> bytes: ...
    def size(self, key: str) -> int | None: ...


class LocalStore:
    """A store in a folder; each object appears whole, by rename."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self._root = root

    def put(self, key: str, source: Path) -> None:
        with self._whole(key) as temporary:
            shutil.copyfile(source, temporary)
            temporary.replace(self._root / key)

    def put_bytes(self, key: str, body: bytes, *, if_absent: bool = False) -> bool:
        with self._whole(key) as temporary:
            temporary.write_bytes(body)
            if not if_absent:
                temporary.replace(self._root / key)
                return True
            try:  # a link, unlike a rename, fails when another writer was faster
                (self._root / key).hardlink_to(temporary)
            except FileExistsError:
                return False
            return True

    def get(self, key: str, target: Path) -> None:
        with self._errors("read", key):
            shutil.copyfile(self._root / key, target)

    def get_bytes(self, key: str) -> bytes:
        with self._errors("read", key):
            return (self._root / key).read_bytes()

    def size(self, key: str) -> int | None:
        path = self._root / key
        return path.stat().st_size if path.is_file() else None

    @contextlib.contextmanager
    def _whole(self, key: str) -> Iterator[Path]:
        """A name beside the object's that no other writer has; gone again in the end."""
        target = self._root / key
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        with self._errors("write", key):
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                yield temporary
            finally:
                temporary.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _errors(self, verb: str, key: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise ArtifactMissingError(f"{self.root}/{key} does not exist.") from error
        except OSError as error:
            raise StorageError(
                f"Could not {verb} {self.root}/{key}: {error.strerror}. Free some space, or set "
                "RETUNE_STORE to a folder that can be written."
            ) from error


class S3Store:
    """A store under a bucket and an optional prefix, with the standard AWS environment."""

    def __init__(self, root: str) -> None:
        parsed = urlparse(root)
        self.root = root.rstrip("/")
        self._bucket = parsed.netloc
        self._prefix = f"{path}/" if (path := parsed.path.strip("/")) else ""
        # A session of its own: boto3's default one keeps the first credentials it ever saw.
        self._client: Any = boto3.session.Session().client("s3", config=_S3_CONFIG)

    def put(self, key: str, source: Path) -> None:
        # Not upload_file, which hides S3's answer in an error of its own.
        with self._errors("write", key), source.open("rb") as file:
            self._client.upload_fileobj(
                file, self._bucket, self._prefix + key, ExtraArgs=_content_type(key)
            )

    def put_bytes(self, key: str, body: bytes, *, if_absent: bool = False) -> bool:
        condition = {"IfNoneMatch": "*"} if if_absent else {}
        try:
            with self._errors("write", key):
                self._client.put_object(
                    Bucket=self._bucket,
                    Key=self._prefix + key,
                    Body=body,
                    **_content_type(key),
                    **condition,
                )
        except ClientError as error:
            if error.response["Error"]["Code"] in {"PreconditionFailed", "412"}:
                return False
            raise
        return True

    def get(self, key: str, target: Path) -> None:
        with self._errors("read", key):
            self._client.download_file(self._bucket, self._prefix + key, str(target))

    def get_bytes(self, key: str) -> bytes:
        with self._errors("read", key):
            answer = self._client.get_object(Bucket=self._bucket, Key=self._prefix + key)
            body: bytes = answer["Body"].read()
            return body

    def size(self, key: str) -> int | None:
        try:
            with self._errors("look up", key):
                answer = self._client.head_object(Bucket=self._bucket, Key=self._prefix + key)
        except ArtifactMissingError:
            return None
        size: int = answer["ContentLength"]
        return size

    @contextlib.contextmanager
    def _errors(self, verb: str, key: str) -> Iterator[None]:
        """Says in Retune's words what S3 refused; what passes by itself is left as it came."""
        what = f"Could not {verb} {self.root}/{key} at {self._client.meta.endpoint_url}"
        try:
            yield
        except NoCredentialsError as error:
            raise StorageError(
                f"{what}: no credentials. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
            ) from error
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code in _DENIED:
                raise StorageError(
                    f"{what}: {code}. Check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the "
                    "bucket's policy."
                ) from error
            if code in _ABSENT:
                raise ArtifactMissingError(f"{what}: it does not exist.") from error
            if code == "NoSuchBucket":
                raise StorageError(
                    f"{what}: the bucket does not exist. Create it or set RETUNE_STORE."
                ) from error
            raise
        except BotoCoreError as error:
            # The cause stays attached, so that a lost connection is still known as transient.
            raise StorageError(f"{what}: {error}. Is it running?") from error


def open_store(root: str | None = None) -> Store:
    """The store at ``root``, by default that of ``RETUNE_STORE`` (``s3://bucket`` or a folder)."""
    root = root or os.environ.get("RETUNE_STORE")
    if not root:
        raise ConfigError(
            "RETUNE_STORE is not set: expected s3://bucket[/prefix] or a folder. "
            "`make up` sets it for the local stack."
        )
    return _cached_store(root, *(os.environ.get(name) for name in _S3_ENVIRONMENT))


@lru_cache(maxsize=8)
def _cached_store(root: str, *_environment: str | None) -> Store:
    """One client a process: making one costs 0.2 s. Another environment gets another client."""
    return S3Store(root) if root.startswith("s3://") else LocalStore(Path(root))


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
    if _has_sizes(target, files):  # another process was faster, and may be reading it
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(target, ignore_errors=True)  # an incomplete copy
    with contextlib.suppress(OSError):  # lost the race: the other copy is equally good
        folder.rename(target)


def _content_type(key: str) -> dict[str, str]:
    """So that a report opened from the bucket shows as a page."""
    types = {".html": "text/html; charset=utf-8", ".json": "application/json"}
    suffix = Path(key).suffix
    return {"ContentType": types[suffix]} if suffix in types else {}
