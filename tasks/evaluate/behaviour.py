"""How a model answers, whatever it says: how long, cut off, refusing, repeating itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from tasks.assistant_speech import refuses
from tasks.evaluate.answers import Answer
from tasks.scores import MetricScores, Reducer

_WORDS = 4  # repeated sequences of so many words count, as rep-4 of Welleck et al. (2020)


def behaviour(answers: Sequence[Answer]) -> dict[str, MetricScores]:
    """``num_tokens`` of an answer, and the shares ``truncated``, ``refusals`` and ``repetition``.

    Of the shares less is better: answers cut off at the most tokens allowed, answers that refuse,
    and the sequences of four words in an answer that stood in it before. ``unstable``, of answers
    that were asked for twice, is the share that came out otherwise: the noise of a model that does
    not answer the same each time.
    """
    refusals = refuses(pa.array([a.answer for a in answers], pa.string())).to_pylist()
    found: list[tuple[str, Reducer, bool, list[float]]] = [
        ("num_tokens", "mean", False, [float(a.num_tokens) for a in answers]),
        ("truncated", "proportion", False, [float(a.truncated) for a in answers]),
        ("refusals", "proportion", False, [float(r) for r in refusals]),
        ("repetition", "mean", False, [repetition(a.answer) for a in answers]),
    ]
    stable = [(a.id, float(a.answer != a.again)) for a in answers if a.again is not None]
    scores = {
        name: MetricScores(
            name,
            reducer,
            higher_is_better,
            np.asarray(values, dtype=np.float64).reshape(-1, 1),
            bounds=(0, 1) if name == "repetition" else None,
        )
        for name, reducer, higher_is_better, values in found
    }
    if stable:
        differing = np.array([[differs] for _, differs in stable])
        asked_twice = tuple(identity for identity, _ in stable)
        scores["unstable"] = MetricScores(
            "unstable", "proportion", False, differing, ids=asked_twice
        )
    return scores


def repetition(text: str) -> float:
    """The share of sequences of four words that repeat an earlier one: 0 for short answers."""
    words = text.split()
    sequences = [tuple(words[i : i + _WORDS]) for i in range(len(words) - _WORDS + 1)]
    return 1 - len(set(sequences)) / len(sequences) if sequences else 0.0
