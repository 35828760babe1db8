"""A contestant's answers to the golden rows: greedy, in batches sorted by length."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed

from tasks.artifacts import BaseModelRef
from tasks.base_model import load_contestant, load_tokenizer, native_dtype, stop_ids
from tasks.evaluate.answers import Answer, evenly
from tasks.evaluate.config import DecodingConfig
from tasks.evaluate.shots import with_examples
from tasks.example import Example
from tasks.generation import continue_greedily, continue_sorted

logger = logging.getLogger(__name__)


def generate(
    examples: Sequence[Example],
    base_model: BaseModelRef,
    adapter: Path | None,
    config: DecodingConfig,
    shots: Mapping[str, Sequence[Example]] | None = None,
) -> tuple[list[Answer], float]:
    """The answers in the order of ``examples``, and the tokens generated per second.

    The prompt is everything before the last turn, rendered by the base model's own template, as
    the server renders it; before it the ``shots`` of the row, as many as its context has room for.
    """
    set_seed(0)
    tokenizer = load_tokenizer(base_model)
    stops = {tokenizer.eos_token_id, *stop_ids(base_model)} - {None}
    model = load(base_model, adapter, config)
    room = _room(model, config)
    asked = [_with_shots(e, (shots or {}).get(e.id, ()), tokenizer, room) for e in examples]
    prompts = [_prompt(e, tokenizer) for e in asked]

    def answer(some: Sequence[list[int]]) -> list[list[int]]:
        return continue_greedily(model, tokenizer, some, stops, config.max_new_tokens)

    latencies = _latencies(answer, prompts, config)
    started = time.monotonic()
    outputs = continue_sorted(
        model,
        tokenizer,
        prompts,
        stops,
        config.max_new_tokens,
        config.batch_size,
        lambda done: logger.info("generate %d/%d answers", done, len(prompts)),
    )
    seconds = time.monotonic() - started
    answers = [
        Answer(
            id=example.id,
            prompt=example.prompt,
            reference=_reference(asked[i], prompts[i], tokenizer),
            answer=tokenizer.decode(outputs[i], skip_special_tokens=True),
            num_tokens=len(outputs[i]),
            truncated=not stops.intersection(outputs[i]),
            latency_ms=latencies.get(i),
        )
        for i, example in enumerate(examples)
    ]
    return answers, sum(a.num_tokens for a in answers) / seconds


def load(base_model: BaseModelRef, adapter: Path | None, config: DecodingConfig) -> Any:
    """The model to evaluate, on the GPU where there is one."""
    dtype = getattr(torch, native_dtype() if config.dtype == "auto" else config.dtype)
    model = load_contestant(base_model, adapter, dtype)
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def _room(model: Any, config: DecodingConfig) -> int | None:
    """Tokens that a prompt may have, by the model's own limit; None where it names none."""
    limit = getattr(model.config, "max_position_embeddings", None)
    return None if limit is None else int(limit) - config.max_new_tokens


def _with_shots(
    question: Example, shots: Sequence[Example], tokenizer: Any, room: int | None
) -> Example:
    """The question after its examples; the first, which are least alike, go where room lacks."""
    for left_out in range(len(shots) + 1):
        asked = with_examples(question, shots[left_out:])
        if room is None or left_out == len(shots) or len(_prompt(asked, tokenizer)) <= room:
            break
    if left_out:
        logger.warning(
            "generate: %s: %d of %d examples left out, for want of room in the context",
            question.id[:12],
            left_out,
            len(shots),
        )
    return asked


def _prompt(example: Example, tokenizer: Any) -> list[int]:
    return _rendered(example, len(example.messages) - 1, tokenizer, add_generation_prompt=True)


def _reference(example: Example, prompt: Sequence[int], tokenizer: Any) -> str:
    """What the model should say: the last turn's text, or its calls as the template writes them."""
    if example.messages[-1].tool_calls is None:
        return example.answer
    whole = _rendered(example, len(example.messages), tokenizer)
    text: str = tokenizer.decode(whole[len(prompt) :], skip_special_tokens=True)
    return text.strip()


def _rendered(example: Example, count: int, tokenizer: Any, **options: Any) -> list[int]:
    """The first ``count`` turns by the model's own template."""
    ids: list[int] = tokenizer.apply_chat_template(
        [message.as_chat() for message in example.messages[:count]],
        tools=None if example.tools is None else json.loads(example.tools),
        tokenize=True,
        return_dict=False,
        **options,
    )
    return ids


def _latencies(
    answer: Callable[[Sequence[list[int]]], object],
    prompts: Sequence[list[int]],
    config: DecodingConfig,
) -> dict[int, float]:
    """Milliseconds of a few whole answers asked for one at a time, evenly over the rows."""
    timed = evenly(len(prompts), config.latency_samples)
    if not timed:
        return {}
    answer(prompts[:1])  # the first call pays for lazy set-up
    taken: dict[int, float] = {}
    for index in timed:
        started = time.monotonic()
        answer([prompts[index]])
        taken[index] = 1000 * (time.monotonic() - started)
    return taken
