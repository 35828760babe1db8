"""Rows of token ids -> padded batches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from datasets import Dataset

from tasks.errors import DataError

IGNORED = -100


def load_split(folder: Path, split: str) -> Dataset:
    """The rows of a split with ``input_ids``, ``labels`` and ``length``, as TRL's trainer reads."""
    table = pq.read_table(folder / f"{split}.parquet", columns=["input_ids", "labels"])
    rows: dict[str, list[list[int]]] = table.to_pydict()
    for number, labels in enumerate(rows["labels"]):
        if all(label == IGNORED for label in labels):
            raise DataError(f"{split} row {number}: every label is masked; nothing to learn from.")
    return Dataset.from_dict({**rows, "length": [len(ids) for ids in rows["input_ids"]]})


def collate(rows: Sequence[dict[str, Any]], pad_token_id: int) -> dict[str, torch.Tensor]:
    """Right-padded ``input_ids``, ``attention_mask`` and ``labels``, each (rows, longest row)."""
    longest = max(len(row["input_ids"]) for row in rows)
    shape = (len(rows), longest)
    batch = {
        "input_ids": torch.full(shape, pad_token_id),
        "attention_mask": torch.zeros(shape, dtype=torch.long),
        "labels": torch.full(shape, IGNORED),
    }
    for number, row in enumerate(rows):
        length = len(row["input_ids"])
        batch["input_ids"][number, :length] = torch.tensor(row["input_ids"])
        batch["attention_mask"][number, :length] = 1
        batch["labels"][number, :length] = torch.tensor(row["labels"])
    return batch
