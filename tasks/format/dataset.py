"""Clean examples -> ``train.parquet`` and ``validation.parquet`` of token ids and labels."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.errors import DataError
from tasks.example import GENERAL, Example
from tasks.format.config import FormatConfig, Reason
from tasks.format.render import Refusal, Rendered, render
from tasks.format.split import split_turns
from tasks.format.template import Conversation, Template

logger = logging.getLogger(__name__)
SPLITS = ("train", "validation")  # what training reads
TOKEN_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("input_ids", pa.list_(pa.int32())),
        ("labels", pa.list_(pa.int32())),
    ]
)
_REJECTED_SCHEMA = pa.schema(
    [("id", pa.string()), ("reason", pa.string()), ("detail", pa.string())]
)
_BATCH = 512


@dataclass(slots=True)
class Formatted:
    """Rendered rows by split, and those that broke a limit: (example id, reason, detail).

    ``num_unrolled`` conversations became a row for each answer, ``num_split`` were too long and
    became several. ``num_by_source`` and ``num_general`` count training examples.
    """

    rows: dict[str, list[tuple[str, Rendered]]] = field(
        default_factory=lambda: {split: [] for split in SPLITS}
    )
    rejected: list[tuple[str, Reason, str]] = field(default_factory=list)
    num_examples: int = 0
    num_unrolled: int = 0
    num_split: int = 0
    num_by_source: Counter[str] = field(default_factory=Counter)
    num_general: int = 0

    @property
    def num_rejected(self) -> dict[str, int]:
        return dict(Counter(reason for _, reason, _ in self.rejected))


def format_examples(
    examples: Sequence[Example], splits: Sequence[str], template: Template, config: FormatConfig
) -> Formatted:
    """Render the examples of the splits that training reads.

    Raises TemplateError for a template that cannot be trained on, DataError when too many rows are
    over a limit or a split is left without rows.
    """
    wanted = [(e, split) for e, split in zip(examples, splits, strict=True) if split in SPLITS]
    result = Formatted(num_examples=len(wanted))
    for start in range(0, len(wanted), _BATCH):
        _format_batch(wanted[start : start + _BATCH], template, config, result)
        logger.info("format %d/%d examples", min(start + _BATCH, len(wanted)), len(wanted))
    _check(result, config)
    return result


def write(formatted: Formatted, folder: Path) -> None:
    """One Parquet file a split, and ``rejected.parquet``."""
    for split, rows in formatted.rows.items():
        columns = {
            "id": [identity for identity, _ in rows],
            "input_ids": [r.input_ids for _, r in rows],
            "labels": [r.labels for _, r in rows],
        }
        pq.write_table(pa.table(columns, schema=TOKEN_SCHEMA), folder / f"{split}.parquet")
    named = [dict(zip(_REJECTED_SCHEMA.names, row, strict=True)) for row in formatted.rejected]
    pq.write_table(pa.Table.from_pylist(named, _REJECTED_SCHEMA), folder / "rejected.parquet")


def _format_batch(
    batch: Sequence[tuple[Example, str]],
    template: Template,
    config: FormatConfig,
    result: Formatted,
) -> None:
    sound: list[tuple[Example, str]] = []
    for example, split in batch:
        smuggled = _smuggled(example, template)
        if smuggled is None:
            sound.append((example, split))
        else:
            result.rejected.append((example.id, *smuggled))
    conversations = [Conversation.of_example(example) for example, _ in sound]
    rendered = render(conversations, template, config.multi_turn)
    for (example, split), conversation, rows in zip(sound, conversations, rendered, strict=True):
        kept = _within(conversation, rows, template, config, result)
        if isinstance(kept, Refusal):
            result.rejected.append((example.id, *kept))
            continue
        result.rows[split] += [(example.id, row) for row in kept]
        if split == "train":
            result.num_by_source[example.source] += 1
            result.num_general += example.meta.get(GENERAL) == "yes"


def _within(
    conversation: Conversation,
    rows: list[Rendered] | Refusal,
    template: Template,
    config: FormatConfig,
    result: Formatted,
) -> list[Rendered] | Refusal:
    """The rows of a conversation, none over ``max_length``; it is never cut within an exchange."""
    if isinstance(rows, Refusal):
        return rows
    over = _too_long(rows, config)
    if over is not None and config.too_long == "split":
        parts = split_turns(conversation, lambda part: _fits(part, template, config))
        if parts is not None and len(parts) > 1:
            made = render(parts, template, config.multi_turn)
            refused = next((part for part in made if isinstance(part, Refusal)), None)
            if refused is not None:
                return refused
            result.num_split += 1
            rows = [row for part in made if not isinstance(part, Refusal) for row in part]
            over = _too_long(rows, config)
    if over is not None:
        return over
    result.num_unrolled += len(rows) > 1
    return rows


def _too_long(rows: Iterable[Rendered], config: FormatConfig) -> Refusal | None:
    length = max(len(row.input_ids) for row in rows)
    if length <= config.max_length:
        return None
    return Refusal("too_long", f"{length} tokens, at most {config.max_length} allowed")


def _fits(conversation: Conversation, template: Template, config: FormatConfig) -> bool:
    [rows] = render([conversation], template, config.multi_turn)
    return isinstance(rows, Refusal) or _too_long(rows, config) is None


def _smuggled(example: Example, template: Template) -> Refusal | None:
    """A special token written out in a row's text would end or open a turn by itself."""
    for message in example.messages:
        for text in (message.content, message.tool_calls or ""):
            if found := template.reserved.search(text):
                return Refusal("special_token", f"{message.role} turn holds {found[0]!r}")
    if found := template.reserved.search(example.tools or ""):
        return Refusal("special_token", f"a tool's definition holds {found[0]!r}")
    return None


def _check(formatted: Formatted, config: FormatConfig) -> None:
    total = formatted.num_examples
    for reason, count in Counter(reason for _, reason, _ in formatted.rejected).items():
        limit: float = getattr(config.limits, reason)
        if count > limit * total:
            _refuse(formatted, reason, count, f"limits.{reason}", limit)
    if len(formatted.rejected) > config.max_rejected_share * total:
        share = config.max_rejected_share
        _refuse(formatted, None, len(formatted.rejected), "max_rejected_share", share)
    for split, rows in formatted.rows.items():
        if not rows:
            raise DataError(
                f"The {split} split is empty after formatting: nothing to "
                f"{'train on' if split == 'train' else 'choose a checkpoint by'}. Add rows, or "
                "change clean.split."
            )


def _refuse(
    formatted: Formatted, reason: Reason | None, count: int, setting: str, limit: float
) -> None:
    identity, _, detail = next(row for row in formatted.rejected if reason in (None, row[1]))
    what = reason or str(formatted.num_rejected)
    raise DataError(
        f"{count} of {formatted.num_examples} rows cannot be trained on ({what}), more than the "
        f"share of {limit:g} that format.{setting} allows. First: example {identity[:12]}: "
        f"{detail}. Mend those rows or what made them, or raise format.{setting}; `python -m "
        "tasks.format.doctor CONFIG` shows what the template does."
    )
