"""Training on a GPU: tokens a second, peak memory and share of the chip's peak, against TRL.

    make bench B=train-gpu

Models with the shape of Llama 3.1 8B (LoRA, QLoRA) and Llama 3.2 3B (full: 8B wants two GPUs) and
random weights, on random rows of chat-like lengths that share a system prompt; the same rows in the
same steps for ours and for TRL's SFTTrainer with its defaults, in turn. Without a GPU it says so.
Runs where only torch, transformers, TRL and PEFT are installed: nothing here needs the stack.
"""

from __future__ import annotations

import copy
import gc
import json
import statistics
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import get_peft_model
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast, set_seed

from tasks.train.arguments import arguments
from tasks.train.batches import IGNORED, Row
from tasks.train.config import TrainConfig
from tasks.train.estimate.footprint import memory, shape_of, training_flops
from tasks.train.estimate.hardware import peak_bf16
from tasks.train.estimate.plan import schedule
from tasks.train.job import count_from_config
from tasks.train.model import _apply_liger, keep_float32, lora_config
from tests.benchmarks.harness import Result
from tests.benchmarks.training import (
    Steps,
    in_steps,
    largest_difference,
    run_ours,
    run_trl,
    trl_settings,
)
from tests.model_shapes import LLAMA_8B

STEPS, WARM_UP, BATCH = 8, 2, 8
SHARED = 96  # tokens of a system prompt and header
LLAMA_3B: dict[str, Any] = {
    **LLAMA_8B,
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "num_hidden_layers": 28,
    "num_attention_heads": 24,
    "tie_word_embeddings": True,
}


def any_tokenizer() -> Any:
    """What a trainer wants to be given: the rows are token ids, and nothing is decoded."""
    words = Tokenizer(WordLevel({"<pad>": 0}, unk_token="<pad>"))
    make: Any = PreTrainedTokenizerFast
    return make(tokenizer_object=words, pad_token="<pad>", eos_token="<pad>")


def train_gpu() -> Result:
    if not torch.cuda.is_available():
        return Result("train-gpu", 0.0, "no GPU here: nothing was measured", None, True)
    plain = TrainConfig(batch_size=BATCH)
    cases: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "8B LoRA": (LLAMA_8B, {}),
        "8B LoRA, checkpointing": (LLAMA_8B, {"gradient_checkpointing": True}),
        "8B QLoRA": (LLAMA_8B, {"method": "qlora"}),
        "3B full": (LLAMA_3B, {"method": "full", "learning_rate": 1e-5}),
        "8B LoRA, compiled": (LLAMA_8B, {"compile": True}),
        # The last: its kernels stay in the process, whatever is trained after it.
        "8B LoRA, liger": (LLAMA_8B, {"engine": "liger"}),
    }
    peers = {"8B LoRA", "8B QLoRA", "3B full"}  # TRL's own defaults differ in nothing else
    details: dict[str, Any] = {"device": torch.cuda.get_device_name(), "torch": torch.__version__}
    _case(LlamaConfig(**LLAMA_3B), plain, peer=False)  # warms up the chip and its libraries
    for name, (shape, changes) in cases.items():
        config = plain.model_copy(update=changes)
        details[name] = _case(LlamaConfig(**shape), config, peer=name in peers)
        print(json.dumps({name: details[name]}), file=sys.stderr, flush=True)
    ratio = details["8B LoRA"].get("times_trl", 0.0)
    holds = ratio > 1
    return Result(
        "train-gpu",
        ratio,
        "times the tokens/s of TRL's SFTTrainer with its defaults, LoRA on the shape of 8B",
        1.0,
        holds,
        details=details,
    )


def _case(model_config: Any, config: TrainConfig, *, peer: bool) -> dict[str, Any]:
    rows = random_rows(model_config.vocab_size)
    ours = _measure(lambda f: _ours(model_config, config, rows, f), rows, model_config, config)
    if not peer:
        ours.pop("losses", None)
        return {"retune": ours}
    trl = _measure(lambda f: _trl(model_config, config, rows, f), rows, model_config, config)
    answer: dict[str, Any] = {"retune": ours, "trl": trl}
    if "losses" in ours and "losses" in trl:
        answer["times_trl"] = round(ours["tokens_per_second"] / trl["tokens_per_second"], 2)
        difference = largest_difference(ours.pop("losses"), trl.pop("losses"))
        answer["largest_difference_of_a_step_s_loss"] = round(difference, 4)
    return answer


