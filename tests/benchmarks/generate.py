"""Generated tokens a second on the golden rows: ours against a plain loop of ``model.generate``.

    make bench B=generate

SmolLM2-135M, 24 golden rows of the sample data, at most 32 new tokens, greedily, in the precision
that is native here. The peer asks for one row at a time, as an evaluation script usually does; the
contestants take turns, three rounds, medians. Their tokens must be the same but where two tokens
were as likely as each other, which another order of sums decides: the details count such rows.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import torch

from tasks.artifacts import TaskConfig
from tasks.base_model import (
    BaseModelConfig,
    load_model,
    load_tokenizer,
    native_dtype,
    pin,
    stop_ids,
)
from tasks.generation import continue_greedily, continue_sorted
from tasks.ingest.config import ColumnMapping, SourceConfig
from tasks.ingest.snapshot import read_source
from tests.benchmarks.harness import Result

ROWS, ROUNDS, NEW_TOKENS, BATCH = 24, 3, 32, 24
TARGET = 2.0
SYSTEM = "Turn the customer message into a support ticket in JSON."
Ids = list[list[int]]


def generate() -> Result:
    base = pin(BaseModelConfig(id="HuggingFaceTB/SmolLM2-135M-Instruct"))
    tokenizer = load_tokenizer(base)
    model = load_model(base, getattr(torch, native_dtype())).eval()
    stops = {tokenizer.eos_token_id, *stop_ids(base)} - {None}
    prompts = _prompts(tokenizer)

    def ours() -> Ids:
        return continue_sorted(model, tokenizer, prompts, stops, NEW_TOKENS, BATCH)

    def plain() -> Ids:
        return [
            continue_greedily(model, tokenizer, [prompt], stops, NEW_TOKENS)[0]
            for prompt in prompts
        ]

    contestants: dict[str, Callable[[], Ids]] = {"ours": ours, "plain": plain}
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    outputs: dict[str, Ids] = {}
    continue_greedily(model, tokenizer, prompts[:1], stops, 2)  # the first call sets things up
    for _ in range(ROUNDS):
        for name, run in contestants.items():
            started = time.monotonic()
            outputs[name] = run()
            seconds = time.monotonic() - started
            rates[name].append(sum(map(len, outputs[name])) / seconds)
    speed = {name: statistics.median(values) for name, values in rates.items()}
    different = sum(a != b for a, b in zip(outputs["ours"], outputs["plain"], strict=True))
    ratio = speed["ours"] / speed["plain"]
    return Result(
        "generate",
        round(ratio, 2),
        "times a plain loop of model.generate",
        TARGET,
        ratio >= TARGET,
        peers={name: round(value, 1) for name, value in speed.items()},
        details={
            "rounds": {name: [round(v, 1) for v in values] for name, values in rates.items()},
            "rows": ROWS,
            "rows_that_differ": different,
            "dtype": native_dtype(),
        },
    )


def _prompts(tokenizer: object) -> Sequence[list[int]]:
    source = SourceConfig(
        path="deployments/sample/golden.jsonl", columns=ColumnMapping(messages="messages")
    )
    task = TaskConfig(kind="structured", system_prompt=SYSTEM)
    examples, _ = read_source(source, task)
    return [
        tokenizer.apply_chat_template(  # type: ignore[attr-defined]
            [message.as_chat() for message in example.messages[:-1]],
            add_generation_prompt=True,
            return_dict=False,
        )
        for example in examples[:ROWS]
    ]
