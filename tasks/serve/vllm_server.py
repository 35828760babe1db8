"""A vLLM server as whoever runs it speaks to it: its adapters, its tokens, its likelihoods."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from tasks.errors import RetuneError

Answer = TypeVar("Answer", bound=BaseModel)
_AT_ONCE = 4  # questions; live requests are to be answered beside them
_TIMEOUT = httpx.Timeout(120.0, connect=5.0)


class ServerError(RetuneError):
    """The server refused, or answered what is no answer."""


class _Model(BaseModel):
    id: str
    parent: str | None = None


class _Models(BaseModel):
    data: list[_Model]


class _Tokens(BaseModel):
    tokens: list[int]


class _Text(BaseModel):
    prompt: str


class _LogProbs(BaseModel):
    token_logprobs: list[float | None]


class _Choice(BaseModel):
    logprobs: _LogProbs


class _Completion(BaseModel):
    choices: list[_Choice]


class VllmServer:
    """The server at ``url``.

    Every call raises ServerError where it refuses, or httpx.TransportError where it is away.
    """

    def __init__(self, url: str, key: str | None = None) -> None:
        self.url = url.rstrip("/")
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.Client(headers=headers, timeout=_TIMEOUT, trust_env=False)

    def close(self) -> None:
        self._client.close()

    def is_up(self) -> bool:
        """Whether it answers that it is well."""
        try:
            return self._client.get(f"{self.url}/health", timeout=5).is_success
        except httpx.HTTPError:
            return False

    def base_models(self) -> list[str]:
        """The names of its base model."""
        return [model.id for model in self._models() if model.parent is None]

    def adapters(self) -> list[str]:
        """The names of the adapters that it holds."""
        return [model.id for model in self._models() if model.parent is not None]

    def load(self, name: str, folder: Path) -> None:
        """Load an adapter under a name that is not taken."""
        self._post("/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(folder)})

    def unload(self, name: str) -> None:
        self._post("/v1/unload_lora_adapter", {"lora_name": name})

    def tokens(self, turns: Sequence[dict[str, Any]], tools: str | None) -> list[int]:
        """The tokens that a request with these messages is answered from."""
        body = {
            "model": self.base_models()[0],
            "messages": [_as_api(turn) for turn in turns],
            "add_generation_prompt": True,
            **({"tools": json.loads(tools)} if tools else {}),
        }
        return self._asked("/tokenize", body, _Tokens).tokens

    def log_probs(self, model: str, prompt: list[int], answer: list[int]) -> list[float]:
        """The log-probability of each token of an answer, in nats.

        Each token is asked for as the only one allowed next, which leaves its likelihood as it is:
        vLLM tells that of the model's own distribution (``raw_logprobs``). All of them at once,
        as ``prompt_logprobs``, ends the server where it holds adapters and answers others meanwhile
        (vLLM's issue 16668; seen with 0.32 on a CPU).
        """

        def one(place: int) -> float:
            body = {
                "model": model,
                "prompt": [*prompt, *answer[:place]],
                "max_tokens": 1,
                "temperature": 0,
                "logprobs": 0,
                "allowed_token_ids": [answer[place]],
            }
            told = self._asked("/v1/completions", body, _Completion).choices[0].logprobs
            found = told.token_logprobs[0] if told.token_logprobs else None
            if found is None:
                raise ServerError(f"{self.url}: the likelihood of a token was not told.")
            return found

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return list(pool.map(one, range(len(answer))))

    def text(self, token: int) -> str:
        """What a token stands for."""
        body = {"model": self.base_models()[0], "tokens": [token]}
        return self._asked("/detokenize", body, _Text).prompt

    def _models(self) -> list[_Model]:
        answer = self._client.get(f"{self.url}/v1/models")
        return self._read(answer, _Models).data

    def _asked(self, path: str, body: dict[str, Any], kind: type[Answer]) -> Answer:
        return self._read(self._post(path, body), kind)

    def _post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        answer = self._client.post(f"{self.url}{path}", json=body)
        if not answer.is_success:
            said = answer.text[:500]
            raise ServerError(f"{self.url}{path}: {answer.status_code}: {said}")
        return answer

    def _read(self, answer: httpx.Response, kind: type[Answer]) -> Answer:
        try:
            return kind.model_validate_json(answer.raise_for_status().content)
        except (httpx.HTTPStatusError, ValidationError) as error:
            raise ServerError(f"{answer.url}: no answer as expected: {error}") from error


def _as_api(turn: dict[str, Any]) -> dict[str, Any]:
    """In OpenAI's form the arguments of a call are JSON text, not an object."""
    if "tool_calls" not in turn:
        return turn
    calls = []
    for call in turn["tool_calls"]:
        function = call["function"]
        arguments = function["arguments"]
        if not isinstance(arguments, str):
            function = {**function, "arguments": json.dumps(arguments, ensure_ascii=False)}
        calls.append({**call, "function": function})
    return {**turn, "tool_calls": calls}
