"""The client of an API in OpenAI's form, its refusals in Retune's words, its answers checked.

Every answer is read from its text into a small record, so that nonsense is one kind of error. What
passes by itself (``is_transient``) is raised as it came; what does not is told without the API key,
which some servers repeat in their refusals.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from tasks.artifacts import Record
from tasks.errors import ConfigError, RetuneError, TrainingError, is_transient
from tasks.example import Message

if TYPE_CHECKING:
    import openai

OPENAI_URL = "https://api.openai.com/v1"
TIMEOUT_SECONDS = 300.0
_MAX_RETRIES = 4
_NO_KEY = "none"
Answer = TypeVar("Answer", bound=BaseModel)


HOSTED = "hosted.json"


class HostedError(RetuneError):
    """The API answered something that is not an answer."""


class HostedModel(Record):
    """What serves of a hosted training: kept as ``hosted.json``, whose digest is its identity."""

    model_id: str
    job_id: str
    base_model: str
    base_url: str | None
    trained_tokens: int | None
    cost_usd: float | None


def load_hosted(folder: Path) -> HostedModel | None:
    """The hosted model that an artifact names, or None where it holds weights of its own."""
    file = folder / HOSTED
    return HostedModel.model_validate_json(file.read_bytes()) if file.is_file() else None


def api_message(message: Message) -> dict[str, Any]:
    """A message as the API reads it: the arguments of a call are JSON text, not an object.

    A turn that only calls has no content, rather than an empty one.
    """
    chat = message.as_chat()
    if "tool_calls" in chat:
        chat["tool_calls"] = [_api_call(call) for call in chat["tool_calls"]]
        if not chat["content"]:
            del chat["content"]
    return chat


def make_client(
    base_url: str | None, environ: Mapping[str, str], max_retries: int = _MAX_RETRIES
) -> openai.OpenAI:
    """A client that retries throttling, server errors and lost connections.

    ``base_url`` is the config's, None for that of the environment. A base URL without a key is a
    gateway that holds the key itself, or a stand-in. Raises ConfigError when there is neither, or
    when the URL is none.
    """
    import openai  # takes a second

    key = environ.get("OPENAI_API_KEY")
    url = base_url or environ.get("OPENAI_BASE_URL")
    if not key and not url:
        raise ConfigError(
            "An API in OpenAI's form is asked for, and neither OPENAI_API_KEY nor OPENAI_BASE_URL "
            "nor a base_url in the config is set. Set the key in the environment of the worker."
        )
    if url and not url.startswith(("https://", "http://")):
        raise ConfigError(f"base_url or OPENAI_BASE_URL: {url!r} is not an HTTP URL.")
    return openai.OpenAI(
        api_key=key or _NO_KEY,
        base_url=url or OPENAI_URL,
        max_retries=max_retries,
        timeout=TIMEOUT_SECONDS,
    )


@contextlib.contextmanager
def told(what: str, client: openai.OpenAI, passed: tuple[int, ...] = ()) -> Iterator[None]:
    """Refusals in Retune's words, but for the statuses ``passed``.

    Raises ConfigError (the key, the account, the address or the model) or TrainingError (this
    request); what may pass is raised as it came.
    """
    import openai

    try:
        yield
    except openai.APIStatusError as error:
        if error.status_code in passed or not refuses(error):
            raise
        refusal = _refusal(what, error, client)
    else:
        return
    raise refusal from None  # the original may hold the key


def refuses(error: openai.APIStatusError) -> bool:
    """Whether trying again is of no use; an exhausted quota comes as throttling, but stays."""
    return not is_transient(error) or error.code == "insufficient_quota"


def _refusal(what: str, error: openai.APIStatusError, client: openai.OpenAI) -> RetuneError:
    """What the API said, and what to do about it."""
    message = error.message
    if client.api_key != _NO_KEY:
        message = message.replace(client.api_key, "***")
    param = f" (param {error.param})" if error.param else ""
    told = f"{what} at {client.base_url}: {error.status_code} {message}{param}."
    advice = {
        401: "Check OPENAI_API_KEY.",
        403: "Check that the key's project may fine-tune and use this model.",
        404: "Check base_url and the model in the config, and that the key is of the "
        "project that owns the job.",
    }
    if error.status_code in advice:
        return ConfigError(f"{told} {advice[error.status_code]}")
    if error.code == "insufficient_quota":
        return ConfigError(f"{told} The account's quota is used up: add credit, then run again.")
    return TrainingError(told)


def read(raw: Any, kind: type[Answer], what: str) -> Answer:
    """The body of a raw response. Raises HostedError for one that is none."""
    try:
        return kind.model_validate_json(raw.content)
    except ValidationError as error:
        problem = error
    raise _nonsense(problem, what)


def checked(kind: type[Answer], item: dict[str, Any], what: str) -> Answer:
    """An item of a list. Raises HostedError for one that is none."""
    try:
        return kind.model_validate(item)
    except ValidationError as error:
        problem = error
    raise _nonsense(problem, what)


def _nonsense(error: ValidationError, what: str) -> HostedError:
    first = error.errors(include_url=False)[0]
    place = ".".join(map(str, first["loc"])) or "the body"
    return HostedError(
        f"{what}: the API's answer cannot be read: {place}: {first['msg']}, came "
        f"{str(first['input'])[:100]!r}. Is the address that of a fine-tuning API?"
    )


def _api_call(call: dict[str, Any]) -> dict[str, Any]:
    function = call["function"]
    arguments = function["arguments"]
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False, separators=(",", ":"))
    return {**call, "type": "function", "function": {**function, "arguments": arguments}}
