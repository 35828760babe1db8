"""A checkpoint folder of Hugging Face's Trainer <-> a folder without pickle.

Of ``checkpoint-N`` the Trainer reads, on resuming, the weights, ``optimizer.pt``,
``scheduler.pt``, ``scaler.pt``, ``rng_state*.pth`` and ``trainer_state.json`` (transformers 5.23,
trainer.py). What ``torch.save`` wrote becomes ``<name>.json`` and ``<name>.safetensors``; weights
and JSON are kept as they are; ``training_args.bin``, the card and the tokenizer are left out: the
run that resumes has its own.

One process's folder, or that of several with the whole model each (DDP). Of FSDP's sharded folders
``pytorch_model_fsdp_*`` and ``optimizer_*`` (distributed checkpoints, ``.distcp``) and of
DeepSpeed's ``global_step*`` nothing is understood; they are refused.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import threading
from pathlib import Path
from typing import Any

import torch
from transformers.trainer_pt_utils import safe_globals

from tasks.errors import StorageError
from tasks.train.resume.values import TENSORS, TREE, UndecodableError, read_value, write_value

TRAINER_STATE = "trainer_state.json"
# What may be loaded is set for the whole process, and set back by whoever set it first.
_LOADING = threading.Lock()
_SAVED_BY_TORCH = frozenset({".pt", ".pth"})
_KEPT = frozenset({".safetensors", ".json"})
_LEFT_OUT = frozenset(
    {
        "training_args.bin",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.json",
        "processor_config.json",
    }
)
_LEFT_OUT_SUFFIXES = frozenset({".md", ".jinja", ".txt", ".model", ".tiktoken"})


def encode(checkpoint: Path, folder: Path) -> None:
    """Write the safe form of ``checkpoint`` to ``folder``, which is made.

    Weights become hard links where the file system allows. Raises StorageError for a file that
    cannot be stored without pickle, naming it, and for one that cannot be read.
    """
    for path in _files(checkpoint):
        name = path.relative_to(checkpoint)
        if path.name in _LEFT_OUT or path.suffix in _LEFT_OUT_SUFFIXES:
            continue
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in _SAVED_BY_TORCH:
            write_value(_load(path), target)
        elif path.name == TRAINER_STATE:
            target.write_text(json.dumps(_without_folder(read_state(path))))
        elif path.suffix in _KEPT:
            link_or_copy(path, target)
        else:
            raise StorageError(
                f"{name} of {checkpoint.name} cannot be stored: only {sorted(_KEPT)} and what "
                f"torch.save wrote ({sorted(_SAVED_BY_TORCH)}) are known to be safe. Sharded "
                "checkpoints of FSDP and DeepSpeed are not supported."
            )


def decode(folder: Path, checkpoint: Path) -> None:
    """Write to ``checkpoint`` what a Trainer resumes from; ``folder`` is what ``encode`` wrote.

    Raises UndecodableError for a folder that is not in that form.
    """
    names = sorted(path.relative_to(folder).as_posix() for path in _files(folder))
    for name in names:
        target = checkpoint / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if not is_training_state(name):
            link_or_copy(folder / name, target)
        elif name.endswith(TREE):
            saved = name.removesuffix(TREE)
            torch.save(read_value(folder / saved), checkpoint / saved)


def is_training_state(name: str) -> bool:
    """Whether a stored file holds what ``torch.save`` wrote: of no use but to resume."""
    return Path(name).suffix in {TREE, TENSORS} and Path(Path(name).stem).suffix in _SAVED_BY_TORCH


def read_state(path: Path) -> dict[str, Any]:
    """A ``trainer_state.json``. Raises UndecodableError for one that no Trainer wrote."""
    try:
        return parse_state(path.read_bytes())
    except FileNotFoundError as error:
        raise UndecodableError(f"{path.name} is missing.") from error


def parse_state(body: bytes) -> dict[str, Any]:
    """The same from its bytes."""
    try:
        state = json.loads(body)
    except ValueError as error:
        raise UndecodableError(f"{TRAINER_STATE} cannot be read: {error}.") from error
    if not isinstance(state, dict) or not isinstance(state.get("global_step"), int):
        raise UndecodableError(f"{TRAINER_STATE} has no global_step.")
    return state


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """The same file under another name; a copy where the file system has no hard links."""
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:
        shutil.copyfile(source, target)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _without_folder(state: dict[str, Any]) -> dict[str, Any]:
    """The best checkpoint by its name: where it lay on this machine is of no use on another."""
    best = state.get("best_model_checkpoint")
    return state | {"best_model_checkpoint": Path(best).name if best else None}


def _load(path: Path) -> Any:
    try:
        with _LOADING, safe_globals():  # type: ignore[no-untyped-call]
            return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        first = str(error).partition("\n")[0]
        raise StorageError(f"{path.name} cannot be loaded without running code: {first}") from error
