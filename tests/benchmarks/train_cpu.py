"""Trained tokens a second on a CPU: ours against TRL, a plain loop and LLaMA-Factory.

    make bench B=train-cpu [RETUNE_DATA=<folder with banking77_train.csv>]

SmolLM2-135M, BANKING77 rows with a system prompt, LoRA r=16 on q/k/v/o. Same rows in the same steps
for all but LLaMA-Factory, which has an order of its own; the contestants take turns, so that a
machine that slows down slows all. TRL runs with its defaults, but in float32 where this processor
does not compute in bfloat16: its own default, emulated there, is measured on two steps of two
rows and told in the details. The loss of each step must be as near to that of float32 as the
peers' are: bfloat16 has no one answer, since some round after each operation and compiled ones
after several. The figure is ours with compiled
layers after the first step, which compiles. LLaMA-Factory runs where
`python -m tests.benchmarks.peers` installed it. The details say how near ours comes to what the
processor can multiply, which bounds the figure.
"""

from __future__ import annotations

import csv
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import get_peft_model
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode
from transformers import set_seed

from deployments import environment
from tasks.artifacts import BaseModelRef
from tasks.base_model import BaseModelConfig, load_model, load_tokenizer, native_dtype, pin
from tasks.example import Example, Message
from tasks.format.config import FormatConfig
from tasks.format.dataset import format_examples, write
from tasks.format.template import Template
from tasks.train.arguments import arguments
from tasks.train.batches import load_split, pad
from tasks.train.config import LoraSettings, TrainConfig
from tasks.train.estimate.hardware import measure_cpu
from tasks.train.estimate.plan import schedule
from tasks.train.model import load_base, lora_config
from tests.benchmarks import peers
from tests.benchmarks.harness import Result, data_file
from tests.benchmarks.training import (
    Steps,
    in_steps,
    largest_difference,
    overlay,
    run_ours,
    run_trl,
    tokens_by_step,
    trl_settings,
)

STEPS, ROUNDS, BATCH = 9, 3, 16
FEW = 2  # rows in a step of TRL as it comes, which may take a minute
TARGET = 4.0
SAME_LOSS = 0.05  # nats: what another order of sums may differ by
SYSTEM = "Name the intent of the banking customer's message."
CONFIG = TrainConfig(
    batch_size=BATCH,
    epochs=1,
    learning_rate=1e-3,
    warmup_share=0.0,
    schedule="constant",
    lora=LoraSettings(dropout=0.0),
)


def train_cpu() -> Result:
    base = pin(BaseModelConfig())
    tokenizer = load_tokenizer(base)
    examples = banking(STEPS * BATCH)
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        rows = formatted(examples, tokenizer, folder)
        tokens = tokens_by_step(rows, BATCH)
        contestants: dict[str, Callable[[], Steps]] = {
            "retune": lambda: _ours(base, rows, tokenizer, folder),
            "retune, compiled": lambda: _ours(base, rows, tokenizer, folder, compiled=True),
            "trl": lambda: _trl(base, rows, tokenizer, folder),
            "plain loop": lambda: _plain_loop(base, rows, tokenizer),
        }
        runs: dict[str, list[Steps]] = {contestant: [] for contestant in contestants}
        exact = _ours(base, rows, tokenizer, folder, precision="float32").losses
        for _ in range(ROUNDS):
            for contestant, train in contestants.items():
                runs[contestant].append(train())
        bound = _bound(lambda: _ours(base, rows.select(range(BATCH)), tokenizer, folder), tokens[0])
        few = rows.select(range(2 * FEW))
        as_it_comes = _trl_as_it_comes(base, few, tokenizer, folder).tokens_per_second(
            tokens_by_step(few, FEW)
        )
        factory = peers.llama_factory_tokens_per_second(
            examples, SYSTEM, CONFIG, folder, sum(tokens)
        )
    return _result(runs, tokens, factory, bound, as_it_comes, exact)


