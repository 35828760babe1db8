"""The stages ``find_sources``, ``ingest`` and ``lock_golden`` as Prefect sees them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.artifacts import GoldenSet, RawSnapshot, SourceFile, Sources, TaskConfig
from tasks.golden_rows import golden_table
from tasks.ingest.config import GoldenConfig, IngestConfig
from tasks.ingest.files import find_all
from tasks.ingest.parts import Parts
from tasks.ingest.snapshot import lock, read_golden, rows_digest, write_snapshot
from tasks.objects import open_store
from tasks.stage import stage
from tasks.storage import commit, scratch
from tasks.tombstones import Tombstones


def _forgotten(arguments: Mapping[str, Any]) -> str | None:
    """A tombstone makes a snapshot anew, but no part of one: their key is asked without inputs."""
    return Tombstones.load(open_store()).digest if arguments else None


@stage("find_sources", timeout_seconds=3600, cached=False)
def find_sources(config: IngestConfig, golden: GoldenConfig) -> Sources:
    """Find every file of the run and pin its version; a missing one fails at once."""
    return find_all(config, golden)


@stage(
    "ingest",
    timeout_seconds=3600,
    libraries=("pyarrow", "jinja2", "datasets"),
    depends=_forgotten,
)
def ingest(
    files: tuple[tuple[SourceFile, ...], ...], config: IngestConfig, task: TaskConfig
) -> RawSnapshot:
    """Read what is new in every source into one immutable snapshot, bad rows to its quarantine."""
    store = open_store()
    tombstones = Tombstones.load(store)

    def keep(table: pa.Table) -> npt.NDArray[np.bool_]:
        return ~tombstones.matches(table)

    # Its key without inputs says by what code and libraries a part was made.
    parts = Parts(store, task, ingest.cache_key({}), keep)
    with scratch() as folder:
        counts = write_snapshot(files, config, parts, folder, keep, keep)
        uri, digest = commit(store, "ingest", folder)
    return RawSnapshot(
        uri=uri,
        digest=digest,
        num_in=counts.num_read,
        num_out=counts.num_read - counts.num_quarantined,
        num_quarantined=counts.num_quarantined,
        num_quarantined_by_reason=counts.by_reason,
        num_excluded_by_reason=counts.num_excluded,
        num_by_source=counts.by_source,
        num_new=counts.num_new,
        num_forgotten=counts.num_forgotten + parts.num_left_out,
    )


@stage("lock_golden", timeout_seconds=600, libraries=("pyarrow", "jinja2", "datasets"))
def lock_golden(
    files: tuple[SourceFile, ...], config: GoldenConfig, task: TaskConfig, model: str
) -> GoldenSet:
    """Read the golden set, and lock it by digest or refuse it if it changed under its version."""
    store = open_store()
    examples = read_golden(config, task, files)
    digest_of_rows = rows_digest(examples)
    lock(store, model, config, digest_of_rows)
    with scratch() as folder:
        table = golden_table(examples, config.sealed_share)
        pq.write_table(table, folder / "examples.parquet")
        uri, digest = commit(store, "golden", folder)
    return GoldenSet(
        uri=uri,
        digest=digest,
        num_in=len(examples),
        num_out=len(examples),
        model=model,
        name=config.name,
        version=config.version,
        rows_digest=digest_of_rows,
        num_sealed=pc.sum(table["sealed"]).as_py(),
    )
