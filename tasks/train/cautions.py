"""What the data and the settings of a training speak against: warnings, by a stable name.

Counts and a config -> one sentence each, with the figures, the reason and what to do. They warn
and never refuse, since only the result can tell. The figures are the guardrails of the reference
architecture unless a docstring says otherwise.
"""

from __future__ import annotations

from tasks.train.config import TrainConfig

_ENOUGH_FOR_LORA = 500
_ENOUGH_FOR_FULL = 5_000
_FEW = 1_000
_SMALL_RANK = 8
_EPOCHS_FOR_FEW = (3.0, 5.0)
_GENERAL_SHARE = 0.05
_ENOUGH_TO_VALIDATE = 50
_LARGE_MODEL = 10**9
_RATE_FOR_LORA = (1e-4, 3e-4)
_RATE_FOR_SMALL_LORA = (2e-4, 2e-3)
_RATE_FOR_FULL = (5e-6, 5e-5)


def cautions(
    num_train: int,
    num_validation: int,
    num_parameters: int,
    general_share: float | None,
    config: TrainConfig,
) -> dict[str, str]:
    """Everything to be said before a training starts, by a stable name.

    ``num_parameters`` counts all weights of the base model; ``general_share`` is the share of
    training rows that are general instructions, None where nobody marked them. A fine-tuning API
    chooses its own learning rate and adapter, so nothing is said of those.
    """
    found = {
        **size_cautions(num_train, config),
        **_epochs(num_train, config),
        **_general(general_share),
        **_validation(num_validation),
    }
    if config.engine == "openai":
        return found
    return {
        **found,
        **_learning_rate(num_parameters, config),
        **_full(config),
        **_dropout(num_train, config),
    }


def size_cautions(num_train: int, config: TrainConfig) -> dict[str, str]:
    """What the number of training examples speaks against, by a stable name."""
    full = config.method == "full"
    found = {}
    if full and num_train < _ENOUGH_FOR_FULL:
        found["few_examples_for_full"] = (
            f"{num_train:,} training examples for full fine-tuning, which wants at least "
            f"{_ENOUGH_FOR_FULL:,}: every weight is free to overfit. Use method lora, or add "
            "examples."
        )
    if not full and num_train < _ENOUGH_FOR_LORA:
        found["few_examples_for_lora"] = (
            f"{num_train:,} training examples; LoRA wants at least {_ENOUGH_FOR_LORA}, fewer teach "
            "format and vocabulary at best. Add examples, or expect no more than that."
        )
    if not full and config.engine != "openai" and _too_wide(num_train, config):
        found["rank_for_few_examples"] = (
            f"LoRA rank {config.lora.r} on {num_train:,} examples; under {_FEW:,} a rank of "
            f"{_SMALL_RANK} overfits less. Set lora.r to {_SMALL_RANK} or below."
        )
    return found


def learning_rate_range(num_parameters: int, config: TrainConfig) -> tuple[float, float]:
    """The peak learning rates that need no warning: the config's own, or by method and size.

    1e-4 to 3e-4 for LoRA is the reference's; models below 1B parameters stand and want more (our
    own trainings of SmolLM2-135M learn best at 1e-3); full fine-tuning wants a tenth or less.
    """
    if config.guards.learning_rate_range is not None:
        return config.guards.learning_rate_range
    if config.method == "full":
        return _RATE_FOR_FULL
    return _RATE_FOR_LORA if num_parameters >= _LARGE_MODEL else _RATE_FOR_SMALL_LORA


def _too_wide(num_train: int, config: TrainConfig) -> bool:
    return num_train < _FEW and config.lora.r > _SMALL_RANK


def _epochs(num_train: int, config: TrainConfig) -> dict[str, str]:
    low, high = _EPOCHS_FOR_FEW
    if num_train >= _FEW or low <= config.epochs <= high:
        return {}
    consequence = "fewer learn little" if config.epochs < low else "more learn the rows by heart"
    return {
        "epochs_for_few_examples": (
            f"{config.epochs:g} epochs over {num_train:,} examples; under {_FEW:,} the reference "
            f"trains {low:g} to {high:g}: {consequence}. Set epochs between them."
        )
    }


def _learning_rate(num_parameters: int, config: TrainConfig) -> dict[str, str]:
    low, high = learning_rate_range(num_parameters, config)
    rate = config.learning_rate
    if low <= rate <= high:
        return {}
    name, side, consequence = (
        ("learning_rate_low", "below", "the model may learn too little")
        if rate < low
        else ("learning_rate_high", "above", "the model may forget what it knew, or the loss break")
    )
    whose = (
        "guards.learning_rate_range"
        if config.guards.learning_rate_range is not None
        else f"the usual range of {config.method} on {_size(num_parameters)} parameters"
    )
    return {
        name: f"Learning rate {rate:g} is {side} {low:g} to {high:g}, {whose}: {consequence}. "
        "Set learning_rate within it, or guards.learning_rate_range where you know better."
    }


def _full(config: TrainConfig) -> dict[str, str]:
    if config.method != "full":
        return {}
    return {
        "full_fine_tuning": (
            "Full fine-tuning changes every weight and forgets more of what the base model knew "
            "than an adapter does. Use method lora unless there is a reason, and compare general "
            "ability before and after."
        )
    }


def _dropout(num_train: int, config: TrainConfig) -> dict[str, str]:
    if config.method == "full" or num_train >= _FEW or config.lora.dropout > 0:
        return {}
    return {
        "dropout_zero": (
            f"No LoRA dropout on {num_train:,} examples; under {_FEW:,} a dropout of 0.05 to 0.1 "
            "overfits less. Set lora.dropout to 0.05."
        )
    }


def _general(share: float | None) -> dict[str, str]:
    if share is not None and share >= _GENERAL_SHARE:
        return {}
    known = (
        "Not known how many training rows are general instructions, none being marked"
        if share is None
        else f"{share:.1%} of the training rows are general instructions"
    )
    return {
        "no_general_instructions": (
            f"{known}; 5% to 10% keep the model from forgetting what it could do. Add a source of "
            "general instructions to the mix."
        )
    }


def _validation(num_validation: int) -> dict[str, str]:
    if num_validation >= _ENOUGH_TO_VALIDATE:
        return {}
    return {
        "validation_small": (
            f"{num_validation:,} validation rows; under {_ENOUGH_TO_VALIDATE} the validation loss "
            "is noise enough to stop early, or to choose a checkpoint, by chance. Add rows or give "
            "validation a larger share."
        )
    }


def _size(num_parameters: int) -> str:
    if num_parameters >= _LARGE_MODEL:
        return f"{num_parameters / 1e9:.1f}B"
    return f"{num_parameters / 1e6:.0f}M"
