"""The stage ``clean`` as Prefect sees it."""

from __future__ import annotations

from collections import Counter

import pyarrow.parquet as pq

from tasks.artifacts import CleanDataset, GoldenSet, RawSnapshot, TaskConfig
from tasks.clean.config import CleanConfig
from tasks.clean.pipeline import clean_examples, write
from tasks.example import from_table
from tasks.objects import open_store
from tasks.stage import stage
from tasks.storage import commit, fetch, scratch


@stage(
    "clean",
    timeout_seconds=4 * 3600,
    libraries=("datasketch", "presidio-analyzer", "spacy", "jsonschema"),
)
def clean(
    raw: RawSnapshot, golden: GoldenSet, config: CleanConfig, task: TaskConfig
) -> CleanDataset:
    """Reject what cannot be trusted, redact what is private, split what is left by group."""
    store = open_store()
    examples = from_table(pq.read_table(fetch(store, raw.uri, raw.digest) / "examples.parquet"))
    held_out = fetch(store, golden.uri, golden.digest) / "examples.parquet"
    cleaned = clean_examples(examples, from_table(pq.read_table(held_out)), config, task)
    with scratch() as folder:
        write(cleaned, config, folder)
        uri, digest = commit(store, "clean", folder)
    sizes = Counter(cleaned.splits)
    return CleanDataset(
        uri=uri,
        digest=digest,
        num_in=len(examples),
        num_out=len(cleaned.examples),
        num_train=sizes["train"],
        num_validation=sizes["validation"],
        num_test=sizes["test"],
        num_rejected=cleaned.num_rejected,
        num_redacted=cleaned.num_redacted,
    )