def banking(count: int) -> list[Example]:
    """The first messages of BANKING77's training file, each asking for its intent."""
    with data_file("banking77_train.csv").open(encoding="utf-8") as file:
        found = [line for line, _ in zip(csv.DictReader(file), range(40 * count), strict=False)]
    return [
        Example(
            str(number),
            (
                Message("system", SYSTEM),
                Message("user", line["text"].strip()),
                Message("assistant", line["category"]),
            ),
            "human",
            str(number),
        )
        for number, line in enumerate(found[:: max(1, len(found) // (2 * count))])
    ][: count + 8]


def formatted(examples: list[Example], tokenizer: Any, folder: Path) -> Dataset:
    count = len(examples) - 8
    splits = ["train"] * count + ["validation"] * 8
    write(format_examples(examples, splits, Template(tokenizer), FormatConfig()), folder)
    return in_steps(list(load_split(folder, "train")), BATCH)


def _ours(
    base: BaseModelRef,
    rows: Dataset,
    tokenizer: Any,
    folder: Path,
    *,
    compiled: bool = False,
    precision: str | None = None,
) -> Steps:
    set_seed(0)
    config = CONFIG.model_copy(update={"precision": precision or native_dtype()})
    settings = arguments(config, schedule(len(rows), config), None, folder / "ours")
    settings.eval_strategy = settings.save_strategy = "no"
    settings.load_best_model_at_end = False
    settings.logging_steps = 1
    model = load_base(base, config)
    model = get_peft_model(model, lora_config(config, model))
    return run_ours(model, settings, rows, tokenizer, micro_rows=BATCH, compiled=compiled)


def _trl(base: BaseModelRef, rows: Dataset, tokenizer: Any, folder: Path) -> Steps:
    """What a user of TRL writes."""
    set_seed(0)
    model = load_model(base, getattr(torch, native_dtype()))
    settings = trl_settings(
        folder / "trl",
        BATCH,
        CONFIG.learning_rate,
        lr_scheduler_type="constant",
        bf16=native_dtype() == "bfloat16",
        use_cpu=True,
    )
    return run_trl(get_peft_model(model, lora_config(CONFIG, model)), settings, rows, tokenizer)


def _trl_as_it_comes(base: BaseModelRef, rows: Dataset, tokenizer: Any, folder: Path) -> Steps:
    """TRL in whatever precision it takes by default, of weights as they are stored."""
    set_seed(0)
    model = load_model(base, "auto")
    settings = trl_settings(
        folder / "trl-as-it-comes",
        FEW,
        CONFIG.learning_rate,
        lr_scheduler_type="constant",
        use_cpu=True,
    )
    return run_trl(get_peft_model(model, lora_config(CONFIG, model)), settings, rows, tokenizer)


def _plain_loop(base: BaseModelRef, rows: Dataset, tokenizer: Any) -> Steps:
    """Forward, backward, step: transformers and PyTorch, padded batches, nothing else."""
    import time

    set_seed(0)
    dtype = getattr(torch, native_dtype())
    model = load_model(base, dtype)
    model = get_peft_model(model, lora_config(CONFIG, model)).train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=CONFIG.learning_rate, weight_decay=0.0)
    steps = Steps()
    for start in range(0, len(rows), BATCH):
        began = time.perf_counter()
        batch = pad([rows[i] for i in range(start, start + BATCH)], tokenizer.pad_token_id)
        labels = batch.pop("labels")[:, 1:]
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            logits = model(**batch, use_cache=False).logits[:, :-1]
        loss = functional.cross_entropy(logits.float().flatten(0, 1), labels.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, CONFIG.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        steps.seconds.append(time.perf_counter() - began)
        steps.losses.append(float(loss.detach()))
    return steps


def _bound(one_step: Callable[[], Steps], num_tokens: int) -> float:
    """Tokens a second if ours did its multiplications at the best measured speed, and nothing else.

    The arithmetic of a step as torch counts it; the speed of large square products.
    """
    with FlopCounterMode(display=False) as counter:
        one_step()
    peak = max(measure_cpu(native_dtype()) for _ in range(5))
    return peak * num_tokens / counter.get_total_flops()


def _result(
    runs: dict[str, list[Steps]],
    tokens: list[int],
    factory: float | None,
    bound: float,
    as_it_comes: float,
    exact: Sequence[float],
) -> Result:
    speeds = {
        name: statistics.median(s.tokens_per_second(tokens) for s in steps)
        for name, steps in runs.items()
    }
    ratio = speeds["retune, compiled"] / speeds["trl"]
    losses = {name: steps[0].losses for name, steps in runs.items()}
    picture = environment.local() / "benchmarks" / "train-cpu-loss.png"
    overlay({"float32": exact, **losses}, picture, "Loss of each step, the same rows")
    differences = {
        name: round(largest_difference(exact, other), 4) for name, other in losses.items()
    }
    if factory is not None:
        speeds["llama-factory"] = factory
    noise = max(SAME_LOSS, 1.5 * max(differences["trl"], differences["plain loop"]))
    same = all(differences[name] <= noise for name in ("retune", "retune, compiled"))
    ahead = all(
        speeds["retune"] > speed for name, speed in speeds.items() if not name.startswith("retune")
    )
    return Result(
        "train-cpu",
        round(ratio, 2),
        f"times the tokens/s of TRL's SFTTrainer with its defaults, in {native_dtype()}",
        TARGET,
        ratio >= TARGET and same and ahead,
        peers={name: {"tokens_per_second": round(speed)} for name, speed in speeds.items()},
        details={
            "largest_difference_of_a_step_s_loss_from_float32": differences,
            "tokens_per_second_if_multiplying_alone": round(bound),
            "times_trl_if_multiplying_alone": round(bound / speeds["trl"], 2),
            "trl_as_it_comes": round(as_it_comes, 1),
            "times_trl_as_it_comes": round(speeds["retune, compiled"] / as_it_comes, 1),
            "times_trl_not_compiled": round(speeds["retune"] / speeds["trl"], 2),
            "seconds_of_the_first_step_compiled": [
                round(steps.seconds[0]) for steps in runs["retune, compiled"]
            ],
            "picture": str(picture),
        },
    )
