"""The base model: found by path, by name in the local models, or on the hub; pinned by digest."""

from __future__ import annotations

import json
import os
import re
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from tasks.artifacts import BaseModelRef, Record
from tasks.errors import ArtifactMissingError, ConfigError, MissingFileError
from tasks.storage import digest_of, file_digest, local_folder

_BFLOAT16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})  # the last is Arm's
# What decides a model's answers; licences and readme files may change without consequence.
_WEIGHTS_AND_CONFIGS = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt")


class BaseModelConfig(Record):
    """Which model is fine-tuned."""

    id: str = Field(
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        min_length=1,
        description="Name on the hub, or the path of a local folder in Transformers' layout",
    )
    revision: str | None = Field(None, description="Commit or tag on the hub; pin it in production")
    license: str | None = Field(None, description="The base model's licence, kept in the lineage")

    def fingerprint(self) -> object:
        """The digest of the model's files alone: where they lie and what they are called is not."""
        return pin(self).digest


def pin(config: BaseModelConfig) -> BaseModelRef:
    """The model's identity: the SHA-256 over the names and digests of its files.

    Raises MissingFileError when the model is nowhere, ConfigError when a folder holds no
    safetensors.
    """
    folder = locate(config.id, config.revision)
    return BaseModelRef(
        id=config.id,
        digest=folder_digest(folder),
        revision=config.revision,
        license=config.license,
    )


def locate(model_id: str, revision: str | None = None) -> Path:
    """The model's local folder, downloading it from the hub only when online and not there yet."""
    places = [Path(model_id), models_folder() / model_id.replace("/", "--")]
    for place in places:
        if (place / "config.json").is_file():
            return place
    if os.environ.get("HF_HUB_OFFLINE") != "1" and "/" in model_id:
        return _from_hub(model_id, revision)
    looked = " nor ".join(str(place) for place in places)
    raise MissingFileError(
        f"Base model {model_id!r}: no config.json in {looked}, and HF_HUB_OFFLINE=1 forbids the "
        "hub. Run `make setup`, give a local folder as base_model.id, or set HF_HUB_OFFLINE=0."
    )


def models_folder() -> Path:
    """Where prepared models lie: ``RETUNE_MODELS``, by default ``.local/models``."""
    return Path(os.environ.get("RETUNE_MODELS") or local_folder() / "models")


def folder_digest(folder: Path) -> str:
    """SHA-256 over the sorted names and SHA-256s of the files that decide the model's answers."""
    files = sorted({f for pattern in _WEIGHTS_AND_CONFIGS for f in folder.glob(pattern)})
    if not any(f.suffix == ".safetensors" for f in files):
        raise ConfigError(
            f"Base model in {folder}: expected *.safetensors, found none. Pickled weights are not "
            "loaded; convert them with save_pretrained(safe_serialization=True)."
        )
    return digest_of([[f.name, _known_digest(f, *_stamp(f))] for f in files])


def native_dtype() -> Literal["bfloat16", "float32"]:
    """The faster of the two on this machine: bfloat16 where its processor computes in it.

    Elsewhere PyTorch emulates it: on a CPU with AVX2 alone a matrix product took 100 times as long
    as in float32.
    """
    import torch

    if torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return "bfloat16" if _BFLOAT16_FLAGS & _cpu_flags() else "float32"


@lru_cache(maxsize=1)
def _cpu_flags() -> frozenset[str]:
    """What Linux says that the processor can do; empty elsewhere."""
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return frozenset()
    found = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", info.read_text("utf-8"), re.MULTILINE)
    return frozenset(found[1].split()) if found else frozenset()


def load_tokenizer(base: BaseModelRef) -> Any:
    """The model's own tokenizer; a missing pad token becomes the end-of-turn token."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(_verified(base), trust_remote_code=False)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def stop_ids(base: BaseModelRef) -> list[int]:
    """The tokens at which generation stops by the model's ``generation_config.json``, if any.

    Gemma, Phi and Llama 3 end a turn with a token that the tokenizer does not call its EOS; servers
    read it from here.
    """
    file = locate(base.id, base.revision) / "generation_config.json"
    found = json.loads(file.read_text()).get("eos_token_id") if file.is_file() else None
    return found if isinstance(found, list) else [] if found is None else [int(found)]


def load_model(base: BaseModelRef, dtype: Any, quantization: Any = None) -> Any:
    """The model's weights in ``dtype``, from safetensors only.

    ``quantization`` is a ``transformers.BitsAndBytesConfig``, or None.
    """
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(
        _verified(base),
        dtype=dtype,
        quantization_config=quantization,
        use_safetensors=True,
        trust_remote_code=False,
    )


def load_contestant(base: BaseModelRef, folder: Path | None, dtype: Any) -> Any:
    """The model that a training left in ``folder``, in ``dtype``; the base model for None.

    An adapter (``adapter_config.json``) comes on the base model; a whole model (``config.json``)
    stands alone. Raises ArtifactMissingError when the folder holds neither.
    """
    if folder is None:
        return load_model(base, dtype)
    if (folder / "adapter_config.json").is_file():
        from peft import PeftModel

        return PeftModel.from_pretrained(load_model(base, dtype), str(folder), torch_dtype=dtype)
    if (folder / "config.json").is_file():
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, trust_remote_code=False
        )
    raise ArtifactMissingError(
        f"{folder} holds no model: expected adapter_config.json (an adapter) or config.json (a "
        f"whole model), found {sorted(f.name for f in folder.iterdir())}. Train again."
    )


def _verified(base: BaseModelRef) -> Path:
    """The model's folder, unless its files are not those that the run was started with."""
    folder = locate(base.id, base.revision)
    if (found := folder_digest(folder)) != base.digest:
        raise ConfigError(
            f"Base model {base.id!r} in {folder} changed under its name: digest {found[:12]}, "
            f"expected {base.digest[:12]}. Restore it, or start a new run with the new files."
        )
    return folder


def _from_hub(model_id: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    patterns = list(_WEIGHTS_AND_CONFIGS)
    return Path(snapshot_download(model_id, revision=revision, allow_patterns=patterns))


def _stamp(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_size, status.st_mtime_ns


@lru_cache(maxsize=256)
def _known_digest(file: Path, _size: int, _modified: int) -> str:
    """Hashed once a process: size and time of change stand for the content in between."""
    return file_digest(file)
