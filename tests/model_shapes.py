"""Shapes of published models, for plans and for random weights."""

from __future__ import annotations

from typing import Any

# config.json of meta-llama/Llama-3.1-8B, without its long context.
LLAMA_8B: dict[str, Any] = {
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 8192,
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
    "pad_token_id": 0,
}
NUM_8B = 8_030_261_248  # parameters, as published, and as the real model counts
