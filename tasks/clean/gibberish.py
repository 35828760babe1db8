"""Gibberish by letters: a character trigram model of all rows, each row judged by the others.

A row's surprise is its mean -log2 P(character | the two before it), with the row's own trigrams
taken out of the counts: a row of random letters would otherwise vouch for itself.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from tasks.clean.config import GibberishConfig
from tasks.example import normalise

_SMOOTHING = 0.1  # pseudo-count of each unseen continuation
# Of rows that are all alike the deviation is nearly nothing; then no row may stand out for a hair.
_LEAST_DEVIATION = 0.05  # bits


def surprises(texts: Sequence[str]) -> list[float]:
    """Mean bits a character of each text, given all the other texts."""
    own = [Counter(_trigrams(text)) for text in texts]
    trigrams: Counter[str] = Counter()
    for counts in own:
        trigrams.update(counts)
    contexts: Counter[str] = Counter()
    for trigram, count in trigrams.items():
        contexts[trigram[:2]] += count
    alphabet = len({trigram[2] for trigram in trigrams}) or 1
    return [_surprise(counts, trigrams, contexts, alphabet) for counts in own]


def gibberish(texts: Sequence[str], config: GibberishConfig) -> list[tuple[int, float]]:
    """(index, surprise in bits) of the texts that stand out from the others."""
    if not config.enabled:
        return []
    judged = [i for i, text in enumerate(texts) if len(text) >= config.min_characters]
    if len(judged) < 3:  # of two rows neither can be called the odd one
        return []
    bits = np.array(surprises([texts[i] for i in judged]))
    middle = float(np.median(bits))
    deviation = max(float(np.median(np.abs(bits - middle))), _LEAST_DEVIATION)
    limit = middle + config.max_deviations * deviation
    return [(i, float(b)) for i, b in zip(judged, bits, strict=True) if b > limit]


def _trigrams(text: str) -> list[str]:
    padded = f"  {normalise(text)} "
    return [padded[i : i + 3] for i in range(len(padded) - 2)]


def _surprise(
    own: Counter[str], trigrams: Counter[str], contexts: Counter[str], alphabet: int
) -> float:
    own_contexts: Counter[str] = Counter()
    for trigram, count in own.items():
        own_contexts[trigram[:2]] += count
    bits = 0.0
    for trigram, count in own.items():
        others = trigrams[trigram] - count
        total = contexts[trigram[:2]] - own_contexts[trigram[:2]]
        bits -= count * math.log2((others + _SMOOTHING) / (total + _SMOOTHING * alphabet))
    return bits / max(1, own.total())
