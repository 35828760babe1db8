"""What training runs on: name, memory, peak arithmetic and price of this machine's devices.

This machine -> a ``Hardware``. What is not known stays None; nothing is guessed. torch is imported
only where it is asked, so that a config can name a ``Hardware`` cheaply.
"""

from __future__ import annotations

import math
import os
import platform
import re
import statistics
import time
from pathlib import Path
from typing import Literal

import psutil

from tasks.artifacts import Record

# Peak bf16 tensor-core arithmetic in FLOP/s with float32 accumulation, DENSE: NVIDIA's data sheets
# print most figures with 2:4 sparsity, which training does not use, and these are half of those
# (A100 312, A30 165, A40 149.7, A10 125, H100 SXM 1,979/2, PCIe 1,513/2, NVL 1,671/2, H200 as H100,
# L4 242/2, L40 181, L40S 362; A10G 70 from AWS's G5 page; GeForce from the Ampere and Ada
# whitepapers' appendices). V100 and T4 are missing on purpose: they have no bf16 units.
# A name is looked up in this order, so variants stand before what they vary.
_PEAK_BF16: tuple[tuple[str, float], ...] = (
    (r"\bH200 NVL\b", 835e12),
    (r"\bH200\b", 989e12),
    (r"\bH100 PCIe\b", 756e12),
    (r"\bH100 NVL\b", 835e12),
    (r"\bH100\b", 989e12),
    (r"\bA100\b", 312e12),
    (r"\bA40\b", 149.7e12),
    (r"\bA30\b", 165e12),
    (r"\bA10G\b", 70e12),
    (r"\bA10\b", 125e12),
    (r"\bL40S\b", 362e12),
    (r"\bL40\b", 181e12),
    (r"\bL4\b", 121e12),
    (r"\bRTX 4090$", 165e12),
    (r"\bRTX 3090$", 71e12),
)
# Dollars an hour for one device, as the reference architecture (April 2026) prints them: A100 80GB
# at Lambda, H100 at RunPod.
_USD_PER_HOUR: tuple[tuple[str, float], ...] = (
    (r"\bA100\b.*\b80GB\b", 1.99),
    (r"\bH100\b", 3.99),
)
_A_SLICE = re.compile(r"\bMIG\b")  # a part of a GPU, whose figures are not the whole one's


class Hardware(Record):
    """The devices of one machine, all alike. ``memory_bytes`` and ``peak_flops`` are of one device.

    A CPU is one device, shared by all processes. ``peak_flops`` is FLOP/s in bf16, or, for a CPU
    after ``calibrated``, in the precision asked for. ``libraries_bytes`` of a CPU's memory are held
    by Python and its libraries before there is a model.
    """

    name: str
    kind: Literal["cuda", "cpu"]
    num_devices: int
    memory_bytes: int
    libraries_bytes: int = 0
    peak_flops: float | None = None
    usd_per_hour: float | None = None


def detect() -> Hardware:
    """This machine's GPUs, else its CPU with the memory that its container may use.

    Different GPUs in one machine count as so many of the weakest.
    """
    import torch

    if not torch.cuda.is_available():
        return Hardware(
            name=cpu_name(),
            kind="cpu",
            num_devices=1,
            memory_bytes=cpu_memory(),
            libraries_bytes=psutil.Process().memory_info().rss,
            usd_per_hour=0.0,
        )
    devices = [
        torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())
    ]
    names = sorted({device.name for device in devices})
    return Hardware(
        name=" + ".join(names),
        kind="cuda",
        num_devices=len(devices),
        memory_bytes=min(device.total_memory for device in devices),
        peak_flops=_least([peak_bf16(name) for name in names]),
        usd_per_hour=_least([usd_per_hour(name) for name in names]) if len(names) == 1 else None,
    )


def peak_bf16(name: str) -> float | None:
    """Peak dense bf16 FLOP/s of an NVIDIA GPU as torch names it; None when not known.

    None too for GPUs without bf16 units (V100, T4) and for slices of one (MIG).
    """
    return _lookup(name, _PEAK_BF16)


def usd_per_hour(name: str) -> float | None:
    """The reference's price of one such GPU for an hour; None when it has none."""
    return _lookup(name, _USD_PER_HOUR)


def calibrated(hardware: Hardware, precision: Literal["bfloat16", "float32"]) -> Hardware:
    """The same hardware with its CPU's peak measured, in under a second; a GPU stays as it is."""
    if hardware.kind != "cpu":
        return hardware
    return hardware.model_copy(update={"peak_flops": measure_cpu(precision)})


def measure_cpu(precision: Literal["bfloat16", "float32"], width: int = 768) -> float:
    """FLOP/s of square matrix products of ``width``, the best third of half a second of them.

    The width is that of a small model's layers: far larger products reach more than training can.
    """
    import torch

    left = torch.ones(width, width, dtype=getattr(torch, precision))
    seconds: list[float] = []
    torch.mm(left, left)  # the first one prepares its kernel
    stop = time.perf_counter() + 0.5
    while len(seconds) < 3 or (time.perf_counter() < stop and len(seconds) < 300):
        started = time.perf_counter()
        torch.mm(left, left)
        seconds.append(time.perf_counter() - started)
    best = sorted(seconds)[: math.ceil(len(seconds) / 3)]
    return float(2 * width**3 / statistics.median(best))


def cpu_name() -> str:
    """The processor's model and the number of cores this process may use."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text("utf-8"), re.MULTILINE)
        model = found.group(1) if found else model
    affinity = getattr(os, "sched_getaffinity", None)  # Linux alone has it
    cores = len(affinity(0)) if affinity else os.cpu_count()
    return f"{model}, {cores} cores"


def cpu_memory() -> int:
    """Bytes of memory this process may use: the machine's, or its container's limit if less."""
    total = int(psutil.virtual_memory().total)
    limit = cgroup_limit()
    return total if limit is None else min(total, limit)


def cgroup_limit(
    mount: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")
) -> int | None:
    """The least memory limit in bytes on this process's control groups (version 2), if any.

    A limit on any parent holds too. https://docs.kernel.org/admin-guide/cgroup-v2.html
    """
    own = Path()
    if membership.is_file():
        found = re.search(r"^0::/(.*)$", membership.read_text("utf-8"), re.MULTILINE)
        own = Path(found.group(1)) if found else own
    if ".." in own.parts:  # the group lies outside this namespace: its root is all that shows
        own = Path()
    limits = []
    for group in (own, *own.parents):
        file = mount / group / "memory.max"
        if file.is_file() and (text := file.read_text("utf-8").strip()) != "max":
            limits.append(int(text))
    return min(limits, default=None)


def _lookup(name: str, table: tuple[tuple[str, float], ...]) -> float | None:
    if _A_SLICE.search(name):
        return None
    return next((figure for pattern, figure in table if re.search(pattern, name)), None)


def _least(figures: list[float | None]) -> float | None:
    """The least of them, None when one is not known."""
    known = [figure for figure in figures if figure is not None]
    return min(known) if len(known) == len(figures) else None
