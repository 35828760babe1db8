"""Clean examples -> ``train.parquet`` and ``validation.parquet`` of token ids and labels."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.errors import DataError
from tasks.example import Example
from tasks.format.config import FormatConfig
from tasks.format.render import Rendered, render

logger = logging.getLogger(__name__)
TOKEN_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("input_ids", pa.list_(pa.int32())),
        ("labels", pa.list_(pa.int32())),
    ]
)


@dataclass(slots=True)
class Formatted:
    """Rendered rows by split, and those that broke a limit: (example id, reason, detail)."""

    rows: dict[str, list[tuple[str, Rendered]]]
    rejected: list[tuple[str, str, str]] = field(default_factory=list)

    @property
    def num_rejected(self) -> dict[str, int]:
        return dict(Counter(reason for _, reason, _ in self.rejected))


def format_examples(
    examples: Sequence[Example], splits: Sequence[str], tokenizer: Any, config: FormatConfig
) -> Formatted:
    """Render the examples of the splits that training reads.

    Raises TemplateError for a template that cannot be trained on, DataError when too many rows are
    over the limit or a split is left without rows.
    """
    result = Formatted({"train": [], "validation": []})
    special = set(tokenizer.all_special_ids)
    for example, split in zip(examples, splits, strict=True):
        if split not in result.rows:
            continue
        verdict = _smuggled(example, tokenizer, special)
        rendered = None if verdict else render(example.messages, tokenizer)
        if rendered and not verdict:
            verdict = _over_limit(rendered, config)
        if verdict:
            result.rejected.append((example.id, *verdict))
        elif rendered:
            result.rows[split].append((example.id, rendered))
    _check(result, config)
    return result


def write(formatted: Formatted, folder: Path) -> None:
    """One Parquet file a split, and ``rejected.parquet``."""
    for split, rows in formatted.rows.items():
        table = pa.table(
            {
                "id": [identity for identity, _ in rows],
                "input_ids": [r.input_ids for _, r in rows],
                "labels": [r.labels for _, r in rows],
            },
            schema=TOKEN_SCHEMA,
        )
        pq.write_table(table, folder / f"{split}.parquet")
    ids, reasons, details = (
        zip(*formatted.rejected, strict=True) if formatted.rejected else ((),) * 3
    )
    text = pa.string()
    rejected = {
        "id": pa.array(ids, text),
        "reason": pa.array(reasons, text),
        "detail": pa.array(details, text),
    }
    pq.write_table(pa.table(rejected), folder / "rejected.parquet")


def _over_limit(rendered: Rendered, config: FormatConfig) -> tuple[str, str] | None:
    if len(rendered.input_ids) > config.max_length:
        return "too_long", f"{len(rendered.input_ids)} tokens, at most {config.max_length} allowed"
    if rendered.num_trained == 0:
        return "nothing_to_train", "expected at least one token of the assistant's, came none"
    return None


def _smuggled(example: Example, tokenizer: Any, special: set[int]) -> tuple[str, str] | None:
    """A special token written out in a row's text would end or open a turn by itself."""
    for message in example.messages:
        ids = tokenizer(message.content, add_special_tokens=False)["input_ids"]
        # An unknown character becomes the unknown token by itself; nobody wrote that one out.
        unknown = {tokenizer.unk_token_id} - {None}
        if unknown and tokenizer.unk_token in message.content:
            unknown = set()
        found = special.intersection(ids) - unknown
        if found:
            return "special_token", f"{message.role} turn holds {tokenizer.decode([min(found)])!r}"
    return None


def _check(formatted: Formatted, config: FormatConfig) -> None:
    total = sum(map(len, formatted.rows.values())) + len(formatted.rejected)
    if len(formatted.rejected) > config.max_rejected_share * total:
        first = formatted.rejected[0]
        raise DataError(
            f"{len(formatted.rejected)} of {total} rows break the limits of `format` "
            f"({formatted.num_rejected}), more than the allowed share of "
            f"{config.max_rejected_share:g}. First: example {first[0][:12]}: {first[2]}. Raise "
            "format.max_length, shorten the rows, or raise format.max_rejected_share."
        )
    for split, rows in formatted.rows.items():
        if not rows:
            raise DataError(
                f"The {split} split is empty after formatting: nothing to "
                f"{'train on' if split == 'train' else 'choose a checkpoint by'}. Add rows, or "
                "change clean.split."
            )
