"""What runs a contestant's weights: transformers here, or a vLLM server as in production."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from tasks.artifacts import BaseModelRef
from tasks.base_model import load_contestant, load_tokenizer, locate, native_dtype, stop_ids
from tasks.evaluate.config import DecodingConfig

Ids = list[int]
# Told of each batch that is done, by the place of its prompts.
Done = Callable[[Mapping[int, Ids]], None]


class Engine(Protocol):
    """Continues prompts greedily, up to and with the first stop or to ``max_new_tokens``."""

    room: int | None  # tokens that a prompt may have; None where the model names no limit

    def continue_one(self, prompt: Sequence[int]) -> Ids:
        """One prompt, with nothing beside it."""

    def continue_all(self, prompts: Sequence[Sequence[int]], done: Done) -> None:
        """Many prompts, in whatever order is fastest."""


def stops_of(base_model: BaseModelRef, tokenizer: Any) -> set[int]:
    """The tokens that end an answer."""
    return {tokenizer.eos_token_id, *stop_ids(base_model)} - {None}


def load(base_model: BaseModelRef, adapter: Path | None, config: DecodingConfig) -> Any:
    """The model to evaluate, on the GPU where there is one."""
    import torch

    model = load_contestant(base_model, adapter, getattr(torch, precision(config)))
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def precision(config: DecodingConfig) -> str:
    """The weights' data type."""
    return native_dtype() if config.dtype == "auto" else config.dtype


class TransformersEngine:
    """transformers in this process; the model is loaded when it is first asked."""

    def __init__(
        self, base_model: BaseModelRef, adapter: Path | None, config: DecodingConfig
    ) -> None:
        from transformers import AutoConfig

        self._base_model, self._adapter, self._config = base_model, adapter, config
        self._tokenizer = load_tokenizer(base_model)
        self._stops = stops_of(base_model, self._tokenizer)
        folder = adapter
        if folder is None or (folder / "adapter_config.json").is_file():
            folder = locate(base_model.id, base_model.revision)
        limit = getattr(
            AutoConfig.from_pretrained(folder).get_text_config(), "max_position_embeddings", None
        )
        self.room = None if limit is None else int(limit) - config.max_new_tokens

    @functools.cached_property
    def _model(self) -> Any:
        from transformers import set_seed

        set_seed(0)
        return load(self._base_model, self._adapter, self._config)

    def continue_one(self, prompt: Sequence[int]) -> Ids:
        from tasks.generation import continue_greedily

        most = self._config.max_new_tokens
        return continue_greedily(self._model, self._tokenizer, [prompt], self._stops, most)[0]

    def continue_all(self, prompts: Sequence[Sequence[int]], done: Done) -> None:
        from tasks.generation import continue_sorted

        continue_sorted(
            self._model,
            self._tokenizer,
            prompts,
            self._stops,
            self._config.max_new_tokens,
            self._config.batch_size,
            done,
        )


@contextlib.contextmanager
def open_engine(
    base_model: BaseModelRef, adapter: Path | None, config: DecodingConfig
) -> Iterator[Engine]:
    """The config's engine, with what it holds on a server let go at the end."""
    if config.engine.name == "transformers":
        yield TransformersEngine(base_model, adapter, config)
        return
    from tasks.evaluate.vllm import VllmEngine

    with contextlib.closing(VllmEngine(base_model, adapter, config)) as engine:
        yield engine
