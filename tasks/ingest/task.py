"""The stages ``ingest`` and ``lock_golden`` as Prefect sees them."""

from __future__ import annotations

import pyarrow.parquet as pq

from tasks.artifacts import GoldenSet, RawSnapshot, TaskConfig
from tasks.example import to_table
from tasks.ingest.config import GoldenConfig, IngestConfig
from tasks.ingest.snapshot import lock, read_golden, rows_digest, write_snapshot
from tasks.objects import open_store
from tasks.stage import stage
from tasks.storage import commit, scratch


@stage("ingest", timeout_seconds=3600, libraries=("pyarrow", "jinja2"))
def ingest(config: IngestConfig, task: TaskConfig) -> RawSnapshot:
    """Read every source into one immutable snapshot; unreadable rows go to its quarantine."""
    with scratch() as folder:
        counts = write_snapshot(config, task, folder)
        uri, digest = commit(open_store(), "ingest", folder)
    return RawSnapshot(
        uri=uri,
        digest=digest,
        num_in=counts.num_read,
        num_out=counts.num_read - counts.num_quarantined,
        num_quarantined=counts.num_quarantined,
        num_by_source=counts.by_source,
    )


@stage("lock_golden", timeout_seconds=600, libraries=("pyarrow", "jinja2"))
def lock_golden(config: GoldenConfig, task: TaskConfig, model: str) -> GoldenSet:
    """Read the golden set, and lock it by digest or refuse it if it changed under its version."""
    store = open_store()
    examples = read_golden(config, task)
    digest_of_rows = rows_digest(examples)
    lock(store, model, config, digest_of_rows)
    with scratch() as folder:
        pq.write_table(to_table(examples), folder / "examples.parquet")
        uri, digest = commit(store, "golden", folder)
    return GoldenSet(
        uri=uri,
        digest=digest,
        num_in=len(examples),
        num_out=len(examples),
        name=config.name,
        version=config.version,
        rows_digest=digest_of_rows,
    )
