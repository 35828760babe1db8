"""A contestant's answers to the golden rows: greedy, and each prompt only once."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.artifacts import BaseModelRef
from tasks.base_model import load_tokenizer
from tasks.evaluate.answers import Answer, evenly
from tasks.evaluate.config import DecodingConfig
from tasks.evaluate.engines import Engine, Ids, open_engine, stops_of
from tasks.evaluate.known import Generated, KnownAnswers, prompt_digest
from tasks.evaluate.shots import with_examples
from tasks.example import Example

logger = logging.getLogger(__name__)


def generate(
    examples: Sequence[Example],
    base_model: BaseModelRef,
    adapter: Path | None,
    config: DecodingConfig,
    known: KnownAnswers,
    shots: Mapping[str, Sequence[Example]] | None = None,
) -> tuple[list[Answer], float | None]:
    """The answers in the order of ``examples``, and the tokens generated a second.

    The prompt is everything before the last turn, rendered by the base model's own template, as
    the server renders it; before it the ``shots`` of the row, as many as its context has room for.
    What is ``known`` is not generated again; the speed is None where all was.
    """
    tokenizer = load_tokenizer(base_model)
    stops = stops_of(base_model, tokenizer)
    with open_engine(base_model, adapter, config) as engine:
        shown = shots or {}
        asked = [_with_shots(e, shown.get(e.id, ()), tokenizer, engine.room) for e in examples]
        prompts = [_prompt(e, tokenizer) for e in asked]
        digests = [prompt_digest(prompt) for prompt in prompts]
        distinct = dict(zip(digests, prompts, strict=True))
        outputs, tokens_per_second = _outputs(distinct, engine, config, known)
    answers = [
        Answer(
            id=example.id,
            prompt=example.prompt,
            reference=_reference(asked[i], prompts[i], tokenizer),
            answer=tokenizer.decode(outputs[digests[i]].ids, skip_special_tokens=True),
            num_tokens=len(outputs[digests[i]].ids),
            truncated=not stops.intersection(outputs[digests[i]].ids),
            latency_ms=outputs[digests[i]].latency_ms,
        )
        for i, example in enumerate(examples)
    ]
    return answers, tokens_per_second


def _outputs(
    prompts: Mapping[str, Ids], engine: Engine, config: DecodingConfig, known: KnownAnswers
) -> tuple[dict[str, Generated], float | None]:
    """What follows each prompt, by its digest, and the tokens a second of those now generated."""
    digests = list(prompts)
    outputs = {digest: g for digest, g in known.read().items() if digest in prompts}
    if outputs:
        logger.info("generate: %d of %d answers are known", len(outputs), len(prompts))
    _time(
        [digests[i] for i in evenly(len(digests), config.latency_samples)],
        prompts,
        engine,
        outputs,
        known,
    )
    missing = [digest for digest in digests if digest not in outputs]
    if not missing:
        return outputs, None
    num_tokens = 0

    def done(batch: Mapping[int, Ids]) -> None:
        nonlocal num_tokens
        made = {missing[i]: Generated(ids=ids) for i, ids in batch.items()}
        known.add(made)
        outputs.update(made)
        num_tokens += sum(map(len, batch.values()))
        logger.info("generate %d/%d answers", len(outputs), len(prompts))

    started = time.monotonic()
    engine.continue_all([prompts[digest] for digest in missing], done)
    return outputs, num_tokens / (time.monotonic() - started)


def _time(
    chosen: Sequence[str],
    prompts: Mapping[str, Ids],
    engine: Engine,
    outputs: dict[str, Generated],
    known: KnownAnswers,
) -> None:
    """Let a few prompts be answered one at a time, and take the milliseconds of each."""
    missing = [d for d in chosen if d not in outputs or outputs[d].latency_ms is None]
    if not missing:
        return
    engine.continue_one(prompts[missing[0]])  # the first call pays for lazy set-up
    timed: dict[str, Generated] = {}
    for digest in missing:
        started = time.monotonic()
        ids = engine.continue_one(prompts[digest])
        timed[digest] = Generated(ids=ids, latency_ms=1000 * (time.monotonic() - started))
    known.add(timed)
    outputs |= timed


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
