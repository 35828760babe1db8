"""The stages ``synthesize`` and ``publish`` as Prefect sees them.

Neither is cached: replies are, in the store, so that a repeated run costs nothing and goes on where
a budget, a kill or a failure stopped the last one.
"""

from __future__ import annotations

import json
import logging
import os

import pyarrow.parquet as pq
from prefect.artifacts import create_markdown_artifact

from tasks.anthropic_client import make_client
from tasks.artifacts import CleanDataset, GoldenSet, SyntheticSet, TaskConfig
from tasks.example import from_table
from tasks.objects import open_store
from tasks.stage import stage
from tasks.storage import commit, fetch, scratch
from tasks.synthesize import pipeline
from tasks.synthesize.config import SynthesizeConfig
from tasks.synthesize.markdown import markdown
from tasks.synthesize.prompts import WRITE_EXAMPLES

logger = logging.getLogger(__name__)


@stage("synthesize", timeout_seconds=48 * 3600, cached=False)
def synthesize_examples(
    dataset: CleanDataset, golden: GoldenSet, config: SynthesizeConfig, task: TaskConfig
) -> SyntheticSet:
    """Write new examples from the human rows of the training split, and keep the good ones."""
    store = open_store()
    table = pq.read_table(fetch(store, dataset.uri, dataset.digest) / "examples.parquet")
    held_out = pq.read_table(fetch(store, golden.uri, golden.digest) / "examples.parquet")
    rows, splits = from_table(table), table.column("split").to_pylist()
    with make_client(os.environ) as client, scratch() as folder:
        made = pipeline.synthesize_examples(
            rows, splits, from_table(held_out), config, task, client, store
        )
        pipeline.write(made, folder)
        uri, digest = commit(store, "synthesize", folder)
    return SyntheticSet(
        uri=uri,
        digest=digest,
        num_in=made.num_seeds,
        num_out=len(made.accepted),
        prompt=f"{WRITE_EXAMPLES.name} v{WRITE_EXAMPLES.version}",
        prompt_digest=WRITE_EXAMPLES.digest,
        num_generated=made.num_generated,
        num_rejected=made.num_rejected,
        num_leaked=made.num_leaked,
        num_failed_calls=made.failed_calls,
        spent_usd=round(made.spent_usd, 6),
        status=made.status,
        diversity=made.diversity.verdict,
    )


@stage("publish", timeout_seconds=600, cached=False)
def publish(made: SyntheticSet, name: str) -> str | None:
    """Put the rows where the next run's ingest finds them, and say in the UI what was made."""
    store = open_store()
    folder = fetch(store, made.uri, made.digest)
    published = pipeline.publish(store, name, (folder / "examples.jsonl").read_bytes())
    stats = json.loads((folder / "stats.json").read_text(encoding="utf-8"))
    told = markdown(name, made, stats, published)
    logger.info("%s", told)
    create_markdown_artifact(told, key=f"synthetic-{name}".lower())
    return published
