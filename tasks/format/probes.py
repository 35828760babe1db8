"""A few conversations with the tokens that the trainer gives them, to hold servers against.

Some are made to go wrong where templates and tokenizers do: system turns, history, signs beyond
ASCII, spaces at the edges, length. The others are rows of the data. ``probes.jsonl`` keeps them.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tasks.errors import TemplateError
from tasks.example import Example, Message
from tasks.format.render import IGNORED, Refusal, Rendered, render
from tasks.format.template import Conversation, Template

logger = logging.getLogger(__name__)
FILE = "probes.jsonl"
_ROWS = 8
_ASKED = "Which of the two is right, and why?"
_SAID = "The first one, since it was there before."
_MADE: dict[str, list[Message]] = {
    "system turn": [
        Message("system", "Answer in one sentence."),
        Message("user", _ASKED),
        Message("assistant", _SAID),
    ],
    "several turns": [
        Message("user", "Good morning."),
        Message("assistant", "Good morning, how can I help?"),
        Message("user", _ASKED),
        Message("assistant", _SAID),
    ],
    "unicode": [
        Message("user", "Zürich — «naïve» 👩‍👩‍👧‍👦 日本語 العربية e\u0301 \u200b\ufeff ½ K"),
        Message("assistant", "Grüße aus Köln 🙂, 東京 и Москва."),
    ],
    "whitespace": [
        Message("user", "  two before,\ttabs\t,\r\n\r\n\n  blank lines   \n"),
        Message("assistant", "line one\n\n    line two, set in\n"),
    ],
    "long": [
        Message("user", " ".join(f"Item {n}: {n * 37 % 101} pieces." for n in range(60))),
        Message("assistant", "There are sixty items."),
    ],
}


def write_probes(
    examples: Sequence[Example],
    splits: Sequence[str],
    template: Template,
    max_length: int,
    folder: Path,
) -> int:
    """Write ``probes.jsonl``; answers how many there are.

    One a line: ``name``, the ``turns`` before the last answer in OpenAI's form, ``tools``, the
    ``prompt_ids`` that inference is to see for them, and the answer's ``answer_ids``.
    """
    held_out = [e for e, s in zip(examples, splits, strict=True) if s == "validation"]
    rows = {f"row {e.id[:12]}": Conversation.of_example(e) for e in _first(held_out)}
    made = {name: Conversation.of(messages) for name, messages in _MADE.items()}
    probes = [
        probe
        for name, conversation in (made | rows).items()
        if (probe := _probe(name, conversation, template, max_length)) is not None
    ]
    lines = [json.dumps(probe, ensure_ascii=False) for probe in probes]
    (folder / FILE).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return len(probes)


def _first(examples: Iterable[Example]) -> list[Example]:
    """The same rows whatever order they come in."""
    return sorted(examples, key=lambda example: example.id)[:_ROWS]


def _probe(
    name: str, conversation: Conversation, template: Template, max_length: int
) -> dict[str, Any] | None:
    """The probe; None where the template refuses such a conversation, or it would be too long."""
    try:
        [found] = render([conversation], template)
    except TemplateError as error:
        logger.info("format: no probe for %s: %s", name, error)
        return None
    if isinstance(found, Refusal) or len(found[-1].input_ids) > max_length:
        why = found.detail if isinstance(found, Refusal) else "it is too long"
        logger.info("format: no probe for %s: %s", name, why)
        return None
    start, end = _last_answer(found[-1])
    ids = found[-1].input_ids
    return {
        "name": name,
        "turns": conversation.first(conversation.answers[-1]).turns,
        "tools": conversation.tools,
        "prompt_ids": ids[:start],
        "answer_ids": ids[start:end],
    }


def _last_answer(row: Rendered) -> tuple[int, int]:
    """Where the last answer stands; between two answers there is always a header."""
    end = max(i for i, label in enumerate(row.labels) if label != IGNORED) + 1
    start = end
    while start > 0 and row.labels[start - 1] != IGNORED:
        start -= 1
    return start, end
