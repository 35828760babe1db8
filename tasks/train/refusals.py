"""What cannot be trained, said before it is tried: settings, model, rows -> an error, or none."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from transformers.pytorch_utils import Conv1D

from tasks.errors import ConfigError, DataError
from tasks.train.config import Engine, TrainConfig

_PACKAGES: dict[Engine, tuple[str, str]] = {  # module, and what pip calls it
    "liger": ("liger_kernel", "liger-kernel"),
    "unsloth": ("unsloth", "unsloth"),
}


def check_engine(config: TrainConfig) -> None:
    """Refuse an engine that is not installed, or has no NVIDIA GPU to run on."""
    if config.engine not in _PACKAGES:
        return
    module, package = _PACKAGES[config.engine]
    if importlib.util.find_spec(module) is None:
        raise ConfigError(
            f"train.engine is {config.engine}, but {package} is not installed. Run `pip install "
            f"{package}` on a machine with an NVIDIA GPU, or set train.engine to trl."
        )
    if not torch.cuda.is_available():
        raise ConfigError(
            f"train.engine is {config.engine}, which needs an NVIDIA GPU, and PyTorch sees none. "
            "Set train.engine to trl, or train on a machine with one."
        )


def check_method(config: TrainConfig, device: str | None = None) -> None:
    """Refuse qlora where bitsandbytes is absent or cannot quantise on ``device``.

    None is the device that accelerate will train on. bitsandbytes lists the kinds of device it
    knows, not those whose library loaded here: so a small matrix is quantised and read back.
    """
    if config.method != "qlora":
        return
    try:
        import bitsandbytes
    except (ImportError, OSError) as error:
        raise ConfigError(
            f"train.method is qlora, which needs bitsandbytes, and it cannot be imported ({error})."
            " Run `pip install bitsandbytes`, or set train.method to lora."
        ) from error
    if device is None:
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        device = accelerator.type if accelerator else "cpu"
    try:
        matrix = torch.linspace(-1, 1, 64 * 64, device=device).view(64, 64)
        packed, state = bitsandbytes.functional.quantize_4bit(
            matrix, quant_type="nf4", compress_statistics=True
        )
        works = torch.allclose(
            bitsandbytes.functional.dequantize_4bit(packed, state), matrix, atol=0.2
        )
        reason = "the numbers do not come back"
    except (RuntimeError, ValueError, AttributeError) as error:  # what its backends raise
        works, reason = False, str(error).splitlines()[0]
    if not works:
        raise ConfigError(
            f"train.method is qlora, but bitsandbytes {bitsandbytes.__version__} cannot quantise "
            f"on the device {device!r}: {reason}. It knows "
            f"{', '.join(sorted(bitsandbytes.supported_torch_devices))}. `python -m bitsandbytes` "
            "says what is missing; or set train.method to lora."
        )


def check_vocabulary(model: Any, tokenizer: Any) -> None:
    """Refuse a tokenizer with ids that have no row in the model's embedding."""
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise ConfigError(
            f"The tokenizer has {len(tokenizer)} tokens, the model's embedding {rows} rows: tokens "
            f"from id {rows} on have none. Use the tokenizer that the model came with, or resize "
            "its embeddings, save it, and give that folder as base_model.id."
        )


def check_token_ids(rows: Iterable[Sequence[int]], num_embeddings: int, split: str) -> None:
    """Refuse rows (their ``input_ids``) with an id outside an embedding of ``num_embeddings``."""
    for number, ids in enumerate(rows):
        if len(ids) and not 0 <= min(ids) <= max(ids) < num_embeddings:
            worst = max(ids) if max(ids) >= num_embeddings else min(ids)
            raise DataError(
                f"{split} row {number}: token id {worst}, but the model has embeddings for 0 to "
                f"{num_embeddings - 1}. The data was formatted with another model's tokenizer: run "
                "format again with this base_model."
            )


def check_targets(model: Any, config: TrainConfig) -> None:
    """Refuse targets that no layer is called, and the head, on which TRL trains no adapter."""
    if isinstance(config.lora.target_modules, str):
        return
    adaptable = (torch.nn.Linear, Conv1D, torch.nn.Embedding)
    layers = {name: m for name, m in model.named_modules() if isinstance(m, adaptable)}
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    tied = head is not None and head.weight is embedding.weight
    for target in config.lora.target_modules:
        found = [m for name, m in layers.items() if name == target or name.endswith(f".{target}")]
        if not found:
            there = sorted({n.rpartition(".")[2] for n, m in layers.items() if m is not head})
            raise ConfigError(
                f"train.lora.target_modules: no layer of this model is called {target!r}. It has "
                f"{', '.join(there)}; or set all-linear."
            )
        if any(m is head or (tied and m is embedding) for m in found):
            why = (
                "the head and the input embeddings are one tensor (tie_word_embeddings), so an "
                "adapter on one would change both when merged"
                if tied
                else "TRL multiplies by the head's own weights, past its adapter"
            )
            raise ConfigError(
                f"train.lora.target_modules: {target!r} cannot be adapted: {why}. Remove it."
            )
