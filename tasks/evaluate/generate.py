"""A contestant's answers to the golden rows: greedy, in batches sorted by length."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import GenerationConfig, set_seed

from tasks.artifacts import BaseModelRef
from tasks.base_model import load_model, load_tokenizer
from tasks.evaluate.config import DecodingConfig
from tasks.example import Example

logger = logging.getLogger(__name__)
Progress = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said to one row. ``latency_ms`` only where it was asked for alone."""

    id: str
    prompt: str
    reference: str
    answer: str
    num_tokens: int
    truncated: bool
    latency_ms: float | None


def generate(
    examples: Sequence[Example],
    base_model: BaseModelRef,
    adapter: Path | None,
    config: DecodingConfig,
    progress: Progress = lambda _: None,
) -> tuple[list[Answer], float]:
    """The answers in the order of ``examples``, and the tokens generated per second.

    The prompt is everything before the last turn, rendered by the base model's own template, as
    the server renders it.
    """
    set_seed(0)
    tokenizer = load_tokenizer(base_model)
    tokenizer.padding_side = "left"
    model = _load(base_model, adapter, config)
    prompts = [_prompt(e, tokenizer) for e in examples]
    latencies = _latencies(model, tokenizer, prompts, config)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]), reverse=True)
    outputs: dict[int, list[int]] = {}
    started = time.monotonic()
    for start in range(0, len(order), config.batch_size):
        batch = order[start : start + config.batch_size]
        continued = _continue(model, tokenizer, [prompts[i] for i in batch], config)
        outputs |= zip(batch, continued, strict=True)
        progress(len(outputs) / len(prompts))
        logger.info("generate %d/%d answers", len(outputs), len(prompts))
    seconds = time.monotonic() - started
    answers = [
        _answer(example, outputs[i], tokenizer, latencies.get(i))
        for i, example in enumerate(examples)
    ]
    return answers, sum(a.num_tokens for a in answers) / seconds


def _load(base_model: BaseModelRef, adapter: Path | None, config: DecodingConfig) -> Any:
    on_gpu = torch.cuda.is_available()
    automatic = "bfloat16" if on_gpu else "float32"
    dtype = getattr(torch, automatic if config.dtype == "auto" else config.dtype)
    model = load_model(base_model, dtype)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, str(adapter), torch_dtype=dtype)
    return model.to("cuda" if on_gpu else "cpu").eval()


def _prompt(example: Example, tokenizer: Any) -> list[int]:
    messages = [{"role": m.role, "content": m.content} for m in example.messages[:-1]]
    ids: list[int] = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=False
    )
    return ids


def _continue(
    model: Any, tokenizer: Any, prompts: Sequence[list[int]], config: DecodingConfig
) -> list[list[int]]:
    """The generated ids of each prompt, up to and with the end-of-turn token."""
    batch = tokenizer.pad({"input_ids": list(prompts)}, return_tensors="pt").to(model.device)
    settings = GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=config.max_new_tokens,
        do_sample=False,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.inference_mode():
        output = model.generate(**batch, generation_config=settings)
    rows: list[list[int]] = output[:, batch["input_ids"].shape[1] :].tolist()
    return [_upto_end(row, tokenizer.eos_token_id) for row in rows]


def _upto_end(ids: list[int], eos_token_id: int) -> list[int]:
    return ids[: ids.index(eos_token_id) + 1] if eos_token_id in ids else ids


def _latencies(
    model: Any, tokenizer: Any, prompts: Sequence[list[int]], config: DecodingConfig
) -> dict[int, float]:
    """Milliseconds of a few whole answers asked for one at a time, evenly over the rows."""
    count = min(config.latency_samples, len(prompts))
    if count == 0:
        return {}
    _continue(model, tokenizer, prompts[:1], config)  # the first call pays for lazy set-up
    taken: dict[int, float] = {}
    for number in range(count):
        index = number * len(prompts) // count
        started = time.monotonic()
        _continue(model, tokenizer, [prompts[index]], config)
        taken[index] = 1000 * (time.monotonic() - started)
    return taken


def _answer(
    example: Example, output: list[int], tokenizer: Any, latency_ms: float | None
) -> Answer:
    return Answer(
        id=example.id,
        prompt=example.prompt,
        reference=example.answer,
        answer=tokenizer.decode(output, skip_special_tokens=True),
        num_tokens=len(output),
        truncated=tokenizer.eos_token_id not in output,
        latency_ms=latency_ms,
    )
