"""A running vLLM server as the engine: what is evaluated is then run as production runs it.

Prompts go as token ids, so that the server's template has no say. An adapter is loaded for one
evaluation, under a name of its own, from a folder that the server must be able to read.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
from pydantic import BaseModel

from tasks.artifacts import BaseModelRef
from tasks.base_model import folder_digest, load_tokenizer
from tasks.errors import ConfigError, is_transient
from tasks.evaluate.config import DecodingConfig
from tasks.evaluate.engines import Done, Ids, stops_of
from tasks.openai_client import make_client, read

if TYPE_CHECKING:
    import openai

KEY = "VLLM_API_KEY"  # what the server itself is given its key by
_CHUNK = 8  # prompts in flight between two reports of progress, for each that may be at once
logger = logging.getLogger(__name__)


class _Model(BaseModel):
    id: str
    root: str | None = None
    max_model_len: int | None = None
    parent: str | None = None


class _Models(BaseModel):
    data: list[_Model]


class _Version(BaseModel):
    version: str


class _Choice(BaseModel):
    token_ids: list[int]


class _Completion(BaseModel):
    choices: list[_Choice]


def served_name(base_model: BaseModelRef) -> str:
    """The name that says which bytes a server serves, where it cannot be asked for their place."""
    return f"{base_model.id}@{base_model.digest[:12]}"


def version(base_url: str) -> str:
    """The server's version. Raises ConfigError where it refuses, else what the client raises."""
    with _client(base_url) as client, _told("its version", client):
        raw = client.get(f"{base_url.rstrip('/')}/version", cast_to=httpx.Response)
        return read(raw, _Version, "vLLM's version").version


class VllmEngine:
    """Asks a vLLM server, many prompts at once.

    Raises:
        ConfigError: the server does not serve this base model, or refuses the adapter.
    """

    def __init__(
        self, base_model: BaseModelRef, adapter: Path | None, config: DecodingConfig
    ) -> None:
        if adapter is not None and not (adapter / "adapter_config.json").is_file():
            raise ConfigError(
                "evaluate.decoding.engine is vllm, and the candidate is a whole model, which a "
                "running server cannot load. Set the engine's name to transformers, or "
                "train.method to lora."
            )
        self._config, self._adapter = config, adapter
        self._client = _client(config.engine.base_url)
        self._stops = sorted(stops_of(base_model, load_tokenizer(base_model)))
        served = self._served(base_model)
        limit = served.max_model_len
        self.room = None if limit is None else limit - config.max_new_tokens
        self._base_name = served.id

    def continue_one(self, prompt: Sequence[int]) -> Ids:
        with _told("an answer", self._client):
            raw = self._client.completions.with_raw_response.create(
                model=self._name,
                prompt=list(prompt),
                temperature=0,
                seed=0,
                max_tokens=self._config.max_new_tokens,
                extra_body={
                    "stop_token_ids": self._stops,
                    "return_token_ids": True,
                    "skip_special_tokens": False,
                },
            )
        return read(raw, _Completion, "vLLM's answer").choices[0].token_ids

    def continue_all(self, prompts: Sequence[Sequence[int]], done: Done) -> None:
        size = _CHUNK * self._config.engine.concurrency
        with ThreadPoolExecutor(self._config.engine.concurrency) as pool:
            for start in range(0, len(prompts), size):
                chunk = prompts[start : start + size]
                done(dict(enumerate(pool.map(self.continue_one, chunk), start)))

    def close(self) -> None:
        """Take the adapter out of the server again."""
        import openai

        if "_name" in self.__dict__ and self._adapter is not None:
            try:
                self._post("unload_lora_adapter", {"lora_name": self._name})
            except openai.OpenAIError as error:  # the answers are there
                logger.warning("vLLM keeps the adapter %s: %s", self._name, error)
        self._client.close()

    @functools.cached_property
    def _name(self) -> str:
        """The model to ask for; its adapter is loaded now, at the first question."""
        if self._adapter is None:
            return self._base_name
        name = f"evaluated-{uuid.uuid4().hex[:12]}"  # runs beside this one take out their own
        with _told(f"the adapter in {self._adapter}", self._client):
            self._post("load_lora_adapter", {"lora_name": name, "lora_path": str(self._adapter)})
        return name

    def _post(self, path: str, body: dict[str, str]) -> None:
        self._client.post(f"/{path}", body=body, cast_to=httpx.Response)

    def _served(self, base_model: BaseModelRef) -> _Model:
        with _told("its models", self._client):
            raw = self._client.models.with_raw_response.list()
        models = [m for m in read(raw, _Models, "vLLM's models").data if m.parent is None]
        for model in models:
            if model.id == served_name(base_model) or _holds(model.root, base_model):
                return model
        names = ", ".join(f"{m.id} (from {m.root})" for m in models)
        raise ConfigError(
            f"vLLM at {self._client.base_url} serves {names}; expected the base model "
            f"{base_model.id} with digest {base_model.digest[:12]}. Start it with make vllm "
            f"CONFIG=..., or with --served-model-name {served_name(base_model)}."
        )


def _holds(root: str | None, base_model: BaseModelRef) -> bool:
    """Whether the folder that a server on this machine reads holds this base model."""
    return (
        bool(root)
        and Path(str(root)).is_dir()
        and folder_digest(Path(str(root))) == (base_model.digest)
    )


def _client(base_url: str) -> openai.OpenAI:
    key = os.environ.get(KEY)
    return make_client(f"{base_url.rstrip('/')}/v1", {"OPENAI_API_KEY": key} if key else {})


@contextlib.contextmanager
def _told(what: str, client: openai.OpenAI) -> Iterator[None]:
    """The server's refusals in Retune's words; what may pass is raised as it came."""
    import openai

    try:
        yield
    except openai.APIStatusError as error:
        if is_transient(error):
            raise
        message = error.message
        if client.api_key:
            message = message.replace(client.api_key, "***")
        refusal = ConfigError(
            f"vLLM at {client.base_url} refuses {what}: {error.status_code} {message}. It needs "
            "--enable-lora, a --max-lora-rank of at least the adapter's, "
            f"VLLM_ALLOW_RUNTIME_LORA_UPDATING=1, and {KEY} where it has a key."
        )
    else:
        return
    raise refusal from None  # the original may hold the key
