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

Floats = npt.NDArray[np.float64]
Score = Callable[[list[str]], Floats]

_MOST_TOKENS = 512  # of a text; gibberish shows long before
_BATCH_TOKENS = 2048  # in one batch with its padding: bounds the memory of the logits


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


def batches_of(sizes: list[int]) -> list[list[int]]:
    """Indices by length, so that little is padded; texts of less than two tokens left out."""
    batches: list[list[int]] = []
    for index in sorted(range(len(sizes)), key=lambda i: (sizes[i], i)):
        if sizes[index] < 2:
            continue
        if batches and (len(batches[-1]) + 1) * sizes[index] <= _BATCH_TOKENS:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def surprise(
    model: Any, pad: int, texts: list[list[int]], starts: list[int] | None = None
) -> Floats:
    """Negative log-likelihood of each text's tokens from its start, by default the second, in nats.

    A start of zero counts as one: the first token is given no context to be judged by.
    """
    import torch

    longest = max(map(len, texts))
    ids = torch.tensor([text + [pad] * (longest - len(text)) for text in texts])
    sizes = torch.tensor([len(text) for text in texts])
    places = torch.arange(longest)[None, :]
    mask = places < sizes[:, None]
    judged = mask & (places >= torch.tensor(starts or [1] * len(texts))[:, None])
    ids, mask, judged = (part.to(model.device) for part in (ids, mask, judged))
    with torch.inference_mode():
        logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1].float()
    losses = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none"
    ).view(len(texts), -1)
    return np.asarray((losses * judged[:, 1:]).sum(1).double().cpu())
