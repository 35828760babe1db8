"""Whether a planned training may run, and the plan in words.

A ``Plan`` and a ``Budget`` -> nothing, or a refusal that tells what to change.
"""

from __future__ import annotations

from tasks.errors import ConfigError
from tasks.train.config import Budget
from tasks.train.estimate.plan import Plan

_CLEARLY_TOO_LARGE = 1.2  # an estimate that is off by less refuses nothing
_GIB = 2**30


def check_budget(plan: Plan, budget: Budget) -> None:
    """Refuse what costs more than the budget, or cannot fit the device at any batch size.

    Raises ConfigError that tells by how much and what to change. A limit on what cannot be
    estimated is refused too. Activations never refuse: after running out of memory, training goes
    on with smaller micro-batches.
    """
    _check_memory(plan)
    if budget.max_hours is not None:
        if plan.seconds is None:
            raise ConfigError(
                f"train.budget.max_hours is {budget.max_hours:g}, but how long training takes on "
                f"{plan.hardware.name} is not known. Set train.budget.tokens_per_second to a "
                "measured speed, or remove max_hours."
            )
        _check_limit("max_hours", budget.max_hours, plan.seconds / 3600, "hours", plan)
    if budget.max_usd is not None:
        if plan.usd is None:
            missing = "usd_per_hour" if plan.usd_per_hour is None else "tokens_per_second"
            raise ConfigError(
                f"train.budget.max_usd is {budget.max_usd:g}, but what training costs on "
                f"{plan.hardware.name} is not known. Set train.budget.{missing}, or remove max_usd."
            )
        _check_limit("max_usd", budget.max_usd, plan.usd, "dollars", plan)


def describe(plan: Plan) -> list[str]:
    """The plan in a few lines, for the log and the report."""
    steps, hardware = plan.schedule, plan.hardware
    devices = f"{plan.num_processes} processes on " if plan.num_processes > 1 else ""
    lines = [
        f"{plan.num_rows:,} rows, {plan.tokens_an_epoch:,} tokens an epoch; {plan.tokens:,} tokens "
        f"in all, {plan.trained_tokens:,} of them trained",
        f"{steps.steps:,} steps ({steps.steps_an_epoch:,} an epoch), {steps.evaluations:,} "
        f"validations, {plan.num_trained_parameters:,} trained parameters",
        f"{devices}{hardware.name}: {_time(plan)}, {_price(plan)}",
    ]
    parts = {name: size for name, size in plan.memory.model_dump().items() if size}
    told = ", ".join(f"{name} {_gib(size)}" for name, size in parts.items())
    lines.append(
        f"about {_gib(plan.memory.total)} of {_gib(_device_memory(plan))} memory a process ({told})"
    )
    return lines


def _device_memory(plan: Plan) -> int:
    shared_by = plan.num_processes if plan.hardware.kind == "cpu" else 1
    return plan.hardware.memory_bytes // shared_by


def _check_memory(plan: Plan) -> None:
    fixed, device = plan.memory.fixed, _device_memory(plan)
    if fixed > _CLEARLY_TOO_LARGE * device:
        raise ConfigError(
            f"Weights, gradients, optimiser and libraries need about {_gib(fixed)}, and "
            f"{plan.hardware.name} has {_gib(device)} a process: no batch size fits. Use "
            "train.method qlora or a smaller lora.r, a smaller base model, devices.strategy fsdp "
            "over more GPUs, or a larger device."
        )


def _check_limit(name: str, limit: float, needed: float, unit: str, plan: Plan) -> None:
    if needed <= limit:
        return
    raise ConfigError(
        f"Training would take about {needed:.3g} {unit} ({_time(plan)}, {_price(plan)}), "
        f"{needed / limit:.1f} times train.budget.{name} of {limit:g}. Lower train.epochs, the "
        f"number of rows or the format's max_length, use faster hardware, or raise {name}; where "
        "the estimate is wrong, set train.budget.tokens_per_second to a measured speed."
    )


def _time(plan: Plan) -> str:
    if plan.seconds is None or plan.seconds_low is None or plan.seconds_high is None:
        return "time not known"
    if plan.seconds_low == plan.seconds_high:
        return f"{_duration(plan.seconds)} at the measured speed"
    return (
        f"about {_duration(plan.seconds)} "
        f"({_duration(plan.seconds_low)} to {_duration(plan.seconds_high)})"
    )


def _price(plan: Plan) -> str:
    if plan.usd is None or plan.usd_per_hour is None:
        return "price not known"
    return f"${plan.usd:.2f} at ${plan.usd_per_hour:.2f} an hour" if plan.usd_per_hour else "free"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _gib(size: int) -> str:
    return f"{size / _GIB:.2f} GiB"
