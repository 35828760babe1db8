"""Rows of token ids -> what the trainer hands round, and what a model is given of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import pyarrow.parquet as pq
import torch
from datasets import Dataset

from tasks.errors import DataError

IGNORED = -100


class Row(TypedDict):
    """A row of a split: its number, its example's id, and token ids with labels of equal length."""

    row: int
    id: str
    input_ids: list[int]
    labels: list[int]


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows on their way to the model; the trainer may take them apart before they are padded."""

    rows: Sequence[Row]

    @property
    def numbers(self) -> list[int]:
        return [row["row"] for row in self.rows]

    def parts(self, size: int) -> list[Rows]:
        """The same rows, at most ``size`` at once."""
        starts = range(0, len(self.rows), size)
        return [Rows(self.rows[start : start + size]) for start in starts]


def load_split(folder: Path, split: str) -> Dataset:
    """The rows of a split with ``row``, ``id``, ``input_ids``, ``labels`` and ``length``.

    Raises DataError for a row with nothing to learn from.
    """
    table = pq.read_table(folder / f"{split}.parquet", columns=["id", "input_ids", "labels"])
    columns: dict[str, list[Any]] = table.to_pydict()
    for number, labels in enumerate(columns["labels"]):
        if all(label == IGNORED for label in labels[1:]):
            raise DataError(
                f"{split} row {number} (example {columns['id'][number][:12]}): every label is "
                "masked; nothing to learn from. Run format again, or take the example out."
            )
    lengths = [len(ids) for ids in columns["input_ids"]]
    return Dataset.from_dict({"row": range(len(lengths)), **columns, "length": lengths})


def collate(rows: Sequence[Row]) -> dict[str, Any]:
    """The rows as they are, and all their ``labels`` in a line, which transformers counts.

    Of each row the first is left out: nothing predicts it. Of the line transformers leaves out the
    first for that reason.
    """
    labels = [IGNORED, *(label for row in rows for label in row["labels"][1:])]
    return {"rows": Rows(rows), "labels": torch.tensor(labels)}


def pad(rows: Sequence[Row], pad_token_id: int) -> dict[str, torch.Tensor]:
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
