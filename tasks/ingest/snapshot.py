"""Sources -> ``examples.parquet`` and ``quarantine.parquet``; the golden set, strictly."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.artifacts import TaskConfig
from tasks.errors import DataError, GoldenSetChangedError
from tasks.example import Example, to_table
from tasks.ingest.config import GoldenConfig, IngestConfig, SourceConfig
from tasks.ingest.mapping import check_columns, is_wanted, to_example
from tasks.ingest.readers import BadRow, Row, read
from tasks.objects import Store
from tasks.storage import digest_of, file_digest

logger = logging.getLogger(__name__)

QUARANTINE_SCHEMA = pa.schema(
    [
        ("file", pa.string()),
        ("line", pa.int64()),
        ("field", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("raw", pa.binary()),
    ]
)


@dataclass(frozen=True, slots=True)
class SnapshotCounts:
    """How many rows were read, by source, and how many could not be."""

    num_read: int
    num_quarantined: int
    by_source: dict[str, int]


def write_snapshot(config: IngestConfig, task: TaskConfig, folder: Path) -> SnapshotCounts:
    """Read every source into ``folder``.

    Raises DataError when nothing is readable or more than the configured share is not.
    """
    examples: list[Example] = []
    quarantined: list[BadRow] = []
    for source in config.sources:
        good, bad = read_source(source, task)
        examples += good
        quarantined += bad
        name = source.path or source.hub
        logger.info("ingest %s: %d rows, %d quarantined", name, len(good), len(bad))
    pq.write_table(to_table(examples), folder / "examples.parquet")
    rows = [asdict(row) for row in quarantined]
    pq.write_table(pa.Table.from_pylist(rows, QUARANTINE_SCHEMA), folder / "quarantine.parquet")
    _check_share(len(examples), quarantined, config.max_quarantined_share)
    by_source = dict(Counter(e.source for e in examples))
    return SnapshotCounts(len(examples) + len(quarantined), len(quarantined), by_source)


def read_source(source: SourceConfig, task: TaskConfig) -> tuple[list[Example], list[BadRow]]:
    """The examples of one source and the rows that did not become one."""
    good: list[Example] = []
    bad: list[BadRow] = []
    for row in _with_columns_checked(read(source), source):
        if isinstance(row, Row) and not is_wanted(row, source):
            continue
        made = row if isinstance(row, BadRow) else to_example(row, source, task)
        if isinstance(made, BadRow):
            bad.append(made)
        else:
            good.append(made)
    return _limited(good, source.limit), bad


def read_golden(config: GoldenConfig, task: TaskConfig) -> list[Example]:
    """The golden rows; raises DataError for any row that is unreadable, repeated or unanswered."""
    _check_file(config)
    examples, bad = read_source(config.source, task)
    if bad:
        first = bad[0]
        raise DataError(
            f"Golden set {config.name!r}: {len(bad)} unreadable rows; {first.file}:{first.line} "
            f"{first.field or ''}: {first.reason}, {first.detail}. Mend the file."
        )
    if not examples:
        raise DataError(f"Golden set {config.name!r} is empty: nothing could decide a promotion.")
    repeated = [i for i, n in Counter(e.id for e in examples).items() if n > 1]
    if repeated:
        twice = [f"{e.meta['file']}:{e.meta['line']}" for e in examples if e.id == repeated[0]]
        raise DataError(f"Golden set {config.name!r}: the same row stands at {', '.join(twice)}.")
    for example in examples:
        last = example.messages[-1:]
        if not last or last[0].role != "assistant" or not last[0].content.strip():
            raise DataError(
                f"Golden set {config.name!r}: expected every row to end with the right answer; "
                f"{example.meta['file']}:{example.meta['line']} does not. Mend the file."
            )
    return examples


def rows_digest(examples: list[Example]) -> str:
    """Digest of what the golden rows ask and answer; the system prompt may change, they may not."""
    return digest_of(sorted([e.prompt, e.answer] for e in examples))


def lock(store: Store, model: str, config: GoldenConfig, digest: str) -> None:
    """Lock the golden set under its name and version, or check it against the lock.

    The lock is written once, with If-None-Match. Raises GoldenSetChangedError when the rows differ
    from those that were locked.
    """
    key = f"golden/{model}/{config.name}-v{config.version}.lock.json"
    store.put_bytes(key, json.dumps({"rows_digest": digest}).encode(), if_absent=True)
    locked = json.loads(store.get_bytes(key))["rows_digest"]
    if locked != digest:
        raise GoldenSetChangedError(
            f"Golden set {config.name!r} version {config.version} was locked with digest "
            f"{locked[:12]}, the file now has {digest[:12]}. Restore the file, or, if the change "
            f"is meant, set golden.version to {config.version + 1}: scores before and after "
            "cannot be compared."
        )


def _check_file(config: GoldenConfig) -> None:
    if config.sha256 is None:
        return
    found = [file_digest(path) for _, path in config.source.files()]
    if found != [config.sha256]:
        raise GoldenSetChangedError(
            f"Golden set {config.name!r}: expected one file with SHA-256 {config.sha256[:12]}, "
            f"came {', '.join(d[:12] for d in found)}. Restore the file, or set golden.version and "
            "golden.sha256 anew if the change is meant."
        )


def _with_columns_checked(
    rows: Iterator[Row | BadRow], source: SourceConfig
) -> Iterator[Row | BadRow]:
    checked: set[str] = set()
    for row in rows:
        if isinstance(row, Row) and row.file not in checked:
            checked.add(row.file)
            check_columns(row, source)
        yield row


def _limited(examples: list[Example], limit: int | None) -> list[Example]:
    """The ``limit`` examples of least id: a sample that does not depend on the files' order."""
    if limit is None or len(examples) <= limit:
        return examples

    def key(index: int) -> tuple[str, list[str], str]:
        example = examples[index]
        return example.id, [m.content for m in example.messages], example.group

    kept = sorted(sorted(range(len(examples)), key=key)[:limit])
    return [examples[index] for index in kept]


def _check_share(num_good: int, quarantined: list[BadRow], share: float) -> None:
    total = num_good + len(quarantined)
    if total == 0:
        raise DataError("The sources hold no rows. Check `path`, `where` and `limit`.")
    if len(quarantined) > share * total:
        counts = Counter(row.reason for row in quarantined)
        first = quarantined[0]
        raise DataError(
            f"{len(quarantined)} of {total} rows cannot be read, more than the allowed share of "
            f"{share:g} ({', '.join(f'{r}: {n}' for r, n in counts.most_common())}). First: "
            f"{first.file}:{first.line} {first.field or ''}: {first.detail}. Mend the rows or "
            "raise ingest.max_quarantined_share."
        )
