"""Base models that tests share: the prepared SmolLM2, and a tiny random one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from deployments import environment

ALL_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
SMOL = "HuggingFaceTB/SmolLM2-135M-Instruct"


@pytest.fixture(scope="session")
def smol() -> Path:
    """The prepared SmolLM2 folder, which `make setup` makes."""
    folder = environment.models() / SMOL.replace("/", "--")
    if not folder.is_dir():
        pytest.fail(f"{folder} is missing: run `make setup`.")
    return folder


@pytest.fixture(scope="session")
def tiny_model(smol: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two thin layers with random weights and SmolLM2's own tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("tiny-model")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        tie_word_embeddings=False,
        initializer_range=0.1,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    for file in smol.iterdir():
        if "token" in file.name or file.suffix in {".jinja", ".txt"} or file.name == "vocab.json":
            shutil.copy(file, folder)
    return folder
