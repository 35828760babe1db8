"""Peaks and prices by the names that torch gives GPUs; a container's memory; a measured CPU."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
import torch

from tasks.train.estimate.hardware import (
    Hardware,
    calibrated,
    cgroup_limit,
    cpu_memory,
    detect,
    measure_cpu,
    peak_bf16,
    usd_per_hour,
)


@pytest.mark.parametrize(
    ("name", "peak", "price"),
    [
        ("NVIDIA A100-SXM4-80GB", 312e12, 1.99),
        ("NVIDIA A100 80GB PCIe", 312e12, 1.99),
        ("NVIDIA A100-SXM4-40GB", 312e12, None),
        ("NVIDIA H100 80GB HBM3", 989e12, 3.99),
        ("NVIDIA H100 PCIe", 756e12, 3.99),
        ("NVIDIA H100 NVL", 835e12, 3.99),
        ("NVIDIA H200", 989e12, None),
        ("NVIDIA H200 NVL", 835e12, None),
        ("NVIDIA A10G", 70e12, None),
        ("NVIDIA A10", 125e12, None),
        ("NVIDIA L4", 121e12, None),
        ("NVIDIA L40", 181e12, None),
        ("NVIDIA L40S", 362e12, None),
        ("NVIDIA GeForce RTX 4090", 165e12, None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None, None),
        ("NVIDIA A100-SXM4-80GB MIG 1g.10gb", None, None),
        ("NVIDIA GH200 480GB", None, None),
        ("Tesla V100-SXM2-16GB", None, None),
        ("Tesla T4", None, None),
    ],
)
def test_a_gpu_is_known_by_its_name(name: str, peak: float | None, price: float | None) -> None:
    assert peak_bf16(name) == peak
    assert usd_per_hour(name) == price


@pytest.mark.parametrize(
    ("limits", "membership", "expected"),
    [
        ({"": "1000"}, "0::/\n", 1000),
        ({"": "max"}, "0::/\n", None),
        ({}, "0::/\n", None),
        ({"a/b": "max", "a": "500"}, "0::/a/b\n", 500),
        ({"a/b": "300", "a": "500"}, "0::/a/b\n", 300),
        ({"a/b": "700", "a": "500"}, "1:name=systemd:/x\n0::/a/b\n", 500),
        ({"": "900"}, "0::/../../outside\n", 900),
        ({"": "900"}, "4:memory:/v1\n", 900),
    ],
)
def test_the_least_limit_of_the_control_groups_holds(
    tmp_path: Path, limits: dict[str, str], membership: str, expected: int | None
) -> None:
    for group, limit in limits.items():
        (tmp_path / "mount" / group).mkdir(parents=True, exist_ok=True)
        (tmp_path / "mount" / group / "memory.max").write_text(f"{limit}\n")
    (tmp_path / "cgroup").write_text(membership)
    assert cgroup_limit(tmp_path / "mount", tmp_path / "cgroup") == expected


def test_this_machine_is_found() -> None:
    found = detect()
    assert found.kind == ("cuda" if torch.cuda.is_available() else "cpu")
    assert found.num_devices >= 1
    if found.kind == "cpu":
        assert 0 < found.memory_bytes == cpu_memory() <= psutil.virtual_memory().total
        assert 10**8 < found.libraries_bytes <= psutil.Process().memory_info().rss * 2
        assert found.name.endswith(" cores")
        assert (found.peak_flops, found.usd_per_hour) == (None, 0.0)


def test_only_a_cpu_is_measured() -> None:
    gpu = Hardware(name="NVIDIA L4", kind="cuda", num_devices=1, memory_bytes=1, peak_flops=5.0)
    assert calibrated(gpu, "bfloat16") == gpu
    cpu = Hardware(name="cpu", kind="cpu", num_devices=1, memory_bytes=1)
    peak = calibrated(cpu, "float32").peak_flops
    assert peak is not None
    assert 1e8 < peak < 1e15
    assert measure_cpu("bfloat16", width=64) > 0
