"""Adapters of random weights: they change a model's answers, and teach it nothing."""

from __future__ import annotations

from pathlib import Path

import torch

from tasks.artifacts import BaseModelRef
from tasks.base_model import load_model
from tasks.train.adapters import save_adapter


def random_adapter(folder: Path, base: BaseModelRef, seed: int) -> Path:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    settings = LoraConfig(r=8, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    model = get_peft_model(load_model(base, torch.float32), settings)
    save_adapter(model, base, folder)
    return folder
