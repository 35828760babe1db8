"""API keys: only their digests are kept, in a file that is read again when it changes.

A line is ``NAME SHA256 [EXPIRES]``; a name may stand on several lines, so that a new key works
before the old one ends. What ``add`` prints is the only time that a key is seen.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from tasks.errors import ConfigError

_LINE = re.compile(r"(?P<name>\S+)\s+(?P<digest>[0-9a-f]{64})(?:\s+(?P<expires>\S+))?")


class _Key(NamedTuple):
    name: str
    expires: datetime | None


class Keys:
    """The keys of a file. Raises ConfigError where its first reading fails."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._seen: tuple[int, int, int] | None = None
        self._keys: dict[str, _Key] = {}
        self.refresh()

    def refresh(self) -> None:
        """Read the file again if it changed. Raises ConfigError; the keys stay as they were."""
        try:
            found = self._file.stat()
            seen = (found.st_mtime_ns, found.st_size, found.st_ino)
            if seen != self._seen:
                self._keys = _parse(self._file, self._file.read_text(encoding="utf-8"))
                self._seen = seen
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{self._file}: the API keys cannot be read: {error}.") from error

    def owner(self, key: str, now: datetime) -> str | None:
        """Whose key it is; None for one that is unknown or has expired.

        Looked up by its digest: how long that takes tells nothing of any key.
        """
        found = self._keys.get(hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest())
        if found is None or (found.expires is not None and found.expires <= now):
            return None
        return found.name


def add(file: Path, name: str, expires: datetime | None = None) -> str:
    """A new key for ``name``, its digest written to the file. Raises ConfigError for no name."""
    if not name or any(sign.isspace() for sign in name) or name.startswith("#"):
        raise ConfigError(f"{name!r} is no name for a key: expected one without spaces.")
    key = f"rt-{secrets.token_urlsafe(32)}"
    line = " ".join([name, hashlib.sha256(key.encode()).hexdigest(), *_text(expires)])
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch(mode=0o600)
    with file.open("a", encoding="utf-8") as stream:
        stream.write(f"{line}\n")
    return key


def _text(expires: datetime | None) -> list[str]:
    return [] if expires is None else [expires.astimezone(UTC).isoformat()]


def _parse(file: Path, text: str) -> dict[str, _Key]:
    keys = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = _LINE.fullmatch(line.strip())
        expires = _moment(found["expires"]) if found else None
        if found is None or (found["expires"] and expires is None):
            raise ConfigError(
                f"{file}, line {number}: expected NAME SHA256 [EXPIRES], the time as "
                "2026-12-31T00:00:00+00:00. `make gateway-key NAME=...` writes such a line."
            )
        keys[found["digest"]] = _Key(found["name"], expires)
    return keys


def _moment(text: str | None) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
