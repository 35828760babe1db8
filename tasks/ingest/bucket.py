"""Objects of a bucket as sources: listed by pattern, fetched in the version that was listed."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from botocore.exceptions import BotoCoreError, ClientError

from tasks.artifacts import SourceFile
from tasks.errors import ArtifactMissingError, ConfigError, DataError, MissingFileError
from tasks.objects import S3Store

_MAGIC = re.compile(r"[*?\[]")
_ATTEMPTS = 5  # without a byte of progress
_ENVIRONMENT = ("AWS_ENDPOINT_URL_S3", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


class Bucket(S3Store):
    """A bucket that is only read; credentials and endpoint are those of the store."""

    def find(self, pattern: str) -> list[SourceFile]:
        """The object of that very key, which may hold brackets, else those that the glob matches.

        ``*`` and ``?`` stay within a folder, ``**`` is any number of folders.
        """
        fixed = _MAGIC.split(pattern, maxsplit=1)[0]
        exact = next((o for o in self._objects(pattern) if o["Key"] == pattern), None)
        if exact is not None:
            return [self._source(exact)]
        if fixed == pattern:
            return []
        matches = glob_pattern(pattern).fullmatch
        found = [o for o in self._objects(fixed) if matches(o["Key"])]
        return [self._source(o) for o in sorted(found, key=lambda o: str(o["Key"]))]

    def fetch(self, file: SourceFile, target: Path) -> None:
        """The object into ``target``; a broken stream is taken up where it broke.

        Raises DataError when the object is no longer the one that was listed.
        """
        key = file.place.removeprefix(f"{self.root}/")
        done, failures = 0, 0
        with target.open("wb") as out:
            while done < file.size:
                before = done
                try:
                    for chunk in self._body(file, key, done):
                        out.write(chunk)
                        done += len(chunk)
                except BotoCoreError:
                    failures = 0 if done > before else failures + 1
                    if failures == _ATTEMPTS:
                        with self._errors("read", key):
                            raise
                    time.sleep(0.1 * 2**failures)

    def _body(self, file: SourceFile, key: str, start: int) -> Iterator[bytes]:
        gone = f"{file.name} was replaced or removed while it was read. Run again."
        try:
            answer = self._client.get_object(
                Bucket=self._bucket, Key=key, IfMatch=file.digest, Range=f"bytes={start}-"
            )
        except ClientError as error:
            if error.response["Error"]["Code"] in {"PreconditionFailed", "412"}:
                raise DataError(gone) from error
            try:
                with self._errors("read", key):
                    raise
            except ArtifactMissingError as missing:
                raise DataError(gone) from missing
        yield from answer["Body"].iter_chunks(2**20)

    def _objects(self, prefix: str) -> Iterator[dict[str, Any]]:
        with self._errors("list", prefix):
            pages = self._client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._bucket, Prefix=prefix):
                yield from page.get("Contents", [])

    def _source(self, found: dict[str, Any]) -> SourceFile:
        place = f"{self.root}/{found['Key']}"
        return SourceFile(
            kind="s3", name=place, place=place, digest=found["ETag"], size=found["Size"]
        )


def find_objects(uri: str) -> tuple[SourceFile, ...]:
    """The objects of ``s3://bucket/key`` or a glob; raises MissingFileError when there is none."""
    bucket, pattern = _bucket_of(uri)
    try:
        found = bucket.find(pattern)
    except OSError as error:
        if _is_no_bucket(error.__cause__):
            raise MissingFileError(f"Source {uri!r}: there is no such bucket.") from error
        raise
    if not found:
        raise MissingFileError(f"Source {uri!r}: no such object in the bucket.")
    return tuple(found)


def fetch_object(file: SourceFile, target: Path) -> None:
    """The object of ``find_objects`` as a file."""
    _bucket_of(file.place)[0].fetch(file, target)


def glob_pattern(pattern: str) -> re.Pattern[str]:
    """A glob over keys as a regular expression."""
    parts = re.split(r"(\*\*/|\*\*$|\*|\?|\[!?\]?[^]/]*\])", pattern)
    return re.compile("".join(map(_translated, parts)), re.DOTALL)


def _translated(part: str) -> str:
    if part in _WILD:
        return _WILD[part]
    if part.startswith("[") and part.endswith("]") and len(part) > 2:
        inner = part[1:-1].replace("\\", r"\\").replace("[", r"\[").replace("^", r"\^")
        return f"(?!/)[{'^' + inner[1:] if inner.startswith('!') else inner}]"
    return re.escape(part)


_WILD = {"**/": "(?:[^/]+/)*", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def _bucket_of(uri: str) -> tuple[Bucket, str]:
    parsed = urlparse(uri, allow_fragments=False)
    key = uri.removeprefix(f"s3://{parsed.netloc}").removeprefix("/")
    if not parsed.netloc or not key:
        raise ConfigError(f"Source {uri!r}: expected s3://bucket/key, which may be a glob.")
    return _bucket(parsed.netloc, *map(os.environ.get, _ENVIRONMENT)), key


@lru_cache(maxsize=8)
def _bucket(name: str, *_environment: str | None) -> Bucket:
    """One client a process and environment, as for the store."""
    return Bucket(f"s3://{name}")


def _is_no_bucket(error: BaseException | None) -> bool:
    return isinstance(error, ClientError) and error.response["Error"]["Code"] == "NoSuchBucket"
