"""Greedy continuation of prompts, as evaluation asks for it and training at its checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from transformers import GenerationConfig

_LEAST_SHARED = 8  # tokens; fewer are not worth a pass of their own


def continue_sorted(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    stop_ids: Collection[int],
    max_new_tokens: int,
    batch_size: int,
    done: Callable[[Mapping[int, list[int]]], None] = lambda _: None,
) -> list[list[int]]:
    """The generated ids of each prompt, in the prompts' order; the longest are generated first.

    ``done`` is given each batch's, by the place of its prompts.
    """
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]), reverse=True)
    outputs: dict[int, list[int]] = {}
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        chosen = [prompts[i] for i in batch]
        continued = continue_greedily(model, tokenizer, chosen, stop_ids, max_new_tokens)
        made = dict(zip(batch, continued, strict=True))
        outputs |= made
        done(made)
    return [outputs[i] for i in range(len(prompts))]


def continue_greedily(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    stop_ids: Collection[int],
    max_new_tokens: int,
) -> list[list[int]]:
    """The generated ids of each prompt, up to and with the first of ``stop_ids``.

    What all prompts begin with, such as a system turn, is computed once.
    """
    settings = GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=max_new_tokens,
        do_sample=False,
        eos_token_id=sorted(stop_ids),
        pad_token_id=tokenizer.pad_token_id,
    )
    shared = _num_shared(prompts) if len(prompts) > 1 and _sees_everything(model) else 0
    shared = shared if shared >= _LEAST_SHARED else 0
    rests = tokenizer.pad(
        {"input_ids": [list(ids[shared:]) for ids in prompts]},
        padding_side="left",
        return_tensors="pt",
    ).to(model.device)
    ids, mask = rests["input_ids"], rests["attention_mask"]
    with torch.no_grad():  # not inference mode: training goes on with the same model
        beginning: dict[str, Any] = {}
        if shared:
            common = torch.tensor([list(prompts[0][:shared])], device=model.device)
            cache = model(common, use_cache=True, logits_to_keep=1).past_key_values
            cache.batch_repeat_interleave(len(prompts))
            beginning = {"past_key_values": cache}
            # Padding stands behind the beginning; positions are counted without it.
            ids = torch.cat([common.expand(len(prompts), -1), ids], dim=1)
            mask = torch.cat([mask.new_ones(len(prompts), shared), mask], dim=1)
        output = model.generate(
            input_ids=ids, attention_mask=mask, generation_config=settings, **beginning
        )
    rows: list[list[int]] = output[:, ids.shape[1] :].tolist()
    return [_up_to_stop(row, stop_ids) for row in rows]


def _num_shared(prompts: Sequence[Sequence[int]]) -> int:
    """How many tokens all prompts begin with; each keeps at least one of its own."""
    lists = [list(ids) for ids in prompts]
    first, last = min(lists), max(lists)  # what these two begin with, all between them do
    limit = min(map(len, prompts)) - 1
    return next((i for i in range(limit) if first[i] != last[i]), limit)


def _sees_everything(model: Any) -> bool:
    """Whether each token sees all before it: a window over the last few would count padding."""
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    return kinds == {"full_attention"} and not (
        getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
    )


def _up_to_stop(ids: list[int], stop_ids: Collection[int]) -> list[int]:
    for number, token in enumerate(ids):
        if token in stop_ids:
            return ids[: number + 1]
    return ids
