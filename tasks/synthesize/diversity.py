"""How diverse the synthetic rows are beside as many human ones: does the generator repeat itself?

distinct-n: the share of different word n-grams among all (Li et al. 2016). self-BLEU: how well a
text is predicted by the others (Zhu et al. 2018), in points. spread: the mean cosine distance of
two texts' embeddings. All three depend on how many texts there are, hence samples of one size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tasks.embeddings import EmbeddingConfig, embed
from tasks.example import normalise
from tasks.synthesize.config import DiversityConfig

_SEED = 0
_HYPOTHESES = 100
_REFERENCES = 20
Verdict = Literal["diverse", "collapsed", "too_few"]


@dataclass(frozen=True, slots=True)
class Figures:
    """The diversity of a sample of texts."""

    n: int
    distinct_1: float
    distinct_2: float
    distinct_3: float
    self_bleu: float
    spread: float | None


@dataclass(frozen=True)
class Diversity:
    """Both samples side by side, and whether the synthetic one has collapsed, with reasons."""

    synthetic: Figures | None
    seeds: Figures | None
    verdict: Verdict
    reasons: list[str]


def compare(synthetic: Sequence[str], seeds: Sequence[str], config: DiversityConfig) -> Diversity:
    """The diversity of the synthetic prompts against an equal-sized sample of the seeds'."""
    size = min(len(synthetic), len(seeds), config.max_rows)
    if size < config.min_rows:
        return Diversity(None, None, "too_few", [f"{size} rows, {config.min_rows} are needed"])
    ours, theirs = (_figures(_sample(texts, size), config) for texts in (synthetic, seeds))
    reasons = _reasons(ours, theirs, config)
    return Diversity(ours, theirs, "collapsed" if reasons else "diverse", reasons)


def distinct(texts: Sequence[str], n: int) -> float:
    """The share of different n-grams among all those of the texts; 0 where there are none."""
    grams: list[tuple[str, ...]] = []
    for text in texts:
        words = normalise(text).split()
        grams += [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0


def self_bleu(texts: Sequence[str]) -> float:
    """The mean BLEU of some texts, each against some of the others."""
    from sacrebleu.metrics.bleu import BLEU

    bleu = BLEU(effective_order=True)
    rng = np.random.default_rng(_SEED)
    chosen = rng.permutation(len(texts))[:_HYPOTHESES]
    scores = []
    for index in chosen:
        others = np.delete(np.arange(len(texts)), index)
        references = rng.permutation(others)[:_REFERENCES]
        scores.append(bleu.sentence_score(texts[index], [texts[i] for i in references]).score)
    return float(np.mean(scores))


def _sample(texts: Sequence[str], size: int) -> list[str]:
    chosen = np.random.default_rng(_SEED).permutation(len(texts))[:size]
    return [texts[i] for i in sorted(chosen)]


def _figures(texts: Sequence[str], config: DiversityConfig) -> Figures:
    return Figures(
        n=len(texts),
        distinct_1=round(distinct(texts, 1), 4),
        distinct_2=round(distinct(texts, 2), 4),
        distinct_3=round(distinct(texts, 3), 4),
        self_bleu=round(self_bleu(texts), 2),
        spread=None if config.embedding is None else round(spread(texts, config.embedding), 4),
    )


def spread(texts: Sequence[str], config: EmbeddingConfig) -> float:
    """The mean cosine distance over all pairs, from the length of the vectors' sum."""
    vectors = embed(texts, config).astype(np.float64)
    n = len(vectors)
    return float(1 - (np.sum(vectors.sum(axis=0) ** 2) - n) / (n * (n - 1)))


def _reasons(ours: Figures, theirs: Figures, config: DiversityConfig) -> list[str]:
    reasons = []
    if ours.distinct_2 < config.min_distinct_ratio * theirs.distinct_2:
        reasons.append(f"distinct-2 is {ours.distinct_2:.3f}, of seeds {theirs.distinct_2:.3f}")
    if ours.self_bleu > theirs.self_bleu + config.max_self_bleu_gain:
        reasons.append(f"self-BLEU is {ours.self_bleu:.1f}, of seeds {theirs.self_bleu:.1f}")
    if ours.spread is not None and theirs.spread is not None:
        low = config.min_spread_ratio * theirs.spread
        if ours.spread < low:
            reasons.append(f"spread is {ours.spread:.3f}, of seeds {theirs.spread:.3f}")
    return reasons
