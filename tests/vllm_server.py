"""A server with vLLM's endpoints, over transformers: right, or wrong in one of the ways it can be.

with running(StubVllm(base)) as stub: VllmServer(stub.url)
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from tasks.artifacts import BaseModelRef
from tasks.base_model import load_contestant, load_tokenizer
from tasks.likelihood import token_log_probs
from tests.json_server import json_server

Fault = Literal["template", "doubled_bos", "missing_adapter", "stale_adapter", "dtype", "refuses"]


@dataclass
class StubVllm:
    """``stale`` is the folder that is loaded instead of any other, where the fault says so."""

    base: BaseModelRef
    fault: Fault | None = None
    stale: Path | None = None
    url: str = ""
    loaded: dict[str, Path] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    _models: dict[Any, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.tokenizer = load_tokenizer(self.base)
        if self.fault == "template":
            changed = self.tokenizer.chat_template.replace("<|im_end|>\n", "<|im_end|>\n\n", 1)
            self.tokenizer.chat_template = changed
            assert "\n\n" in self.tokenizer.apply_chat_template(
                [{"role": "user", "content": "a"}], tokenize=False
            )

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if path == "/health":
            return 200, {}
        if path == "/v1/models":
            adapters = [{"id": name, "parent": "base"} for name in self.loaded]
            return 200, {"data": [{"id": "base", "parent": None}, *adapters]}
        if path == "/v1/load_lora_adapter":
            return self._load(body["lora_name"], Path(body["lora_path"]))
        if path == "/v1/unload_lora_adapter":
            self.log.append(f"unload {body['lora_name']}")
            return (200, {}) if self.loaded.pop(body["lora_name"], None) else (404, {})
        if path == "/tokenize":
            return 200, {"tokens": self._tokens(body)}
        if path == "/detokenize":
            return 200, {"prompt": self.tokenizer.decode(body["tokens"])}
        if path == "/v1/completions":
            return 200, self._likelihood(body)
        return 404, {}

    def _load(self, name: str, folder: Path) -> tuple[int, Any]:
        if self.fault == "refuses":
            return 400, {"error": {"message": "LoRA rank 8 is greater than max_lora_rank 4."}}
        if name in self.loaded:
            return 400, {"error": {"message": "already loaded"}}
        self.log.append(f"load {name}")
        self.loaded[name] = self.stale if self.fault == "stale_adapter" and self.stale else folder
        return 200, {}

    def _tokens(self, body: dict[str, Any]) -> list[int]:
        ids: list[int] = self.tokenizer.apply_chat_template(
            body["messages"],
            tools=body.get("tools"),
            add_generation_prompt=body["add_generation_prompt"],
            return_dict=False,
        )
        return [self.tokenizer.bos_token_id, *ids] if self.fault == "doubled_bos" else ids

    def _likelihood(self, body: dict[str, Any]) -> Any:
        folder = None if self.fault == "missing_adapter" else self.loaded[body["model"]]
        dtype = torch.bfloat16 if self.fault == "dtype" else torch.float32
        ids = [*body["prompt"], *body["allowed_token_ids"]]
        found = token_log_probs(self._model(folder, dtype), ids, len(ids) - 1)
        return {"choices": [{"logprobs": {"token_logprobs": found}}]}

    def _model(self, folder: Path | None, dtype: torch.dtype) -> Any:
        if (folder, dtype) not in self._models:
            self._models[folder, dtype] = load_contestant(self.base, folder, dtype).eval()
        return self._models[folder, dtype]


@contextmanager
def running(stub: StubVllm) -> Iterator[StubVllm]:
    """On a free port; one request after the other, as models are not shared between threads."""
    lock = threading.Lock()

    def answer(path: str, body: dict[str, Any]) -> tuple[int, Any]:
        with lock:
            return stub.answer(path, body)

    with json_server(answer) as stub.url:
        yield stub
