"""Where bytes lie: an object store in S3 or in a folder, with the same few verbs.

What S3 refuses is said in Retune's words; what passes by itself keeps its cause, so that the stage
knows it as transient.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlparse

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from tasks.errors import ArtifactMissingError, ConfigError, StorageError

# A few quick attempts for a lost packet; an outage is bridged by the stage's own retries, which are
# seen in the Prefect UI.
_S3_CONFIG = Config(
    retries={"mode": "standard", "total_max_attempts": 4}, connect_timeout=5, read_timeout=60
)
_S3_ENVIRONMENT = ("AWS_ENDPOINT_URL_S3", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
_ATTEMPTS = 20  # at a folder that others fill and empty
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
    def keys_under(self, prefix: str) -> Iterator[str]: ...
    def delete(self, key: str) -> None: ...


class LocalStore:
    """A store in a folder; each object appears whole, by rename."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self._root = root

    def put(self, key: str, source: Path) -> None:
        def write(temporary: Path) -> bool:
            shutil.copyfile(source, temporary)
            temporary.replace(self._root / key)
            return True

        self._whole(key, write)

    def put_bytes(self, key: str, body: bytes, *, if_absent: bool = False) -> bool:
        def write(temporary: Path) -> bool:
            temporary.write_bytes(body)
            if not if_absent:
                temporary.replace(self._root / key)
                return True
            try:  # a link, unlike a rename, fails when another writer was faster
                (self._root / key).hardlink_to(temporary)
            except FileExistsError:
                return False
            return True

        return self._whole(key, write)

    def get(self, key: str, target: Path) -> None:
        with self._errors("read", key):
            shutil.copyfile(self._root / key, target)

    def get_bytes(self, key: str) -> bytes:
        with self._errors("read", key):
            return (self._root / key).read_bytes()

    def size(self, key: str) -> int | None:
        path = self._root / key
        return path.stat().st_size if path.is_file() else None

    def keys_under(self, prefix: str) -> Iterator[str]:
        """All keys that begin so, sorted; what is being written now is not among them."""
        folder = self._root / prefix.rpartition("/")[0]
        found = (  # os.walk, unlike a glob, passes over a folder that goes away meanwhile
            (Path(place) / name).relative_to(self._root).as_posix()
            for place, _, names in os.walk(folder)
            for name in names
            if not name.startswith(".")
        )
        return iter(sorted(key for key in found if key.startswith(prefix)))

    def delete(self, key: str) -> None:
        """Remove an object, if it is there, and the folders that it leaves empty."""
        path = self._root / key
        with self._errors("delete", key):
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # the first folder that is not empty ends it
            for folder in path.relative_to(self._root).parents[:-1]:
                (self._root / folder).rmdir()

    def _whole(self, key: str, write: Callable[[Path], bool]) -> bool:
        """Write under a name beside the object's that no other writer has; gone in the end."""
        target = self._root / key
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}")

        def attempt() -> bool:
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                return write(temporary)
            finally:
                temporary.unlink(missing_ok=True)

        with self._errors("write", key):
            for _ in range(_ATTEMPTS - 1):
                # One who deletes may take the folder away, empty as it is, or while it is made.
                with contextlib.suppress(FileNotFoundError, FileExistsError):
                    return attempt()
            return attempt()

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

    def keys_under(self, prefix: str) -> Iterator[str]:
        """All keys that begin so, sorted."""
        pages = self._client.get_paginator("list_objects_v2")
        with self._errors("list", prefix):
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix):
                for entry in page.get("Contents", ()):
                    yield str(entry["Key"]).removeprefix(self._prefix)

    def delete(self, key: str) -> None:
        """Remove an object, if it is there."""
        with self._errors("delete", key):
            self._client.delete_object(Bucket=self._bucket, Key=self._prefix + key)

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


def _content_type(key: str) -> dict[str, str]:
    """So that a report opened from the bucket shows as a page."""
    types = {".html": "text/html; charset=utf-8", ".json": "application/json"}
    suffix = Path(key).suffix
    return {"ContentType": types[suffix]} if suffix in types else {}
