"""What a training will take, before it starts: steps, tokens, time, memory and dollars.

Lengths of rows, a model's config, the settings and the hardware -> a ``Plan``. Steps are exact;
time and memory are estimates. ``tasks.train.estimate.budget`` says whether a plan may run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tasks.artifacts import Record
from tasks.base_model import native_dtype
from tasks.errors import ConfigError
from tasks.train.config import TrainConfig
from tasks.train.estimate.footprint import (
    Memory,
    ModelShape,
    forward_flops,
    memory,
    shape_of,
    training_flops,
)
from tasks.train.estimate.hardware import Hardware, calibrated

# Share of the peak that training reaches. GPUs: the reference's 1,500 to 3,000 tokens/s for an 8B
# LoRA on an A100 are 0.14 to 0.27 of its peak (4 FLOPs a parameter and token), large pre-trainings
# reach 0.38 to 0.46 (Chowdhery et al. 2022; Grattafiori et al. 2024). A CPU is held against its own
# measured matrix product: SmolLM2-135M reached 0.29 to 0.47 of it on busy cores with plain batches,
# 0.7 at the best on idle ones.
_UTILISATION = {"cuda": (0.14, 0.45), "cpu": (0.25, 0.75)}


class Schedule(Record):
    """Optimiser steps and validations; ``evaluate_every`` counts steps."""

    steps_an_epoch: int
    steps: int
    evaluate_every: int
    evaluations: int


class Plan(Record):
    """What a training will take. ``tokens`` and ``trained_tokens`` are of all epochs together.

    ``seconds`` lies between ``seconds_low`` and ``seconds_high`` (their geometric mean); all are
    None where the device's peak is not known. ``usd`` is None where its price is not.
    """

    num_rows: int
    tokens_an_epoch: int
    tokens: int
    trained_tokens: int
    schedule: Schedule
    flops: float
    seconds: float | None
    seconds_low: float | None
    seconds_high: float | None
    memory: Memory
    usd_per_hour: float | None
    usd: float | None
    num_trained_parameters: int
    num_processes: int
    hardware: Hardware


def schedule(num_rows: int, config: TrainConfig) -> Schedule:
    """The steps that transformers' Trainer will take, unless it stops early.

    As ``Trainer.set_initial_training_values`` counts: the last step of an epoch may hold fewer
    rows, and a part of an epoch is rounded up to whole steps. Validations are at every
    ``evaluate_every`` steps and after the last.
    """
    rows_a_step = config.batch_size * config.gradient_accumulation * config.devices.num_processes
    steps_an_epoch = math.ceil(num_rows / rows_a_step)
    steps = math.ceil(config.epochs * steps_an_epoch)
    every = max(1, math.ceil(steps_an_epoch / config.evaluations_per_epoch))
    return Schedule(
        steps_an_epoch=steps_an_epoch,
        steps=steps,
        evaluate_every=every,
        evaluations=math.ceil(steps / every),
    )


def make_plan(
    lengths: Sequence[int],
    trained_tokens: int,
    num_validation: int,
    model_config: Any,
    num_parameters: int,
    config: TrainConfig,
    hardware: Hardware,
) -> Plan:
    """Plan a training on rows of ``lengths`` tokens, ``trained_tokens`` of which have a label.

    ``model_config`` is a ``transformers.PretrainedConfig``. Validation rows are taken to be as long
    as training rows. A CPU's speed is measured unless ``hardware`` or the budget tells it. Raises
    ConfigError when there is no row, or more processes than GPUs.
    """
    _check_devices(len(lengths), config, hardware)
    shape = shape_of(model_config, num_parameters, config.lora)
    steps = schedule(len(lengths), config)
    epochs = steps.steps / steps.steps_an_epoch
    tokens_an_epoch = sum(lengths)
    flops = _flops(shape, lengths, trained_tokens, num_validation, steps, config)
    if hardware.peak_flops is None and config.budget.tokens_per_second is None:
        precision = native_dtype() if config.precision == "auto" else config.precision
        hardware = calibrated(hardware, precision)
    low, high = _seconds(flops, epochs * tokens_an_epoch, config, hardware)
    seconds = math.sqrt(low * high) if low and high else None
    price = _usd_per_hour(config, hardware)
    return Plan(
        num_rows=len(lengths),
        tokens_an_epoch=tokens_an_epoch,
        tokens=round(epochs * tokens_an_epoch),
        trained_tokens=round(epochs * trained_tokens),
        schedule=steps,
        flops=flops,
        seconds=seconds,
        seconds_low=low,
        seconds_high=high,
        memory=memory(
            shape,
            lengths,
            trained_tokens / tokens_an_epoch,
            config,
            kind=hardware.kind,
            libraries=hardware.libraries_bytes,
        ),
        usd_per_hour=price,
        usd=_usd(price, seconds),
        num_trained_parameters=num_parameters if config.method == "full" else shape.num_adapter,
        num_processes=config.devices.num_processes,
        hardware=hardware,
    )


def _check_devices(num_rows: int, config: TrainConfig, hardware: Hardware) -> None:
    if num_rows == 0:
        raise ConfigError("A training was planned on no row: expected at least one.")
    wanted = config.devices.num_processes
    if hardware.kind == "cuda" and wanted > hardware.num_devices:
        raise ConfigError(
            f"train.devices.num_processes is {wanted}, but this machine has {hardware.num_devices} "
            f"GPU(s) ({hardware.name}), and each process needs its own. Set it to "
            f"{hardware.num_devices} or below."
        )


def _flops(
    shape: ModelShape,
    lengths: Sequence[int],
    trained_tokens: int,
    num_validation: int,
    steps: Schedule,
    config: TrainConfig,
) -> float:
    """Training, every validation's loss, and the answers generated at it.

    Answers cost more time than their FLOPs tell, being bound by memory: give a measured
    ``tokens_per_second`` where many are generated.
    """
    tokens, pairs = sum(lengths), sum(length**2 for length in lengths)
    an_epoch = training_flops(shape, tokens, pairs, trained_tokens, config)
    mean = tokens / len(lengths)
    looked_at = num_validation / len(lengths)
    validation = looked_at * forward_flops(shape, tokens, pairs, trained_tokens)
    new = config.validation.max_new_tokens
    answer = forward_flops(shape, mean + new, (mean + new) ** 2, new)
    answers = min(config.validation.num_generated, num_validation) * answer
    epochs = steps.steps / steps.steps_an_epoch
    return epochs * an_epoch + steps.evaluations * (validation + answers)


def _seconds(
    flops: float, tokens: float, config: TrainConfig, hardware: Hardware
) -> tuple[float | None, float | None]:
    if (measured := config.budget.tokens_per_second) is not None:
        return tokens / measured, tokens / measured
    if hardware.peak_flops is None:
        return None, None
    # Processes on a CPU share its cores; each on a GPU has its own.
    devices = config.devices.num_processes if hardware.kind == "cuda" else 1
    worst, best = _UTILISATION[hardware.kind]
    peak = devices * hardware.peak_flops
    return flops / (best * peak), flops / (worst * peak)


def _usd_per_hour(config: TrainConfig, hardware: Hardware) -> float | None:
    """The config's price is the machine's; a known GPU's is paid for each that trains."""
    if config.budget.usd_per_hour is not None:
        return config.budget.usd_per_hour
    if hardware.usd_per_hour is None:
        return None
    return hardware.usd_per_hour * config.devices.num_processes


def _usd(usd_per_hour: float | None, seconds: float | None) -> float | None:
    if usd_per_hour == 0:
        return 0.0
    return None if usd_per_hour is None or seconds is None else usd_per_hour * seconds / 3600
