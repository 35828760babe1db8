"""Is there enough data for this way of training? Warnings, since only the result can tell."""

from __future__ import annotations

from tasks.train.config import TrainConfig

# The reference architecture's guardrails for LoRA.
_ENOUGH_FOR_LORA = 500
_ENOUGH_FOR_RANK = 1000
_SMALL_RANK = 8


def size_cautions(num_train: int, config: TrainConfig) -> dict[str, str]:
    """What the number of training examples speaks against, by a stable name."""
    cautions = {}
    if num_train < _ENOUGH_FOR_LORA:
        cautions["few_examples_for_lora"] = (
            f"{num_train:,} training examples; LoRA wants at least {_ENOUGH_FOR_LORA}, fewer teach "
            "format and vocabulary at best."
        )
    if num_train < _ENOUGH_FOR_RANK and config.lora.r > _SMALL_RANK:
        cautions["rank_for_few_examples"] = (
            f"LoRA rank {config.lora.r} on {num_train:,} examples; under {_ENOUGH_FOR_RANK:,} a "
            f"rank of {_SMALL_RANK} overfits less."
        )
    return cautions
