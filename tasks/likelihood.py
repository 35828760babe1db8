"""How likely a model finds texts: the negative log-likelihood of their tokens, in batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_BATCH_TOKENS = 2048  # in one batch with its padding: bounds the memory of the logits


def continuation_surprise(
    model: Any, pad: int, contexts: Sequence[list[int]], continuations: Sequence[list[int]]
) -> Floats:
    """Negative log-likelihood of each continuation given its context, in nats; NaN where empty."""
    rows = [[*a, *b] if b else [] for a, b in zip(contexts, continuations, strict=True)]
    found = np.full(len(rows), np.nan)
    for batch in batches_of([len(row) for row in rows]):
        found[batch] = surprise(
            model, pad, [rows[i] for i in batch], [len(contexts[i]) for i in batch]
        )
    return found


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


def token_log_probs(model: Any, ids: list[int], start: int) -> list[float]:
    """The log-probability, in nats, of each token from ``start`` on, given all before it."""
    import torch

    text = torch.tensor([ids], device=model.device)
    with torch.inference_mode():
        logits = model(input_ids=text).logits[0, start - 1 : -1].float()
    found = torch.log_softmax(logits, dim=-1).gather(1, text[0, start:, None])
    return [float(value) for value in found[:, 0].double().cpu()]
