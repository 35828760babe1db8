"""The stage ``format`` as Prefect sees it."""

from __future__ import annotations

import json

import pyarrow.parquet as pq

from tasks.artifacts import BaseModelRef, CleanDataset, FormattedDataset
from tasks.base_model import load_tokenizer, locate, stop_ids
from tasks.example import from_table
from tasks.format.config import FormatConfig
from tasks.format.dataset import format_examples, write
from tasks.format.probes import write_probes
from tasks.format.statistics import statistics
from tasks.format.template import Template, check_max_length
from tasks.objects import open_store
from tasks.stage import stage
from tasks.storage import commit, fetch, scratch


@stage("format", timeout_seconds=3600, libraries=("transformers", "tokenizers", "trl"))
def format_dataset(
    dataset: CleanDataset, base_model: BaseModelRef, config: FormatConfig
) -> FormattedDataset:
    """Render every example with the base model's template; labels on the answers alone."""
    store = open_store()
    table = pq.read_table(fetch(store, dataset.uri, dataset.digest) / "examples.parquet")
    check_max_length(locate(base_model.id, base_model.revision), config.max_length)
    template = Template(load_tokenizer(base_model), stop_ids(base_model))
    examples, splits = from_table(table), table.column("split").to_pylist()
    formatted = format_examples(examples, splits, template, config)
    with scratch() as output:
        write(formatted, output)
        write_probes(examples, splits, template, config.max_length, output)
        stats = statistics(formatted, template, config)
        (output / "stats.json").write_text(json.dumps(stats, indent=1), encoding="utf-8")
        uri, digest = commit(store, "format", output)
    train, validation = formatted.rows["train"], formatted.rows["validation"]
    return FormattedDataset(
        uri=uri,
        digest=digest,
        num_in=formatted.num_examples,
        num_out=len(train) + len(validation),
        base_model=base_model,
        examples_uri=dataset.uri,
        examples_digest=dataset.digest,
        num_train=len(train),
        num_validation=len(validation),
        num_rejected=formatted.num_rejected,
        num_tokens=sum(len(r.input_ids) for _, r in train),
        num_trained_tokens=sum(r.num_trained for _, r in train),
        max_length=max(len(r.input_ids) for _, r in [*train, *validation]),
    )
