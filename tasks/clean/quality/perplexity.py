"""What the base model makes of the texts that the n-gram model finds borderline.

Its perplexity is given as bits a character: the negative log2-likelihood of a text's tokens but the
first, each given those before it, over the characters they stand for. By token it would not tell:
random letters come in many short tokens, and of SmolLM2 they have a lower perplexity a token
(350-1,250 in the sample data) than short questions have (up to 2,900 in BANKING77).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tasks.artifacts import BaseModelRef
from tasks.base_model import load_model, load_tokenizer, native_dtype
from tasks.clean.config import GibberishConfig, PerplexityConfig
from tasks.clean.quality.gibberish import Strangeness
from tasks.clean.rows import Finding
from tasks.likelihood import batches_of, surprise

Floats = npt.NDArray[np.float64]
Score = Callable[[list[str]], Floats]

_MOST_TOKENS = 512  # of a text; gibberish shows long before


def perplexity(
    texts: pa.Array,
    strange: Strangeness,
    gibberish: GibberishConfig,
    config: PerplexityConfig,
    score: Score,
) -> list[Finding]:
    """The borderline texts that the base model finds too strange; what is no number passes."""
    chosen = borderline(strange, gibberish, config)
    bits = score(texts.take(pa.array(chosen)).to_pylist()) if len(chosen) else chosen
    return [
        Finding(
            int(index),
            "perplexity",
            f"{value:.1f} bits a character to the base model, at most "
            f"{config.max_bits_per_character:g} are allowed",
        )
        for index, value in sorted(zip(chosen.tolist(), bits, strict=True))
        if value > config.max_bits_per_character
    ]


def borderline(
    strange: Strangeness, gibberish: GibberishConfig, config: PerplexityConfig
) -> npt.NDArray[np.int64]:
    """The texts between both limits, the strangest first, no more than configured."""
    far = strange.deviations
    inside = (far > config.borderline_deviations) & (far <= gibberish.max_deviations)
    indices = np.flatnonzero(inside)
    strangest = np.argsort(-far[indices], kind="stable")
    return np.asarray(indices[strangest[: config.max_rows]])


def make_score(base: BaseModelRef) -> Score:
    """A scorer by the base model, which is loaded at its first text."""
    loaded: list[tuple[Any, Any]] = []

    def score(texts: Sequence[str]) -> Floats:
        if not loaded:
            loaded.append(load(base))
        return bits_per_character(*loaded[0], texts)

    return score


def bits_per_character(model: Any, tokenizer: Any, texts: Sequence[str]) -> Floats:
    """The bits a character of each text; NaN for one of less than two tokens."""
    scores = np.full(len(texts), np.nan)
    encoded = [ids[:_MOST_TOKENS] for ids in tokenizer(list(texts))["input_ids"]] if texts else []
    for batch in batches_of([len(ids) for ids in encoded]):
        surprises = surprise(model, tokenizer.pad_token_id, [encoded[i] for i in batch])
        scores[batch] = surprises / math.log(2)
    return scores / [max(1, len(tokenizer.decode(ids[1:]))) for ids in encoded]


def load(base: BaseModelRef) -> tuple[Any, Any]:
    """(model, tokenizer), on the GPU where there is one, in the precision that is native there."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    return load_model(base, getattr(torch, native_dtype())).to(device).eval(), load_tokenizer(base)
