"""Solved examples before a question: what the base model can do with a good prompt alone.

Chosen for each question from the training rows by likeness of the prompts (Liu et al. 2022, "What
makes good in-context examples for GPT-3?"), the most alike last, next to the question. Never from
the golden rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tasks.embeddings import Vectors
from tasks.example import GENERAL, Example

Embed = Callable[[Sequence[str]], Vectors]


@dataclass(frozen=True, slots=True)
class Shots:
    """The examples put before one question, in the order in which the model reads them."""

    id: str
    examples: tuple[Example, ...]


def usable(rows: Sequence[Example], most: int) -> list[Example]:
    """The rows of the task itself, ``most`` of them at most: those with the smallest ids.

    An id is a hash of the content: the choice is even, and stays from week to week.
    """
    own = [row for row in rows if row.meta.get(GENERAL) != "yes"]
    return own if len(own) <= most else sorted(own, key=lambda row: row.id)[:most]


def choose(
    questions: Sequence[Example], pool: Sequence[Example], num_examples: int, embed: Embed
) -> list[Shots]:
    """For each question the ``num_examples`` rows of ``pool`` whose prompts are most alike.

    Rows with other tools than the question's are passed over; fewer are given where there are none.
    """
    if not pool or num_examples == 0:
        return [Shots(question.id, ()) for question in questions]
    known = embed([row.prompt for row in pool])
    likeness = embed([question.prompt for question in questions]) @ known.T
    chosen = []
    for question, row in zip(questions, likeness, strict=True):
        nearest = (pool[i] for i in np.argsort(-row, kind="stable"))
        examples = _first(num_examples, (e for e in nearest if e.tools == question.tools))
        chosen.append(Shots(question.id, tuple(reversed(examples))))
    return chosen


def _first(num: int, examples: Iterator[Example]) -> list[Example]:
    return [example for _, example in zip(range(num), examples, strict=False)]


def with_examples(question: Example, shots: Sequence[Example]) -> Example:
    """The question with solved examples between its system turn and its own first turn."""
    turns = question.messages
    start = 1 if turns and turns[0].role == "system" else 0
    solved = [m for shot in shots for m in shot.messages if m.role != "system"]
    return replace(question, messages=(*turns[:start], *solved, *turns[start:]))
