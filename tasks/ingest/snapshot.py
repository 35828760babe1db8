"""Sources -> one snapshot, of parts known or read anew; the golden set, strictly."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq

from tasks.artifacts import SourceFile, TaskConfig
from tasks.errors import DataError, GoldenSetChangedError
from tasks.example import Example, to_table
from tasks.ingest.assemble import SnapshotCounts, SourceParts, assemble, least_ids
from tasks.ingest.config import GoldenConfig, IngestConfig, SourceConfig
from tasks.ingest.examples import batches_of, examples_of
from tasks.ingest.files import find, local_copy
from tasks.ingest.parts import QUARANTINE, Keep, Parts
from tasks.ingest.readers import read_file
from tasks.ingest.rows import BadRow
from tasks.objects import Store
from tasks.storage import digest_of, file_digest, scratch

logger = logging.getLogger(__name__)


def write_snapshot(
    files: Sequence[Sequence[SourceFile]],
    config: IngestConfig,
    parts: Parts,
    folder: Path,
    keep: Keep | None = None,
    keep_quarantined: Keep | None = None,
) -> SnapshotCounts:
    """Read the files of every source into ``folder``; those known from earlier runs are not read.

    Raises DataError when nothing is readable or more than the configured share is not.
    """
    with scratch() as making:
        sources = []
        for source, found in zip(config.sources, files, strict=True):
            made = [parts.of(file, source, making) for file in found]
            num_new, num_rows = (sum(getattr(p, n) for p in made) for n in ("num_new", "num_rows"))
            logger.info(
                "ingest %s: %d rows read anew, %d known from earlier runs",
                source.place, num_new, num_rows - num_new,
            )  # fmt: skip
            sources.append(SourceParts(made, source.limit))
        counts = assemble(sources, folder, keep, keep_quarantined)
    _check_share(counts, folder, config.max_quarantined_share)
    return counts


def read_source(
    source: SourceConfig, task: TaskConfig, files: Sequence[SourceFile] | None = None
) -> tuple[list[Example], list[BadRow]]:
    """The examples of one small source, and the rows that did not become one, all in memory."""
    good: list[Example] = []
    bad: list[BadRow] = []
    for file in find(source) if files is None else files:
        for batch in batches_of(examples_of(read_file(file, source), source, task)):
            good += batch.examples
            bad += batch.quarantined
    if source.limit is not None and len(good) > source.limit:
        good = [good[place] for place in least_ids([to_table(good)], source.limit)]
    return good, bad


def read_golden(
    config: GoldenConfig, task: TaskConfig, files: Sequence[SourceFile] | None = None
) -> list[Example]:
    """The golden rows; raises DataError for any row that is unreadable, repeated or unanswered."""
    files = find(config.source) if files is None else files
    _check_file(config, files)
    examples, bad = read_source(config.source, task, files)
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
        said = last and (last[0].content.strip() or last[0].tool_calls)
        if not said or last[0].role != "assistant":
            raise DataError(
                f"Golden set {config.name!r}: expected every row to end with the right answer; "
                f"{example.meta['file']}:{example.meta['line']} does not. Mend the file."
            )
    return examples


def rows_digest(examples: list[Example]) -> str:
    """Digest of what the golden rows ask and answer; the system prompt may change, they may not."""
    return digest_of(sorted([e.prompt, e.answer, *_calls_and_tools(e)] for e in examples))


def _calls_and_tools(example: Example) -> list[str]:
    """Nothing for a row without tools, whose lock may be older than they are here."""
    texts = [(f"calls {i}", m.tool_calls) for i, m in enumerate(example.messages)]
    texts += [(f"answers {i}", m.tool_call_id) for i, m in enumerate(example.messages)]
    named = [*texts, ("tools", example.tools)]
    return [f"{name}: {text}" for name, text in named if text is not None]


def lock(store: Store, model: str, config: GoldenConfig, digest: str) -> None:
    """Lock the golden set under its name and version, or check it against the lock.

    The lock is written once, with If-None-Match, and tells when and why. Raises
    GoldenSetChangedError when the rows differ from those that were locked, or the share that is
    sealed.
    """
    key = f"golden/{model}/{config.name}-v{config.version}.lock.json"
    date = datetime.now(UTC).isoformat(timespec="seconds")
    share = config.sealed_share
    made = {"rows_digest": digest, "date": date, "reason": config.reason, "sealed_share": share}
    store.put_bytes(key, json.dumps(made).encode(), if_absent=True)
    found = json.loads(store.get_bytes(key))
    locked, locked_share = found["rows_digest"], found.get("sealed_share", 0.0)
    if locked != digest:
        raise GoldenSetChangedError(
            f"Golden set {config.name!r} version {config.version} was locked with digest "
            f"{locked[:12]}, the file now has {digest[:12]}. Restore the file, or, if the change "
            f"is meant, set golden.version to {config.version + 1} and golden.reason: scores "
            "before and after cannot be compared."
        )
    if locked_share != share:
        raise GoldenSetChangedError(
            f"Golden set {config.name!r} version {config.version} was locked with "
            f"golden.sealed_share {locked_share:g}, the config now has {share:g}: rows that were "
            "looked at cannot be sealed, nor sealed ones opened. Restore the share, or collect "
            f"fresh rows and set golden.version to {config.version + 1} and golden.reason."
        )


def _check_file(config: GoldenConfig, files: Sequence[SourceFile]) -> None:
    if config.sha256 is None:
        return
    found = [_sha256(file) for file in files]
    if found != [config.sha256]:
        raise GoldenSetChangedError(
            f"Golden set {config.name!r}: expected one file with SHA-256 {config.sha256[:12]}, "
            f"came {', '.join(d[:12] for d in found)}. Restore the file, or set golden.version and "
            "golden.sha256 anew if the change is meant."
        )


def _sha256(file: SourceFile) -> str:
    if file.kind != "s3":
        return file.digest
    with local_copy(file) as path:
        return file_digest(path)


def _check_share(counts: SnapshotCounts, folder: Path, share: float) -> None:
    bad, total = counts.num_quarantined, counts.num_read
    if total == 0:
        raise DataError("The sources hold no rows. Check `path`, `where` and `limit`.")
    if bad > share * total:
        with pq.ParquetFile(folder / QUARANTINE) as quarantine:
            first = next(quarantine.iter_batches(batch_size=1)).to_pylist()[0]
        raise DataError(
            f"{bad} of {total} rows cannot be read, more than the allowed share of {share:g} "
            f"({', '.join(f'{r}: {n}' for r, n in counts.by_reason.items())}). First: "
            f"{first['file']}:{first['line']} {first['field'] or ''}: {first['detail']}. Mend the "
            "rows or raise ingest.max_quarantined_share."
        )
