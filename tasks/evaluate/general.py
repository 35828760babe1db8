"""What a model can do beside its task: has the fine-tune forgotten what its base model knew?

The suite: general instructions with an answer, passages of plain text, and questions with four
options. Those in ``general.jsonl`` were written for it; the general instructions that cleaning put
into the test split join them. No text is generated: a model is asked how likely it finds what
stands there, which takes one pass and tells far more, on few rows, than the answers of a small
model would.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from tasks.example import GENERAL, Example, Message, content_id, normalise
from tasks.likelihood import Floats, continuation_surprise
from tasks.scores import MetricScores, Reducer
from tasks.storage import file_digest

LOSS, TEXT_LOSS, ACCURACY = "general_loss", "general_text_loss", "general_accuracy"
METRICS = (LOSS, TEXT_LOSS, ACCURACY)
NOT_ASKED = "asked once a contestant, beside the open golden rows"
Kind = Literal["instruction", "passage", "question"]

_SHIPPED = Path(__file__).parent / "general.jsonl"
_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("kind", pa.string()),
        ("asked", pa.string()),
        ("options", pa.list_(pa.string())),
    ]
)
_MOST_TOKENS = 512  # of a context or of what follows it


@dataclass(frozen=True, slots=True)
class Item:
    """One row: what could follow ``asked``; of a question's options the first is right.

    A passage has nothing before it.
    """

    id: str
    kind: Kind
    asked: str
    options: tuple[str, ...]


def shipped() -> list[Item]:
    """The rows written for this suite."""
    return [
        _shipped(json.loads(line)) for line in _SHIPPED.read_text(encoding="utf-8").splitlines()
    ]


def shipped_digest() -> str:
    """What tells versions of the rows that ship apart."""
    return file_digest(_SHIPPED)


def collect(
    items: Iterable[Item], held_out: Sequence[Example], trained: Sequence[Example], most: int
) -> tuple[list[Item], int]:
    """The suite, and how many of its rows were left out because training saw their question.

    Of the general instructions in ``held_out`` at most ``most`` join ``items``, the same every
    week: those of a single turn and without tools, by their id.
    """
    own = sorted((e for e in held_out if _is_plain_instruction(e)), key=lambda e: e.id)[:most]
    candidates = [*items, *(Item(e.id, "instruction", e.prompt, (e.answer,)) for e in own)]
    distinct = {item.id: item for item in candidates}
    seen = {normalise(e.prompt) for e in trained}
    kept = [i for i in distinct.values() if i.kind == "passage" or normalise(i.asked) not in seen]
    return kept, len(distinct) - len(kept)


def measure(model: Any, tokenizer: Any, items: Sequence[Item]) -> dict[str, MetricScores]:
    """Every metric's statistics by name, over the items that it measures.

    ``general_loss`` and ``general_text_loss`` are nats a token of an answer and of a passage, whose
    exponential is the perplexity. ``general_accuracy`` counts the questions whose right option is
    the most likely a character (the normalisation of lm-evaluation-harness).
    """
    asked = [(item, option) for item in items for option in item.options]
    contexts = [_context(tokenizer, item) for item, _ in asked]
    texts = [_tokens(tokenizer, option) for _, option in asked]
    surprise = continuation_surprise(model, tokenizer.pad_token_id, contexts, texts)
    # The first token of a passage follows nothing, and is not judged.
    judged = [len(t) if c else len(t) - 1 for c, t in zip(contexts, texts, strict=True)]
    a_token = surprise / np.maximum(judged, 1)
    a_character = surprise / [max(1, len(option)) for _, option in asked]
    starts = np.cumsum([0, *(len(item.options) for item in items)])[:-1]
    found: dict[Kind, dict[str, float]] = {"instruction": {}, "passage": {}, "question": {}}
    for item, start in zip(items, starts.tolist(), strict=True):
        of_options = a_character[start : start + len(item.options)]
        value = of_options.argmin() == 0 if item.kind == "question" else a_token[start]
        found[item.kind][item.id] = float(value)
    scores = (
        _scores(LOSS, "mean", False, found["instruction"]),
        _scores(TEXT_LOSS, "mean", False, found["passage"]),
        _scores(ACCURACY, "proportion", True, found["question"]),
    )
    return {s.metric: s for s in scores if len(s.stats)}


def to_table(items: Sequence[Item]) -> pa.Table:
    """The suite as an Arrow table."""
    return pa.Table.from_pylist([asdict(item) for item in items], schema=_SCHEMA)


def from_table(table: pa.Table) -> list[Item]:
    """The suite of a table written by ``to_table``."""
    return [Item(**{**row, "options": tuple(row["options"])}) for row in table.to_pylist()]


def _scores(
    metric: str, reducer: Reducer, higher_is_better: bool, values: dict[str, float]
) -> MetricScores:
    stats: Floats = np.array(list(values.values()), dtype=np.float64).reshape(-1, 1)
    return MetricScores(metric, reducer, higher_is_better, stats, ids=tuple(values))


def _shipped(row: dict[str, Any]) -> Item:
    if "passage" in row:
        return _item("passage", "", (row["passage"],))
    if "options" in row:
        return _item("question", row["question"], tuple(row["options"]))
    return _item("instruction", row["instruction"], (row["answer"],))


def _item(kind: Kind, asked: str, options: tuple[str, ...]) -> Item:
    turns = [Message("user", asked), *(Message("assistant", option) for option in options)]
    return Item(content_id(turns), kind, asked, options)


def _is_plain_instruction(example: Example) -> bool:
    roles = [m.role for m in example.messages if m.role != "system"]
    is_plain = roles == ["user", "assistant"] and example.tools is None
    return is_plain and example.meta.get(GENERAL) == "yes" and bool(example.answer.strip())


def _context(tokenizer: Any, item: Item) -> list[int]:
    """The question in the model's own template; nothing before a passage."""
    if not item.asked:
        return []
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": item.asked}], tokenize=False, add_generation_prompt=True
    )
    return _tokens(tokenizer, text)[-_MOST_TOKENS:]


def _tokens(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids[:_MOST_TOKENS]
