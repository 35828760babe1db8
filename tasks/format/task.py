"""The stage ``format`` as Prefect sees it."""

from __future__ import annotations

import pyarrow.parquet as pq

from tasks.artifacts import BaseModelRef, CleanDataset, FormattedDataset
from tasks.base_model import load_tokenizer
from tasks.example import from_table
from tasks.format.config import FormatConfig
from tasks.format.dataset import format_examples, write
from tasks.objects import open_store
from tasks.stage import stage
from tasks.storage import commit, fetch, scratch


@stage("format", timeout_seconds=3600, libraries=("transformers", "tokenizers"))
def format_dataset(
    dataset: CleanDataset, base_model: BaseModelRef, config: FormatConfig
) -> FormattedDataset:
    """Render every example with the base model's template; labels on the answers alone."""
    store = open_store()
    table = pq.read_table(fetch(store, dataset.uri, dataset.digest) / "examples.parquet")
    tokenizer = load_tokenizer(base_model)
    splits = table.column("split").to_pylist()
    formatted = format_examples(from_table(table), splits, tokenizer, config)
    with scratch() as folder:
        write(formatted, folder)
        uri, digest = commit(store, "format", folder)
    train, validation = formatted.rows["train"], formatted.rows["validation"]
    return FormattedDataset(
        uri=uri,
        digest=digest,
        num_in=dataset.num_train + dataset.num_validation,
        num_out=len(train) + len(validation),
        base_model=base_model,
        num_train=len(train),
        num_validation=len(validation),
        num_rejected=formatted.num_rejected,
        num_tokens=sum(len(r.input_ids) for _, r in train),
        num_trained_tokens=sum(r.num_trained for _, r in train),
        max_length=max(len(r.input_ids) for _, r in [*train, *validation]),
    )
