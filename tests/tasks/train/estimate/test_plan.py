"""A plan against what the libraries really do: steps, parameters, FLOPs; and its arithmetic."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import BatchSampler, SequentialSampler
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Trainer,
    TrainingArguments,
)

from tasks.errors import ConfigError
from tasks.train.config import Budget, Devices, LoraSettings, TrainConfig, ValidationSettings
from tasks.train.estimate.footprint import NF4_BYTES, ModelShape, forward_flops, memory, shape_of
from tasks.train.estimate.footprint import training_flops as flops_of_training
from tasks.train.estimate.hardware import Hardware
from tasks.train.estimate.plan import make_plan, schedule
from tests.model_shapes import LLAMA_8B, NUM_8B

SMALL = {
    "vocab_size": 48,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
GPU = Hardware(
    name="NVIDIA A100-SXM4-80GB",
    kind="cuda",
    num_devices=2,
    memory_bytes=80 * 10**9,
    peak_flops=312e12,
    usd_per_hour=1.99,
)
LLAMA = LlamaConfig(**LLAMA_8B)


class Rows(torch.utils.data.Dataset[Any]):
    def __init__(self, num: int) -> None:
        self._num = num

    def __len__(self) -> int:
        return self._num

    def __getitem__(self, number: int) -> dict[str, list[int]]:
        return {"input_ids": [1, 2], "labels": [1, 2]}


@pytest.mark.parametrize("num_rows", [1, 7, 16, 17, 33, 100])
@pytest.mark.parametrize(
    ("batch_size", "accumulation", "epochs"),
    [(1, 1, 1.0), (8, 1, 3.0), (8, 2, 3.0), (4, 3, 2.5), (5, 7, 0.3), (16, 4, 1.1), (3, 2, 0.01)],
)
def test_steps_are_those_of_transformers(
    tmp_path: Path, num_rows: int, batch_size: int, accumulation: int, epochs: float
) -> None:
    trainer = Trainer(
        model=LlamaForCausalLM(LlamaConfig(**SMALL)),
        args=TrainingArguments(
            output_dir=str(tmp_path),
            num_train_epochs=epochs,
            per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=accumulation,
            use_cpu=True,
            report_to="none",
        ),
        train_dataset=Rows(num_rows),
    )
    values = trainer.set_initial_training_values(trainer.args, trainer.get_train_dataloader())
    found = schedule(
        num_rows,
        TrainConfig(batch_size=batch_size, gradient_accumulation=accumulation, epochs=epochs),
    )
    assert (found.steps_an_epoch, found.steps) == (values[1], values[-1])


@pytest.mark.parametrize("num_rows", [1, 15, 16, 17, 100])
@pytest.mark.parametrize("processes", [1, 2, 3, 8])
def test_steps_of_several_processes_are_those_of_accelerate(num_rows: int, processes: int) -> None:
    from accelerate.data_loader import BatchSamplerShard

    batches = BatchSampler(SequentialSampler(range(num_rows)), batch_size=4, drop_last=False)
    a_process = len(BatchSamplerShard(batches, num_processes=processes, process_index=0))
    config = TrainConfig(
        batch_size=4, gradient_accumulation=3, devices=Devices(num_processes=processes)
    )
    assert schedule(num_rows, config).steps_an_epoch == math.ceil(a_process / 3)


def test_validations_are_at_even_distances_and_at_the_end(tmp_path: Path) -> None:
    """Counted in a training that really runs: 7 steps, every 2, so at 2, 4, 6 and 7."""
    config = TrainConfig(batch_size=3, epochs=1.0, evaluations_per_epoch=4)
    planned = schedule(20, config)
    assert (planned.steps, planned.evaluate_every, planned.evaluations) == (7, 2, 4)
    trainer = Trainer(
        model=LlamaForCausalLM(LlamaConfig(**SMALL)),
        args=TrainingArguments(
            output_dir=str(tmp_path),
            num_train_epochs=1,
            per_device_train_batch_size=3,
            eval_strategy="steps",
            eval_steps=planned.evaluate_every,
            save_strategy="no",
            use_cpu=True,
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=Rows(20),
        eval_dataset=Rows(2),
    )
    trainer.train()
    evaluated = [log["step"] for log in trainer.state.log_history if "eval_loss" in log]
    assert evaluated == [2, 4, 6, 7]
    assert trainer.state.max_steps == planned.steps


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    "lora",
    [
        LoraSettings(r=4),
        LoraSettings(r=3, target_modules=("q_proj",)),
        LoraSettings(r=4, target_modules="all-linear"),
        LoraSettings(r=4, dora=True),
    ],
)
def test_parameters_are_those_of_the_model_and_of_peft(tied: bool, lora: LoraSettings) -> None:
    from peft import LoraConfig, get_peft_model

    config = LlamaConfig(**SMALL, tie_word_embeddings=tied)
    model = LlamaForCausalLM(config)
    total = model.num_parameters()
    in_layers = sum(p.numel() for p in model.model.layers.parameters()) + 16  # the last norm
    shape = shape_of(config, total, lora)
    targets = (
        lora.target_modules if isinstance(lora.target_modules, str) else [*lora.target_modules]
    )
    adapted = get_peft_model(
        model,
        LoraConfig(r=lora.r, target_modules=targets, use_dora=lora.dora, task_type="CAUSAL_LM"),
    )
    assert shape.num_layer_parameters == in_layers
    assert shape.num_adapter == adapted.get_nb_trainable_parameters()[0]
    assert (shape.num_layers, shape.num_heads, shape.attention_width) == (2, 4, 16)


def test_layers_of_gpt2_are_linear_too() -> None:
    from peft import LoraConfig, get_peft_model

    config = GPT2Config(vocab_size=48, n_positions=32, n_embd=16, n_layer=2, n_head=2)
    model = GPT2LMHeadModel(config)
    lora = LoraSettings(r=4, target_modules=("c_attn", "c_fc"), dora=True)
    shape = shape_of(config, model.num_parameters(), lora)
    settings = LoraConfig(
        r=4, target_modules=["c_attn", "c_fc"], use_dora=True, fan_in_fan_out=True
    )
    adapted = get_peft_model(model, settings)
    assert shape.num_adapter == adapted.get_nb_trainable_parameters()[0]
    assert shape.num_quantisable == 2 * 12 * 16**2


@pytest.mark.parametrize("method", ["full", "lora"])
def test_flops_are_those_that_torch_counts(method: str) -> None:
    """torch counts attention without its mask, twice what causal attention needs, and no norms."""
    from peft import LoraConfig, get_peft_model

    config = LlamaConfig(**SMALL, attn_implementation="eager", tie_word_embeddings=False)
    model: Any = LlamaForCausalLM(config)
    total, norms = model.num_parameters(), 5 * 16
    lora = LoraSettings(r=2)
    shape = shape_of(config, total - norms, lora)
    if method == "lora":
        targets = list(lora.target_modules)
        model = get_peft_model(model, LoraConfig(r=2, target_modules=targets))
        model.enable_input_require_grads()  # what lies below the first adapter, else left out
    ids = torch.randint(0, 48, (3, 10))
    with FlopCounterMode(display=False) as forward:
        loss = model(input_ids=ids, labels=ids).loss
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    counted = forward.get_total_flops() + backward.get_total_flops()
    pairs = 2 * 3 * 10**2
    settings = TrainConfig.model_validate({"method": method, "lora": lora})
    assert counted == pytest.approx(flops_of_training(shape, 30, pairs, 30, settings), rel=0.02)
    if method == "full":
        assert forward.get_total_flops() == forward_flops(shape, 30, pairs, 30)


SHAPE = ModelShape(
    num_parameters=1000,
    num_layer_parameters=800,
    num_quantisable=768,
    num_adapter=50,
    num_layers=2,
    num_heads=4,
    hidden_size=10,
    attention_width=8,
    vocab_size=20,
)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        # forward: 2*800*100 + 2*2*8*300 + 2*200*40 = 160,000 + 9,600 + 16,000
        ({"method": "full"}, 3 * 185_600),
        ({"method": "full", "gradient_checkpointing": True}, 3 * 185_600 + 169_600),
        ({}, 2 * 185_600 + 9_600 + 3 * 10_000),
        ({"method": "qlora"}, 2 * 185_600 + 9_600 + 3 * 10_000),
        ({"gradient_checkpointing": True}, 2 * 185_600 + 9_600 + 3 * 10_000 + 169_600 + 10_000),
    ],
)
def test_flops_of_a_training(settings: dict[str, Any], expected: float) -> None:
    assert flops_of_training(SHAPE, 100, 300, 40, TrainConfig(**settings)) == expected


FSDP = Devices(num_processes=2, strategy="fsdp")


@pytest.mark.parametrize(
    ("settings", "weights", "adapter", "gradients", "optimiser"),
    [
        ({}, 2_000, 200, 200, 400),
        ({"precision": "float32"}, 4_000, 200, 200, 400),
        ({"method": "qlora"}, int(NF4_BYTES * 768) + 2 * 232, 200, 200, 400),
        ({"method": "full"}, 6_000, 0, 4_000, 8_000),
        ({"method": "full", "precision": "float32"}, 4_000, 0, 4_000, 8_000),
        ({"method": "full", "devices": FSDP}, 3_000, 0, 2_000, 4_000),
        ({"devices": Devices(num_processes=2)}, 2_000, 200, 200, 400),
    ],
)
def test_memory_that_stays(
    settings: dict[str, Any], weights: int, adapter: int, gradients: int, optimiser: int
) -> None:
    found = memory(SHAPE, [5], 0.5, TrainConfig(**settings), "cuda")
    assert (found.weights, found.adapter) == (weights, adapter)
    assert (found.gradients, found.optimiser) == (gradients, optimiser)
    assert found.total == weights + adapter + gradients + optimiser + found.activations


@pytest.mark.parametrize(
    ("settings", "kind", "expected"),
    [
        # The two longest rows of 3, 9, 5: 14 tokens packed, 18 padded; half of them at the head.
        ({}, "cuda", 2 * 34 * 14 * 10 + 7 * 20 * 14),
        ({"packing": False}, "cuda", 2 * 34 * 18 * 10 + 9 * 20 * 14),
        ({"precision": "float32"}, "cuda", 2 * 2 * 34 * 14 * 10 + 7 * 20 * 16),
        ({}, "cpu", 2 * (34 * 14 * 10 + 5 * 4 * 14**2) + 7 * 20 * 14),
        ({"packing": False}, "cpu", 2 * (34 * 18 * 10 + 5 * 4 * 2 * 9**2) + 9 * 20 * 14),
        (
            {"gradient_checkpointing": True},
            "cuda",
            2 * 14 * 10 * 2 + 34 * 14 * 10 + 7 * 20 * 14,
        ),
    ],
)
def test_memory_of_the_longest_micro_batch(
    settings: dict[str, Any], kind: Any, expected: int
) -> None:
    config = TrainConfig(batch_size=2, **settings)
    assert memory(SHAPE, [3, 9, 5], 0.5, config, kind).activations == expected


@pytest.mark.parametrize(
    ("method", "gib"), [("lora", (15.0, 15.2)), ("qlora", (5.2, 5.6)), ("full", (134, 136))]
)
def test_an_8b_model_is_as_large_as_published(method: Any, gib: tuple[float, float]) -> None:
    shape = shape_of(LLAMA, NUM_8B, LoraSettings())
    assert shape.num_adapter == 13_631_488  # PEFT's own count at r=16 on q, k, v, o
    found = memory(shape, [512] * 8, 0.3, TrainConfig(method=method), "cuda")
    assert gib[0] < found.fixed / 2**30 < gib[1]


def plan_of(lengths: list[int], hardware: Hardware = GPU, **settings: Any) -> Any:
    config = TrainConfig(**settings)
    return make_plan(lengths, sum(lengths) // 4, 10, LlamaConfig(**SMALL), 10_000, config, hardware)


def test_a_plan_adds_up() -> None:
    plan = plan_of([40] * 100, batch_size=8, epochs=1.5)
    assert plan.schedule.steps_an_epoch == 13
    assert plan.schedule.steps == 20
    assert plan.tokens_an_epoch == 4_000
    assert plan.tokens == round(4_000 * 20 / 13)
    assert plan.trained_tokens == round(1_000 * 20 / 13)
    assert plan.seconds_low == pytest.approx(plan.flops / (0.45 * 312e12))
    assert plan.seconds_high == pytest.approx(plan.flops / (0.14 * 312e12))
    assert plan.seconds_low < plan.seconds < plan.seconds_high
    assert plan.usd == pytest.approx(1.99 * plan.seconds / 3600)


def test_the_reference_training_lies_in_the_estimate() -> None:
    """8B LoRA at 1,500 tokens/s plain on an A100, 3,000 with Unsloth, as the reference says."""
    lengths = [300] * 5_000
    config = TrainConfig(epochs=1)
    plan = make_plan(lengths, sum(lengths) // 4, 500, LLAMA, NUM_8B, config, GPU)
    assert plan.seconds_low is not None
    assert plan.seconds_high is not None
    assert plan.tokens / 3_000 > plan.seconds_low
    assert plan.tokens / 1_500 < plan.seconds_high * 1.2


@pytest.mark.parametrize(
    ("settings", "seconds", "usd"),
    [
        ({"budget": Budget(tokens_per_second=40)}, 300, 300 / 3600 * 1.99),
        ({"budget": Budget(tokens_per_second=40, usd_per_hour=12)}, 300, 1.0),
        ({"budget": Budget(tokens_per_second=40), "devices": FSDP}, 300, 300 / 3600 * 3.98),
    ],
)
def test_a_measured_speed_and_a_price_decide(
    settings: dict[str, Any], seconds: float, usd: float
) -> None:
    plan = plan_of([40] * 100, batch_size=1, epochs=3, **settings)
    assert (plan.seconds_low, plan.seconds_high) == (seconds, seconds)
    assert plan.seconds == pytest.approx(seconds)
    assert plan.usd == pytest.approx(usd)


def test_two_gpus_halve_the_time_and_two_processes_on_a_cpu_do_not() -> None:
    one, two = ({"devices": Devices(num_processes=n), "batch_size": 4 // n} for n in (1, 2))
    assert plan_of([8] * 64, **two).seconds == pytest.approx(plan_of([8] * 64, **one).seconds / 2)
    cpu = GPU.model_copy(update={"kind": "cpu", "num_devices": 1})
    assert plan_of([8] * 64, cpu, **two).seconds == plan_of([8] * 64, cpu, **one).seconds


def test_what_is_not_known_stays_unknown() -> None:
    plan = plan_of([8], GPU.model_copy(update={"peak_flops": None, "usd_per_hour": None}))
    assert (plan.seconds, plan.seconds_low, plan.usd_per_hour, plan.usd) == (None,) * 4


def test_a_cpu_is_measured_and_free() -> None:
    cpu = Hardware(name="cpu", kind="cpu", num_devices=1, memory_bytes=10**9, usd_per_hour=0.0)
    plan = plan_of([8] * 4, cpu)
    assert plan.seconds is not None
    assert plan.seconds > 0
    assert plan.usd == 0.0


def test_what_python_and_its_libraries_hold_counts() -> None:
    alone, beside = (
        plan_of([5] * 10, GPU.model_copy(update={"kind": "cpu", "libraries_bytes": held})).memory
        for held in (0, 10**6)
    )
    assert beside.total == alone.total + 10**6
    assert beside.fixed == alone.fixed + 10**6


def test_validation_and_answers_take_time() -> None:
    few, many = (plan_of([8] * 64, evaluations_per_epoch=n).flops for n in (1, 8))
    answers = ValidationSettings(num_generated=5, max_new_tokens=64)
    assert few < many < plan_of([8] * 64, evaluations_per_epoch=8, validation=answers).flops


def test_more_processes_than_gpus_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"num_processes is 3, but this machine has 2 GPU"):
        plan_of([8], devices=Devices(num_processes=3))
    with pytest.raises(ConfigError, match="on no row"):
        plan_of([])
