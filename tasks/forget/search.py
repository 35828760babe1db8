"""Objects of a store -> those that hold what is sought, row by row, a batch in memory at a time."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.errors import ArtifactMissingError
from tasks.forget.records import Place, RowHit
from tasks.objects import Store
from tasks.storage import scratch
from tasks.tombstones import PREFIX, Tombstones

logger = logging.getLogger(__name__)
RECORD = "forget.json"
_ROWS_A_BATCH = 4096
_BYTES_A_BLOCK, _BYTES_SHARED = 8 << 20, 64 << 10
_LINES = frozenset({".jsonl", ".ndjson", ".csv"})
_NO_ROWS = frozenset(
    {".safetensors", ".bin", ".pt", ".gguf", ".npy", ".png", ".jpg", ".gz", ".zst"}
)
# A tokenizer's vocabulary holds every common name.
_VOCABULARIES = frozenset(
    {"tokenizer.json", "tokenizer_config.json", "vocab.json", "vocab.txt", "merges.txt"}
)
_UNREADABLE = "cannot be read"


@dataclass(slots=True)
class Found:
    """What a search has come to so far."""

    places: list[Place] = field(default_factory=list)
    source_files: Counter[str] = field(default_factory=Counter)
    unread: Counter[str] = field(default_factory=Counter)
    num_objects: int = 0


def is_searched(key: str) -> bool:
    """Tombstones and the records of requests hold ids by their nature."""
    return not key.startswith(PREFIX) and not key.endswith(f"/{RECORD}")


def search(
    store: Store, keys: Iterable[str], sought: Tombstones, found: Found, *, local: bool = False
) -> None:
    """Add to ``found`` every object among ``keys`` with a row that holds what is sought."""
    for key in keys:
        found.num_objects += 1
        path = PurePosixPath(key)
        if path.suffix in _NO_ROWS or path.name in _VOCABULARIES:
            found.unread[path.suffix] += 1
            continue
        try:
            with scratch() as folder:
                store.get(key, folder / "object")
                place = _place(store, key, folder / "object", sought, found, local)
        except ArtifactMissingError:  # deleted since it was listed
            continue
        except pa.ArrowInvalid:
            logger.warning("forget: %s/%s is no Parquet file", store.root, key)
            found.unread[f"{path.suffix} ({_UNREADABLE})"] += 1
            continue
        if place.rows:
            found.places.append(place)
            logger.info("forget: %d rows of %s hold it", len(place.rows), place.uri)


def _place(
    store: Store, key: str, file: Path, sought: Tombstones, found: Found, local: bool
) -> Place:
    rows: list[RowHit] = []
    num_rows, origins = 0, Counter[str]()
    for batch in _batches(file, PurePosixPath(key).suffix):
        hits = np.flatnonzero(sought.matches(pa.Table.from_batches([batch])))
        held = batch.take(pa.array(hits))
        rows += _row_hits(held, [num_rows + int(i) for i in hits], PurePosixPath(key).stem)
        origins.update(_source_files(held, sought))
        num_rows += batch.num_rows
    found.source_files |= origins  # the most in one place: each week's snapshot holds them anew
    return Place(
        root=store.root,
        key=key,
        stage="local copy" if local else key.partition("/")[0],
        local=local,
        num_rows=num_rows,
        rows=rows,
    )


def _batches(file: Path, suffix: str) -> Iterator[pa.RecordBatch]:
    if suffix == ".parquet":
        yield from pq.ParquetFile(file).iter_batches(_ROWS_A_BATCH)
    elif suffix in _LINES:
        yield from map(_raw_rows, _blocks_of_lines(file))
    else:
        yield from (_raw_rows([block]) for block in _blocks(file))


def _raw_rows(rows: list[bytes]) -> pa.RecordBatch:
    return pa.record_batch({"raw": pa.array(rows, pa.large_binary())})


def _blocks_of_lines(file: Path) -> Iterator[list[bytes]]:
    with file.open("rb") as stream:
        while lines := stream.readlines(_BYTES_A_BLOCK):
            yield lines


def _blocks(file: Path) -> Iterator[bytes]:
    """A file in pieces that share a margin, so that what lies across a border is seen whole."""
    with file.open("rb") as stream:
        margin = b""
        while piece := stream.read(_BYTES_A_BLOCK):
            yield margin + piece
            margin = piece[-_BYTES_SHARED:]


def _row_hits(held: pa.RecordBatch, numbers: list[int], stem: str) -> list[RowHit]:
    ids = _texts(held, "id")
    by_file = stem if stem in {"train", "validation"} else None
    splits = [split or by_file for split in _texts(held, "split")]
    return [RowHit(row=n, id=i, split=s) for n, i, s in zip(numbers, ids, splits, strict=True)]


def _texts(batch: pa.RecordBatch, name: str) -> list[str | None]:
    if name not in batch.schema.names or not pa.types.is_string(batch.schema.field(name).type):
        return [None] * batch.num_rows
    values: list[str | None] = batch.column(name).to_pylist()
    return values


def _source_files(held: pa.RecordBatch, sought: Tombstones) -> Iterator[str]:
    """The files outside the store that the rows came from, unless a name is what is sought."""
    named = _texts(held, "file")
    for file, meta in zip(named, _texts(held, "meta"), strict=True):
        origin: Any = file or (json.loads(meta).get("file") if meta else None)
        if origin:
            yield "(a file whose name holds it)" if sought.matches_text(str(origin)) else origin
