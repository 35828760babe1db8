"""Greedy continuation of prompts, as evaluation asks for it and training at its checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from transformers import GenerationConfig


def continue_sorted(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    stop_ids: Collection[int],
    max_new_tokens: int,
    batch_size: int,
    progress: Callable[[int], None] = lambda _: None,
) -> list[list[int]]:
    """The generated ids of each prompt, in the prompts' order; the longest are generated first.

    ``progress`` is told how many prompts are done.
    """
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]), reverse=True)
    outputs: dict[int, list[int]] = {}
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        chosen = [prompts[i] for i in batch]
        continued = continue_greedily(model, tokenizer, chosen, stop_ids, max_new_tokens)
        outputs |= zip(batch, continued, strict=True)
        progress(len(outputs))
    return [outputs[i] for i in range(len(prompts))]


def continue_greedily(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    stop_ids: Collection[int],
    max_new_tokens: int,
) -> list[list[int]]:
    """The generated ids of each prompt, up to and with the first of ``stop_ids``."""
    batch = tokenizer.pad(
        {"input_ids": [list(ids) for ids in prompts]}, padding_side="left", return_tensors="pt"
    ).to(model.device)
    settings = GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=max_new_tokens,
        do_sample=False,
        eos_token_id=sorted(stop_ids),
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.no_grad():  # not inference mode: training goes on with the same model
        output = model.generate(**batch, generation_config=settings)
    rows: list[list[int]] = output[:, batch["input_ids"].shape[1] :].tolist()
    return [_up_to_stop(row, stop_ids) for row in rows]


def _up_to_stop(ids: list[int], stop_ids: Collection[int]) -> list[int]:
    for number, token in enumerate(ids):
        if token in stop_ids:
            return ids[: number + 1]
    return ids
