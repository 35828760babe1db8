"""What formatting counted, for the report and for training: ``stats.json``."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from typing import Any

import numpy as np

from tasks.format.config import FormatConfig
from tasks.format.dataset import Formatted
from tasks.format.render import IGNORED, Rendered
from tasks.format.template import Template

_SAMPLES_A_REASON = 5
_BINS = 20


def statistics(formatted: Formatted, template: Template, config: FormatConfig) -> dict[str, Any]:
    """Counts, lengths, samples of what was rejected, and one training row token by token."""
    train = [row for _, row in formatted.rows["train"]]
    return {
        "num_unrolled": formatted.num_unrolled,
        "num_split": formatted.num_split,
        "num_by_source": dict(formatted.num_by_source),
        "num_general": formatted.num_general,
        "mask_source": _mask_source(train),
        "end_of_turn": template.stops,
        "begins_turns": template.begins_turns,
        "histogram": _lengths(train, config.max_length),
        "samples": _samples(formatted),
        "example": tokens_of(_middle(train), template),
    }


def tokens_of(row: Rendered, template: Template) -> list[tuple[str, bool]]:
    """Each token's text and whether it is trained; of several that share a character, together."""
    tokens: list[tuple[str, bool]] = []
    held: list[int] = []
    for token, label in zip(row.input_ids, row.labels, strict=True):
        held.append(token)
        text = template.tokenizer.decode(held)
        if "\N{REPLACEMENT CHARACTER}" in text and len(held) < 8:
            continue  # bytes of one character
        tokens.append((text, label != IGNORED))
        held = []
    return tokens


def _middle(rows: list[Rendered]) -> Rendered:
    """A row of middle length: the longest and the shortest are seldom what rows are like."""
    return sorted(rows, key=lambda row: len(row.input_ids))[len(rows) // 2]


def _mask_source(rows: list[Rendered]) -> str:
    """By what the trained tokens were found, the most frequent first."""
    return ", ".join(source for source, _ in Counter(row.mask_source for row in rows).most_common())


def _lengths(rows: list[Rendered], limit: int) -> dict[str, Any]:
    lengths = [len(row.input_ids) for row in rows]
    counts, edges = np.histogram(lengths, bins=_BINS)
    return {
        "title": "Tokens in a row",
        "edges": [round(float(edge), 1) for edge in edges],
        "counts": counts.tolist(),
        "limit": limit,
    }


def _samples(formatted: Formatted) -> list[dict[str, str]]:
    return [
        {"id": identity, "reason": reason, "detail": detail}
        for wanted in formatted.num_rejected
        for identity, reason, detail in islice(
            (row for row in formatted.rejected if row[1] == wanted), _SAMPLES_A_REASON
        )
    ]
