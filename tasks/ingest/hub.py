"""Hugging Face data sets, of the hub or of a saved folder -> rows, streamed from their Arrow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from tasks.errors import DataError
from tasks.ingest.parquet import BATCH, check_names, rows_of
from tasks.ingest.rows import BadRow, Row, printable


def read_hub(name: str, place: str, limit: int) -> Iterator[Row | BadRow]:
    """A data set of the hub; ``place`` is its id, commit and split as ``id@commit#split``."""
    import datasets
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    where, split = place.rsplit("#", 1)
    identifier, _, revision = where.partition("@")
    try:
        rows = datasets.load_dataset(identifier, split=split, revision=revision or None)
    except (OSError, HfHubHTTPError, OfflineModeIsEnabled) as error:
        raise DataError(
            f"Data set {identifier!r}: the hub did not give it ({error}). Give a file as `path` "
            "beside `hub`, or set HF_HUB_OFFLINE=0 on a machine with internet."
        ) from error
    yield from _streamed(name, rows, limit)


def read_saved(name: str, folder: Path, limit: int) -> Iterator[Row | BadRow]:
    """A data set that ``datasets.save_to_disk`` wrote; raises DataError when it is not whole."""
    import datasets

    try:
        rows = datasets.load_from_disk(str(folder))
        yield from _streamed(name, rows, limit)
    except (OSError, pa.ArrowException, ValueError, KeyError, TypeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{name}: expected a saved data set, came {printable(str(error))}. Save it anew with "
            "save_to_disk."
        ) from error


def _streamed(name: str, rows: Any, limit: int) -> Iterator[Row | BadRow]:
    features = rows.features
    check_names(name, features.arrow_schema)
    batches = rows.with_format("arrow").iter(batch_size=BATCH)
    labels = {key: feature for key, feature in features.items() if hasattr(feature, "int2str")}
    for row in rows_of(name, batches, limit):
        if isinstance(row, Row) and labels:
            named = {key: _label(labels[key], row.values[key]) for key in labels}
            yield Row(row.file, row.line, {**row.values, **named}, row.raw)
        else:
            yield row


def _label(feature: Any, value: int | None) -> str | None:
    """A class label by name: the data set stores its number, -1 where there is none."""
    return None if value is None or value == -1 else str(feature.int2str(value))
