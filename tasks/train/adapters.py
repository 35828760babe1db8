"""A trained model -> files that serve: the same weights are always the same bytes.

An adapter is two files in PEFT's layout; a whole model is a folder in transformers' layout, with
the base model's own tokenizer.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from tasks.artifacts import BaseModelRef
from tasks.base_model import locate
from tasks.errors import TrainingError
from tasks.storage import digest_of, file_digest

WEIGHTS, SETTINGS = "adapter_model.safetensors", "adapter_config.json"
MODEL_CONFIG = "config.json"
_SHARD = "5GB"  # a file's size on the hub since transformers 4; part of the bytes, so not left open
# What else of a whole model decides its answers. Named, because logs lie in the same folder.
_BESIDE_WEIGHTS = (
    "generation_config.json",
    "token*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.jinja",
    "*.model",
)


State = dict[str, torch.Tensor]


def save_adapter(model: Any, base: BaseModelRef, folder: Path, state: State | None = None) -> None:
    """Write a ``PeftModel``'s adapter; ``state`` is its whole state where the model is sharded.

    PEFT writes the layers in the order of a set and the base model as this machine's path: the
    first is sorted, the second is its name. No embedding is saved: the vocabulary never changes.
    """
    # Left to decide for itself, PEFT would ask the hub for the base model's vocabulary.
    model.save_pretrained(
        folder, state_dict=state, safe_serialization=True, save_embedding_layers=False
    )
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty card; it holds a local path
    settings = json.loads((folder / SETTINGS).read_text("utf-8"))
    settings["base_model_name_or_path"] = base.id
    settings["revision"] = base.revision
    if isinstance(settings["target_modules"], list):
        settings["target_modules"].sort()
    (folder / SETTINGS).write_text(json.dumps(settings, indent=1, sort_keys=True), "utf-8")


def save_full(
    model: Any, base: BaseModelRef, folder: Path, state: State | None = None
) -> torch.dtype:
    """Write a whole transformers model in the base model's own dtype, which is answered.

    float32 master weights are rounded to what the base model is kept in: twice the size would
    serve no better, since servers load that dtype. The tokenizer's files are the base model's own
    bytes. Raises TrainingError for weights that are not finite.
    """
    origin = locate(base.id, base.revision)
    dtype = stored_dtype(base)
    state = _cast(model.state_dict() if state is None else state, dtype)
    model.save_pretrained(folder, state_dict=state, max_shard_size=_SHARD)
    config = json.loads((folder / MODEL_CONFIG).read_text("utf-8"))
    config.pop("_name_or_path", None)  # a path on this machine
    config["dtype"] = str(dtype).removeprefix("torch.")
    (folder / MODEL_CONFIG).write_text(json.dumps(config, indent=1, sort_keys=True), "utf-8")
    for file in _matching(origin, _BESIDE_WEIGHTS):
        shutil.copyfile(file, folder / file.name)
    return dtype


def stored_dtype(base: BaseModelRef) -> torch.dtype:
    """The dtype that the base model's config names; float32 where it names none."""
    from transformers import AutoConfig

    dtype = AutoConfig.from_pretrained(locate(base.id, base.revision)).dtype
    return dtype if isinstance(dtype, torch.dtype) else torch.float32


def weights_digest(folder: Path) -> str:
    """SHA-256 over the names and digests of the files that serve, and of nothing else.

    Of an adapter its weights and settings; of a whole model its weights, configs and tokenizer.
    Logs, cards and checkpoints may differ. Raises TrainingError when the folder holds neither.
    """
    if (folder / SETTINGS).is_file():
        return digest_of({name: file_digest(folder / name) for name in (WEIGHTS, SETTINGS)})
    weights = sorted(folder.glob("*.safetensors"))
    if not weights or not (folder / MODEL_CONFIG).is_file():
        raise TrainingError(
            f"{folder} holds no trained model: expected {SETTINGS}, or {MODEL_CONFIG} and "
            "*.safetensors. Save one before asking for its digest."
        )
    files = [*weights, folder / MODEL_CONFIG, *_matching(folder, _BESIDE_WEIGHTS)]
    return digest_of({file.name: file_digest(file) for file in files})


def _cast(whole: State, dtype: torch.dtype) -> State:
    """The state in ``dtype``; tensors that are one stay one, as transformers expects."""
    once: dict[int, torch.Tensor] = {}
    state: State = {}
    for name, tensor in whole.items():
        if not torch.isfinite(tensor).all():
            raise TrainingError(
                f"The weights {name} are not all finite: the training broke down. Lower "
                "train.learning_rate and train again."
            )
        key = tensor.data_ptr()
        if key not in once:
            once[key] = tensor.to(dtype) if tensor.is_floating_point() else tensor
        state[name] = once[key]
    return state


def _matching(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    return sorted({file for pattern in patterns for file in folder.glob(pattern)})
