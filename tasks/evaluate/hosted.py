"""What a hosted model answers: greedily, many prompts at once, each an answer or a failure.

Greedy is temperature 0 with a fixed seed; the API promises no more than its best effort at giving
the same answer twice.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field

from tasks.errors import ConfigError, TrainingError
from tasks.evaluate.answers import Answer, evenly
from tasks.example import Example
from tasks.openai_client import HostedError, api_message, read, told

if TYPE_CHECKING:
    import openai

logger = logging.getLogger(__name__)
_SEED = 0
_OUTAGES = frozenset({"unavailable", "malformed"})
Prompt = Sequence[Mapping[str, Any]]  # chat messages, as ``openai_client.api_message`` writes them


@dataclass(frozen=True, slots=True)
class HostedAnswer:
    """What the model said; ``truncated`` when ``max_tokens`` ended it."""

    text: str
    num_tokens: int
    truncated: bool


@dataclass(frozen=True, slots=True)
class AnswerFailure:
    """Why a prompt has no answer: a stable reason and what was said.

    ``unavailable`` (the API did not answer, after retries) and ``malformed`` are the API's; the
    prompt's are ``invalid_request``, ``refusal``, ``content_filter``, ``tool_call`` and ``cut_off``
    (the model had said nothing when ``max_tokens`` ended it).
    """

    reason: str
    detail: str


# Asks one prompt; an exception is returned where the API did not answer, after retries, and raised
# where it never will.
Ask = Callable[[Prompt], HostedAnswer | AnswerFailure | Exception]


class _Said(BaseModel):
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[Any] | None = None


class _Choice(BaseModel):
    message: _Said
    finish_reason: str | None = None


class _Usage(BaseModel):
    completion_tokens: int = Field(ge=0)


class _Completion(BaseModel):
    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage


def answer_hosted(
    examples: Sequence[Example], name: str, ask: Ask, repeats: int = 0
) -> tuple[list[Answer], float]:
    """The answers in the order of ``examples``, and the tokens generated per second.

    ``repeats`` of them, evenly over the rows, are asked for twice. A refusal, or a call in place of
    an answer, is an empty answer. Raises ConnectionError when the API left a prompt unanswered: an
    outage is no answer.
    """
    prompts = [[api_message(m) for m in example.messages[:-1]] for example in examples]
    started = time.monotonic()
    twice = evenly(len(prompts), repeats)
    given = hosted_answers([*prompts, *(prompts[i] for i in twice)], ask)
    seconds = time.monotonic() - started
    failed = [a for a in given if isinstance(a, AnswerFailure)]
    lost = [failure for failure in failed if failure.reason in _OUTAGES]
    if lost:
        raise ConnectionError(
            f"{len(lost)} of {len(given)} prompts got no answer of {name}: {lost[0].detail}"
        )
    for failure in failed:
        logger.warning("generate: %s: %s", failure.reason, failure.detail)
    again = dict(zip(twice, given[len(prompts) :], strict=True))
    answers = [_as_answer(example, given[i], again.get(i)) for i, example in enumerate(examples)]
    num_tokens = sum(one.num_tokens for one in given if isinstance(one, HostedAnswer))
    return answers, num_tokens / seconds


def _as_answer(
    example: Example,
    given: HostedAnswer | AnswerFailure,
    again: HostedAnswer | AnswerFailure | None,
) -> Answer:
    said = given if isinstance(given, HostedAnswer) else HostedAnswer("", 0, truncated=False)
    return Answer(
        id=example.id,
        prompt=example.prompt,
        reference=example.answer,
        answer=said.text,
        num_tokens=said.num_tokens,
        truncated=said.truncated,
        latency_ms=None,
        again=None if again is None else again.text if isinstance(again, HostedAnswer) else "",
    )


def hosted_answers(
    prompts: Sequence[Prompt], ask: Ask, concurrency: int = 8
) -> list[HostedAnswer | AnswerFailure]:
    """An answer or a failure for each prompt, in order, ``concurrency`` at a time.

    Raises ConfigError at once when the key, the account, the address or the model is refused, and
    the API's own error when every prompt failed for want of an answer of the API.
    """
    with ThreadPoolExecutor(concurrency) as pool:
        asked = list(pool.map(ask, prompts))
    lost = [result for result in asked if isinstance(result, Exception)]
    if lost and len(lost) == len(asked):
        raise lost[0]
    return [
        AnswerFailure("unavailable", str(result)) if isinstance(result, Exception) else result
        for result in asked
    ]


def ask_chat(model_id: str, client: openai.OpenAI, max_tokens: int) -> Ask:
    """What asks a model behind an API in OpenAI's form."""
    import openai

    what = f"the answer of {model_id}"

    def ask(prompt: Prompt) -> HostedAnswer | AnswerFailure | Exception:
        try:
            with told(what, client):
                raw = client.chat.completions.with_raw_response.create(
                    model=model_id,
                    messages=list(prompt),  # type: ignore[arg-type]
                    temperature=0,
                    seed=_SEED,
                    max_tokens=max_tokens,
                )
            return _answer(read(raw, _Completion, what))
        except ConfigError:
            raise
        except TrainingError as error:
            return AnswerFailure("invalid_request", str(error))
        except HostedError as error:
            return AnswerFailure("malformed", str(error))
        except openai.APIError as error:
            return error

    return ask


def _answer(completion: _Completion) -> HostedAnswer | AnswerFailure:
    choice = completion.choices[0]
    said, ended = choice.message, choice.finish_reason
    if said.refusal:
        return AnswerFailure("refusal", said.refusal)
    if ended == "content_filter":
        return AnswerFailure("content_filter", "the API's filter withheld the answer")
    if not said.content and said.tool_calls:
        return AnswerFailure("tool_call", "the model called a tool instead of answering")
    if not said.content and ended == "length":
        return AnswerFailure("cut_off", "max_tokens was reached before anything was said")
    if said.content is None:
        return AnswerFailure("malformed", f"no content (finish_reason {ended})")
    return HostedAnswer(said.content, completion.usage.completion_tokens, ended == "length")
