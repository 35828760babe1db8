"""Where the rows of a source are: every file found, and pinned by a digest, before any is read."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks import collected
from tasks.artifacts import SourceFile, Sources
from tasks.collected import Hook
from tasks.errors import ConfigError, DataError, MissingFileError
from tasks.ingest.bucket import fetch_object, find_objects
from tasks.ingest.config import GoldenConfig, IngestConfig, SourceConfig
from tasks.ingest.label_studio_api import api_key, download_export
from tasks.objects import Store, open_store
from tasks.storage import digest_of, file_digest, scratch

logger = logging.getLogger(__name__)


def find_all(config: IngestConfig, golden: GoldenConfig) -> Sources:
    """Every file of a run; raises MissingFileError at once for a source without one."""
    return Sources(
        rows=tuple(find(source) for source in config.sources), golden=find(golden.source)
    )


def find(source: SourceConfig) -> tuple[SourceFile, ...]:
    """The files of a source in order: of the hub when named and online, else of ``path``.

    What must be exported from a service is downloaded here, and kept in the store.
    """
    if source.label_studio_url is not None:
        return (_of_label_studio(source),)
    if source.collected is not None:
        return _of_webhook(source.collected)
    if source.hub is not None and (found := _of_hub(source)):
        return (found,)
    if source.path is None:
        return ()
    if source.path.startswith("s3://"):
        return find_objects(source.path)
    return _of_path(source, source.path)


def pin(store: Store, name: str, path: Path) -> SourceFile:
    """A file that was downloaded from elsewhere, kept in the store under its digest."""
    digest, size = _measured(path)
    key = f"ingest/downloads/{digest}"
    if store.size(key) != size:
        store.put(key, path)
    return SourceFile(kind="stored", name=name, place=key, digest=digest, size=size)


@contextmanager
def local_copy(file: SourceFile) -> Iterator[Path]:
    """The file on this machine; one that lies elsewhere is fetched, and gone again in the end."""
    if file.kind not in ("s3", "stored"):
        yield Path(file.place)
        return
    with scratch() as folder:
        target = folder / "source"
        if file.kind == "s3":
            fetch_object(file, target)
        else:
            open_store().get(file.place, target)
        yield target


def data_places() -> list[Path]:
    """Where relative data paths are looked up: RETUNE_DATA, RETUNE_HOME, the working folder."""
    named = [os.environ.get("RETUNE_DATA"), os.environ.get("RETUNE_HOME")]
    return [Path(name) for name in named if name] + [Path.cwd()]


def _of_path(source: SourceConfig, path: str) -> tuple[SourceFile, ...]:
    absolute = Path(path)
    if absolute.is_absolute():
        base = _fixed_part(absolute)
        found = _matching(base, absolute.relative_to(base).as_posix())
        if not found:
            raise MissingFileError(f"Source {path!r}: no such file.")
        return tuple(_local(source, base, p) for p in found)
    for place in data_places():
        if found := _matching(place, path):
            return tuple(_local(source, place, p) for p in found)
    looked = ", ".join(str(place) for place in data_places())
    raise MissingFileError(
        f"Source {path!r}: no such file in {looked}. Set RETUNE_DATA to the folder that holds it, "
        "or give an absolute path."
    )


def _fixed_part(path: Path) -> Path:
    """The longest folder of a path that is there by that very name; the rest may be a glob."""
    return next(parent for parent in path.parents if parent.is_dir())


def _matching(place: Path, pattern: str) -> list[Path]:
    """The file or folder of that very name, which may hold brackets, else what the glob matches."""
    if (place / pattern).exists():
        return [place / pattern]
    try:
        return sorted(p for p in place.glob(pattern) if p.is_file())
    except ValueError as error:
        raise ConfigError(f"Source {pattern!r}: {error}. Write folders/**/*.jsonl.") from error


def _local(source: SourceConfig, place: Path, path: Path) -> SourceFile:
    name = path.relative_to(place).as_posix()
    if path.is_dir():
        return _saved(source, name, path)
    try:
        digest, size = _measured(path)
    except OSError as error:
        raise DataError(f"{name}: cannot be read: {error.strerror}. Check its owner.") from error
    return SourceFile(kind="local", name=name, place=str(path), digest=digest, size=size)


def _saved(source: SourceConfig, name: str, folder: Path) -> SourceFile:
    """A data set in the layout of ``save_to_disk``, or the split of one that holds several."""
    if (folder / "dataset_dict.json").is_file():
        splits = sorted(p.parent.name for p in folder.glob("*/state.json"))
        if source.hub_split not in splits:
            raise DataError(
                f"{name}: expected the split {source.hub_split!r}, came {', '.join(splits)}. "
                "Set the source's hub_split."
            )
        folder, name = folder / source.hub_split, f"{name}/{source.hub_split}"
    if not (folder / "state.json").is_file():
        raise DataError(
            f"{name}: expected a file or a saved data set, came a folder. Give a glob such as "
            f"{name}/*.jsonl."
        )
    files = sorted(p for p in folder.iterdir() if p.is_file())
    digest = digest_of([[p.name, file_digest(p)] for p in files])
    size = sum(p.stat().st_size for p in files)
    return SourceFile(kind="saved", name=name, place=str(folder), digest=digest, size=size)


def _of_label_studio(source: SourceConfig) -> SourceFile:
    url, project = str(source.label_studio_url), source.label_studio_project or 0
    with scratch() as folder:
        download_export(url, project, api_key(), folder / "export.json")
        return pin(open_store(), f"label-studio-{project}.json", folder / "export.json")


def _of_webhook(hook: Hook) -> tuple[SourceFile, ...]:
    """The rows as they stand now; none before the first event."""
    store = open_store()
    number = collected.newest_number(store, hook)
    rows = collected.ready(collected.load(store, hook, number).rows.values())
    if not rows:
        logger.info("find_sources: no webhook of %s brought rows yet", hook)
        return ()
    with scratch() as folder:
        path = folder / f"{hook}.jsonl"
        with path.open("w", encoding="utf-8") as file:
            file.writelines(f"{json.dumps(row.row, ensure_ascii=False)}\n" for row in rows)
        return (pin(store, path.name, path).model_copy(update={"generation": number}),)


def _of_hub(source: SourceConfig) -> SourceFile | None:
    """The data set at a commit; None when files are to stand in for a hub out of reach."""
    online = os.environ.get("HF_HUB_OFFLINE", "0") != "1"
    if not online and source.path is not None:
        return None
    revision = _commit(source) if online else source.hub_revision
    if online and revision is None and source.path is not None:
        return None
    # What is not pinned may change: no run takes it for what an earlier one read.
    pinned = revision or source.hub_revision or f"unpinned-{uuid.uuid4().hex}"
    wanted = revision or source.hub_revision or ""
    return SourceFile(
        kind="hub",
        name=f"hub:{source.hub}",
        place=f"{source.hub}@{wanted}#{source.hub_split}",
        digest=f"{pinned}#{source.hub_split}",
    )


def _commit(source: SourceConfig) -> str | None:
    import httpx
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        found = HfApi().dataset_info(str(source.hub), revision=source.hub_revision, timeout=20)
    except (OSError, HfHubHTTPError, OfflineModeIsEnabled, httpx.HTTPError) as error:
        instead = f"; reading {source.path} instead" if source.path else ""
        logger.warning("the hub did not give %s (%s)%s", source.hub, error, instead)
        return None
    return str(found.sha)


def _measured(path: Path) -> tuple[str, int]:
    """SHA-256 and size of the same bytes, should the file be growing."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
            size += len(chunk)
    return digest.hexdigest(), size
