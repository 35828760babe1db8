"""A Label Studio project -> its JSON export as a file, which is then read like any export.

The key comes from LABEL_STUDIO_API_KEY alone, a personal access token or a legacy token. The
community edition sends the export as it makes it; the enterprise edition makes a snapshot first,
which is waited for. Needs the extra ``label-studio``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tasks.errors import ConfigError, StorageError

KEY = "LABEL_STUDIO_API_KEY"
# Label Studio makes the whole export before it sends the first byte.
_TIMEOUT = 600.0
_POLL_SECONDS = 2.0


def api_key() -> str:
    """The key from the environment; raises ConfigError when it is not set."""
    key = os.environ.get(KEY, "").strip()
    if not key:
        raise ConfigError(f"{KEY} is not set: expected an access token of Label Studio in it.")
    return key


def download_export(
    url: str, project: int, api_key: str, target: Path, timeout: float = _TIMEOUT
) -> None:
    """Export the project's annotated tasks as JSON into ``target``, whole or not at all.

    Raises ConfigError for a refused key or an unknown project. What may pass (time-outs, lost
    connections, 5xx) is raised as the client gives it, for the caller to retry.
    """
    try:
        from label_studio_sdk.client import LabelStudio
        from label_studio_sdk.core.api_error import ApiError
    except ImportError as error:
        raise ConfigError(
            "`label_studio_url` needs the extra label-studio: pip install 'retune[label-studio]'."
        ) from error
    partial = target.with_name(target.name + ".part")
    try:
        connect: Any = LabelStudio  # its constructor has no types
        client = connect(base_url=url.rstrip("/"), api_key=api_key, timeout=timeout)
        with partial.open("wb") as file:
            for chunk in _export(client, project, timeout):
                file.write(chunk)
        partial.replace(target)
    except ApiError as error:
        if (refusal := _refusal(error.status_code, url, project)) is not None:
            raise refusal from error
        raise
    finally:
        partial.unlink(missing_ok=True)


def _export(client: Any, project: int, timeout: float) -> Iterator[bytes]:
    exports = client.projects.exports
    if client.versions.get().edition != "Enterprise":
        return exports.download_sync(project, export_type="JSON")  # type: ignore[no-any-return]
    snapshot = exports.create(project)
    deadline = time.monotonic() + timeout
    while snapshot.status != "completed":
        if snapshot.status == "failed":
            raise StorageError(
                f"Label Studio could not make the export {snapshot.id} of project {project}. Look "
                "at the project's exports there."
            )
        if time.monotonic() > deadline:
            raise TimeoutError(
                f"Label Studio's export {snapshot.id} of project {project} took over {timeout:g} s."
            )
        time.sleep(_POLL_SECONDS)
        snapshot = exports.get(project, export_pk=snapshot.id)
    return exports.download(project, export_pk=snapshot.id, export_type="JSON")  # type: ignore[no-any-return]


def _refusal(status: int | None, url: str, project: int) -> ConfigError | None:
    if status in (401, 403):
        return ConfigError(
            f"Label Studio at {url} refused the key in {KEY} (HTTP {status}). Put a valid access "
            f"token of a user who sees project {project} there."
        )
    if status == 404:
        return ConfigError(
            f"Label Studio at {url} has no project {project} (HTTP 404). Correct "
            "`label_studio_url` or `label_studio_project`."
        )
    return None
