"""Attention over packed rows, as an attention function of transformers' own interface.

Of a packed sequence (``tasks.train.packing``) the common beginning attends to itself; the rests are
laid side by side, padded to the longest, and each attends to the beginning and itself. So the only
padding is in the attention, and a token never sees another row.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional
from torch.nn.attention.bias import causal_lower_right
from transformers.modeling_utils import AttentionInterface

from tasks.train.packing import Layout

PACKED = "retune_packed"
# Kinds of layers that attend to all of a row, or to its last tokens.
_PLAIN_LAYERS = frozenset({"full_attention", "sliding_attention"})


def why_not_packed(model: Any) -> str | None:
    """Why rows of this model cannot be packed, or None when they can."""
    config = model.config.get_text_config()
    if not model._can_set_attn_implementation():
        return f"{config.model_type} has attention of its own"
    odd = {str(kind) for kind in getattr(config, "layer_types", None) or ()} - _PLAIN_LAYERS
    if odd:
        return f"{config.model_type} has layers of the kind {', '.join(sorted(odd))}"
    for name in ("attn_logit_softcapping", "attention_chunk_size"):
        if getattr(config, name, None) is not None:
            return f"{config.model_type} has {name}"
    if any(name.endswith("sinks") for name, _ in model.named_parameters()):
        return f"{config.model_type} has attention sinks"
    return None


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    layout: Layout | None = None,
    sliding_window: int | None = None,
    s_aux: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Query, key and value (1, heads, tokens, size) -> (1, tokens, heads, size)."""
    if layout is None or s_aux is not None:
        raise ValueError(f"{PACKED} needs packed rows and no attention sinks")

    def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return _attend(query, key, value, dropout, scaling, sliding_window)

    # Of the rests, (rows, heads, longest, size).
    own_query, own_key, own_value = (_rests(x, layout) for x in (query, key, value))
    shared, rows = layout.num_shared, len(layout.gather)
    if not shared:
        return _flat(attend(own_query, own_key, own_value), layout)[None], None
    first_query, first_key, first_value = (x[:, :, :shared] for x in (query, key, value))
    seen_key = torch.cat([first_key.expand(rows, -1, -1, -1), own_key], dim=2)
    seen_value = torch.cat([first_value.expand(rows, -1, -1, -1), own_value], dim=2)
    beginning = attend(first_query, first_key, first_value)[0].transpose(0, 1)
    rest = _flat(attend(own_query, seen_key, seen_value), layout)
    return torch.cat([beginning, rest])[None], None


AttentionInterface.register(PACKED, packed_attention)


def _rests(tokens: torch.Tensor, layout: Layout) -> torch.Tensor:
    """(1, heads, tokens, size) -> (rows, heads, longest, size)."""
    own, shared = tokens[0, :, layout.num_shared :], layout.num_shared
    rests: torch.Tensor = _Apart.apply(own, layout.gather - shared, layout.scatter)  # type: ignore[no-untyped-call]
    return rests


def _flat(apart: torch.Tensor, layout: Layout) -> torch.Tensor:
    """(rows, heads, longest, size) -> (tokens of all rests, heads, size)."""
    places = layout.gather - layout.num_shared
    rests: torch.Tensor = _Together.apply(apart, places, layout.scatter, layout.real)  # type: ignore[no-untyped-call]
    return rests


class _Apart(torch.autograd.Function):
    """The rests of the rows side by side. What they are filled up with has no gradient.

    So the gradient is picked, as ``_Together`` picks, where autograd would add it up one by one.
    """

    @staticmethod
    def forward(
        ctx: Any, tokens: torch.Tensor, gather: torch.Tensor, scatter: torch.Tensor
    ) -> torch.Tensor:
        ctx.save_for_backward(scatter)
        return tokens[:, gather].transpose(0, 1)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (scatter,) = ctx.saved_tensors
        return gradient.transpose(0, 1).flatten(1, 2)[:, scatter], None, None


class _Together(torch.autograd.Function):
    """The rests one after the other; what they are filled up with is left out."""

    @staticmethod
    def forward(
        ctx: Any,
        apart: torch.Tensor,
        gather: torch.Tensor,
        scatter: torch.Tensor,
        real: torch.Tensor,
    ) -> torch.Tensor:
        ctx.save_for_backward(gather, real)
        return apart.transpose(1, 2).flatten(0, 1)[scatter]

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        gather, real = ctx.saved_tensors
        apart = gradient[gather] * real[:, :, None, None]
        return apart.transpose(1, 2), None, None, None


def _attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    dropout: float,
    scaling: float | None,
    window: int | None,
) -> torch.Tensor:
    """Causal attention of the last positions of the keys, which the queries are."""
    if torch.is_autocast_enabled(query.device.type):
        # Rotated in float32, query and key are of another kind than the value.
        dtype = torch.get_autocast_dtype(query.device.type)
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    length, total = query.shape[2], key.shape[2]
    if window is not None and window >= total:
        window = None
    if query.device.type == "cpu":
        return _plain(query, key, value, dropout, scaling, window)
    mask: Any = causal_lower_right(length, total)
    if window is not None:
        mask = _is_seen(length, total, window, query.device)
    return functional.scaled_dot_product_attention(
        query, key, value, mask, dropout, scale=scaling, enable_gqa=query.shape[1] != key.shape[1]
    )


def _plain(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    dropout: float,
    scaling: float | None,
    window: int | None,
) -> torch.Tensor:
    """With plain matrices: on a CPU the fused kernel's backward costs several times as much."""
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    scores = (query * scale) @ key.transpose(2, 3)
    seen = _is_seen(query.shape[2], key.shape[2], window, query.device)
    scores = scores.masked_fill(~seen, torch.finfo(scores.dtype).min)
    weights = functional.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    return functional.dropout(weights, dropout) @ value


def _is_seen(length: int, total: int, window: int | None, device: Any) -> torch.Tensor:
    """(length, total): whether a query sees a key; the queries are the last of the positions."""
    at = torch.arange(total - length, total, device=device)[:, None]
    keys = torch.arange(total, device=device)[None, :]
    seen = keys <= at
    return seen if window is None else seen & (at - keys < window)
