"""New examples from human ones: generated, deduplicated, judged, measured, published for ingest.

Started by hand from the Prefect UI, or by ``make synthesize``. Run again to go on after a kill or
with another budget: nothing is paid twice.
"""

from __future__ import annotations

from prefect import flow

from flows.config import SynthesisConfig
from flows.record import run_name
from tasks.artifacts import SyntheticSet
from tasks.base_model import pin
from tasks.clean.task import clean
from tasks.ingest.task import find_sources, ingest, lock_golden
from tasks.synthesize.task import publish, synthesize_examples


@flow(
    name="synthesize",
    flow_run_name=run_name,
    result_storage="s3-bucket/retune",
    result_serializer="json",
    persist_result=True,
)
def synthesize(config: SynthesisConfig) -> SyntheticSet:
    """Write examples from the clean human rows of the training split.

    Cleaning comes first: seeds leave this machine, so they must be redacted, and none may be held
    out.
    """
    base_model = pin(config.base_model)

    sources = find_sources(config.ingest, config.golden)
    raw = ingest(sources.rows, config.ingest, config.task)
    golden = lock_golden(sources.golden, config.golden, config.task, config.name)
    dataset = clean(raw, golden, base_model, config.clean, config.task)

    made = synthesize_examples(dataset, golden, config.synthesize, config.task)
    publish(made, config.name)
    return made
