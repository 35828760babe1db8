"""Small checkpoint folders in the form that transformers' Trainer writes, for tests."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

WEIGHTS = "adapter_model.safetensors"


def write_checkpoint(output: Path, step: int, best: int | None = None, mark: float = 0.0) -> Path:
    """``checkpoint-<step>``, its weights all equal to the step; ``mark`` sets attempts apart."""
    folder = output / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    save_file({"lora_A": torch.full((4, 4), float(step))}, folder / WEIGHTS)
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    for name in ("README.md", "tokenizer.json", "chat_template.jinja"):
        (folder / name).write_text("{}")
    weight = torch.nn.Parameter(torch.ones(4))
    optimizer = torch.optim.AdamW([weight], lr=0.1)
    (weight * step).sum().backward()
    optimizer.step()
    torch.save(optimizer.state_dict(), folder / "optimizer.pt")
    torch.save({"last_epoch": step, "_last_lr": [0.1]}, folder / "scheduler.pt")
    generators = {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "cpu": torch.get_rng_state(),
    }
    torch.save(generators, folder / "rng_state.pth")
    torch.save({"args": "anything"}, folder / "training_args.bin")
    (folder / "trainer_state.json").write_text(json.dumps(trainer_state(output, step, best, mark)))
    return folder


def trainer_state(output: Path, step: int, best: int | None, mark: float) -> dict[str, Any]:
    """What a Trainer that validates every 10 steps would keep."""
    return {
        "global_step": step,
        "best_global_step": best,
        "best_model_checkpoint": None if best is None else str(output / f"checkpoint-{best}"),
        "log_history": [
            {"step": at, "eval_loss": 1 / at, "grad_norm": float("nan"), "eval_runtime": mark + at}
            for at in range(10, step + 1, 10)
        ],
    }


def weight_of(checkpoint: Path) -> float:
    """What all its weights are."""
    return float(load_file(checkpoint / WEIGHTS)["lora_A"][0, 0])


def is_pickle(path: Path) -> bool:
    """By its first bytes: torch.save's zip archive, or a bare pickle of protocol 2 or above."""
    return path.read_bytes()[:4].startswith((b"PK\x03\x04", b"\x80"))