def random_rows(vocab_size: int) -> Dataset:
    """Rows of 200 to 1,000 tokens behind a common beginning; the last quarter is trained."""
    generator = torch.Generator().manual_seed(0)
    common = torch.randint(1, vocab_size, (SHARED,), generator=generator).tolist()
    lengths = torch.randint(200, 1000, (STEPS * BATCH,), generator=generator).tolist()
    rows: list[Row] = []
    for number, length in enumerate(lengths):
        own = torch.randint(1, vocab_size, (length - SHARED,), generator=generator).tolist()
        ids = [*common, *own]
        labels = [IGNORED] * (length - length // 4) + ids[length - length // 4 :]
        rows.append(Row(row=number, id=str(number), input_ids=ids, labels=labels))
    return in_steps(rows, BATCH)


def _measure(
    train: Callable[[Path], Steps], rows: Dataset, model_config: Any, config: TrainConfig
) -> dict[str, Any]:
    """Speed, memory and share of peak of one training, or why there is none."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    try:
        with tempfile.TemporaryDirectory() as folder:
            steps = train(Path(folder))
    except (RuntimeError, ValueError, TypeError, ImportError, AttributeError) as error:
        traceback.print_exc()
        return {"failed": f"{type(error).__name__}: {str(error).splitlines()[0][:300]}"}
    lengths = rows["length"]
    tokens = [sum(lengths[i : i + BATCH]) for i in range(0, len(lengths), BATCH)]
    speed = steps.tokens_per_second(tokens, WARM_UP)
    shape = shape_of(model_config, count_from_config(model_config), config.lora)
    trained = sum(label != IGNORED for labels in rows["labels"] for label in labels)
    flops = training_flops(shape, sum(lengths), sum(n * n for n in lengths), trained, config)
    peak = peak_bf16(torch.cuda.get_device_name())
    seconds = sum(lengths) / speed
    planned = memory(shape, lengths, trained / sum(lengths), config, "cuda")
    return {
        "tokens_per_second": round(speed),
        "seconds_a_step": round(statistics.median(steps.seconds[WARM_UP:]), 3),
        "peak_gib": round(steps.peak_gib, 1),
        "planned_gib": round(planned.total / 2**30, 1),
        "share_of_bf16_peak": round(flops / seconds / peak, 3) if peak else None,
        "losses": [round(loss, 4) for loss in steps.losses],
    }


def random_model(model_config: Any, config: TrainConfig) -> Any:
    """Random weights in the precision and form of the method, made on the GPU."""
    set_seed(0)
    full = config.method == "full"
    with torch.device("cuda"):
        auto: Any = AutoModelForCausalLM
        model = auto.from_config(
            copy.deepcopy(model_config), dtype=torch.float32 if full else torch.bfloat16
        )
    if full:
        return model
    if config.engine == "liger":
        _apply_liger(model)
    if config.method == "qlora":
        quantise(model)
    model.requires_grad_(False)
    return get_peft_model(model, lora_config(config, model))


def quantise(model: Any) -> None:
    """NF4 with double quantisation, as ``tasks.train.model.load_quantised`` has it, in place."""
    import bitsandbytes as bnb

    for layer in model.model.layers:
        for block in (layer.self_attn, layer.mlp):
            for name, linear in list(block.named_children()):
                if not isinstance(linear, torch.nn.Linear):
                    continue
                packed = bnb.nn.Linear4bit(
                    linear.in_features,
                    linear.out_features,
                    bias=False,
                    compute_dtype=torch.bfloat16,
                    compress_statistics=True,
                    quant_type="nf4",
                    device="meta",
                )
                packed.weight = bnb.nn.Params4bit(
                    linear.weight.data,
                    requires_grad=False,
                    quant_type="nf4",
                    compress_statistics=True,
                )
                setattr(block, name, packed.to("cuda"))
    model.is_loaded_in_4bit = True


def _ours(model_config: Any, config: TrainConfig, rows: Dataset, folder: Path) -> Steps:
    model = random_model(model_config, config)
    config = config.model_copy(update={"precision": "bfloat16", "epochs": 1.0})
    settings = arguments(config, schedule(len(rows), config), None, folder)
    settings.eval_strategy = settings.save_strategy = "no"
    settings.load_best_model_at_end = False
    settings.logging_steps = 1
    keep_float32(model)
    return run_ours(
        model, settings, rows, any_tokenizer(), micro_rows=BATCH, compiled=config.compile
    )


def _trl(model_config: Any, config: TrainConfig, rows: Dataset, folder: Path) -> Steps:
    """What a user of TRL writes: its own defaults, gradient checkpointing among them."""
    model = random_model(model_config, config)
    settings = trl_settings(folder, BATCH, config.learning_rate, max_length=None)
    return run_trl(model, settings, rows, any_tokenizer())


if __name__ == "__main__":
    print(train_gpu().line())
