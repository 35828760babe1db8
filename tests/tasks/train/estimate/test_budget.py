"""Plans over the budget, without a price, or too large; and the plan in words."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.errors import ConfigError
from tasks.train.config import Budget
from tasks.train.estimate.budget import check_budget, describe
from tasks.train.estimate.footprint import Memory
from tasks.train.estimate.hardware import Hardware
from tasks.train.estimate.plan import Plan, Schedule

GIB = 2**30
GPU = Hardware(name="NVIDIA L4", kind="cuda", num_devices=1, memory_bytes=24 * GIB)


def plan_of(**changes: Any) -> Plan:
    values: dict[str, Any] = {
        "num_rows": 1_500,
        "tokens_an_epoch": 100_000,
        "tokens": 300_000,
        "trained_tokens": 30_000,
        "schedule": Schedule(steps_an_epoch=94, steps=282, evaluate_every=47, evaluations=6),
        "flops": 1e15,
        "seconds": 7_200.0,
        "seconds_low": 3_600.0,
        "seconds_high": 14_400.0,
        "memory": Memory(
            weights=15 * GIB, adapter=GIB, gradients=GIB, optimiser=2 * GIB, activations=90 * GIB
        ),
        "usd_per_hour": 2.0,
        "usd": 4.0,
        "num_trained_parameters": 1_843_200,
        "num_processes": 1,
        "hardware": GPU,
    }
    return Plan(**{**values, **changes})


UNKNOWN_TIME = {"seconds": None, "seconds_low": None, "seconds_high": None, "usd": None}
TWO_ON_A_CPU = {
    "num_processes": 2,
    "hardware": GPU.model_copy(update={"kind": "cpu", "name": "a CPU"}),
}


@pytest.mark.parametrize(
    ("changes", "budget"),
    [
        ({}, {}),
        ({}, {"max_hours": 2.0, "max_usd": 4.0}),
        (UNKNOWN_TIME, {}),
        ({"usd": None, "usd_per_hour": None}, {"max_hours": 3.0}),
        ({"usd": 0.0, "usd_per_hour": 0.0}, {"max_usd": 1.0}),
        # A fifth over the device's memory may be the estimate's fault.
        ({"hardware": GPU.model_copy(update={"memory_bytes": 16 * GIB})}, {}),
    ],
)
def test_a_plan_within_the_budget_may_run(changes: dict[str, Any], budget: dict[str, Any]) -> None:
    check_budget(plan_of(**changes), Budget(**budget))


@pytest.mark.parametrize(
    ("changes", "budget", "message"),
    [
        (
            {},
            {"max_hours": 0.5},
            r"about 2 hours \(about 2\.0 h \(60 min to 4\.0 h\), \$4\.00 at \$2\.00 an hour\), "
            r"4\.0 times train\.budget\.max_hours of 0\.5\. Lower train\.epochs",
        ),
        ({}, {"max_usd": 3.2}, r"4 dollars .* 1\.2 times train\.budget\.max_usd of 3\.2"),
        (UNKNOWN_TIME, {"max_hours": 1}, r"max_hours is 1, .*Set train\.budget\.tokens_per_second"),
        (UNKNOWN_TIME, {"max_usd": 1}, r"max_usd is 1, .*Set train\.budget\.tokens_per_second"),
        (
            {"usd": None, "usd_per_hour": None},
            {"max_usd": 1},
            r"NVIDIA L4 is not known\. Set train\.budget\.usd_per_hour, or remove max_usd",
        ),
        (
            {"hardware": GPU.model_copy(update={"memory_bytes": 15 * GIB})},
            {},
            r"need about 19\.00 GiB, and NVIDIA L4 has 15\.00 GiB .*no batch size fits.*qlora",
        ),
        (TWO_ON_A_CPU, {}, r"a CPU has 12\.00 GiB a process"),
    ],
)
def test_a_plan_over_the_budget_is_refused(
    changes: dict[str, Any], budget: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        check_budget(plan_of(**changes), Budget(**budget))


def test_a_plan_is_told_in_lines() -> None:
    assert describe(plan_of()) == [
        "1,500 rows, 100,000 tokens an epoch; 300,000 tokens in all, 30,000 of them trained",
        "282 steps (94 an epoch), 6 validations, 1,843,200 trained parameters",
        "NVIDIA L4: about 2.0 h (60 min to 4.0 h), $4.00 at $2.00 an hour",
        "about 109.00 GiB of 24.00 GiB memory a process (weights 15.00 GiB, adapter 1.00 GiB, "
        "gradients 1.00 GiB, optimiser 2.00 GiB, activations 90.00 GiB)",
    ]
    unknown = describe(plan_of(**UNKNOWN_TIME, num_processes=2))
    assert unknown[2] == "2 processes on NVIDIA L4: time not known, price not known"
    measured = plan_of(seconds=60.0, seconds_low=60.0, seconds_high=60.0, usd_per_hour=0, usd=0)
    assert describe(measured)[2] == "NVIDIA L4: 60 s at the measured speed, free"
