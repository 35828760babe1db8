"""How a model answers, whatever it says: how long, cut off, refusing, repeating itself."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from tasks.evaluate.answers import Answer
from tasks.scores import MetricScores, Reducer

# Openings of refusals by assistants, in English; only at the start, where they are meant.
_REFUSAL = re.compile(
    r"\W*(?:(?:i['’]?m|i am) (?:very |so |really )?sorry|sorry,? (?:but )?i|i apologi[sz]e|"
    r"(?:unfortunately,? )?i (?:can(?:no|['’])t|am unable|am not able|won['’]t|must decline)|"
    r"as an ai\b)",
    re.IGNORECASE,
)
_WORDS = 4  # repeated sequences of so many words count, as rep-4 of Welleck et al. (2020)


def behaviour(answers: Sequence[Answer]) -> dict[str, MetricScores]:
    """``num_tokens`` of an answer, and the shares ``truncated``, ``refusals`` and ``repetition``.

    Of the shares less is better: answers cut off at the most tokens allowed, answers that refuse,
    and the sequences of four words in an answer that stood in it before.
    """
    found: list[tuple[str, Reducer, bool, list[float]]] = [
        ("num_tokens", "mean", False, [float(a.num_tokens) for a in answers]),
        ("truncated", "proportion", False, [float(a.truncated) for a in answers]),
        ("refusals", "proportion", False, [float(is_refusal(a.answer)) for a in answers]),
        ("repetition", "mean", False, [repetition(a.answer) for a in answers]),
    ]
    return {
        name: MetricScores(
            name,
            reducer,
            higher_is_better,
            np.asarray(values, dtype=np.float64).reshape(-1, 1),
            bounds=(0, 1) if name == "repetition" else None,
        )
        for name, reducer, higher_is_better, values in found
    }


def is_refusal(text: str) -> bool:
    """Whether an answer begins as refusals do."""
    return _REFUSAL.match(text) is not None


def repetition(text: str) -> float:
    """The share of sequences of four words that repeat an earlier one: 0 for short answers."""
    words = text.split()
    sequences = [tuple(words[i : i + _WORDS]) for i in range(len(words) - _WORDS + 1)]
    return 1 - len(set(sequences)) / len(sequences) if sequences else 0.0
