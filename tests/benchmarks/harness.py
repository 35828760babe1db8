"""What every benchmark prints: one JSON object on its last line."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import Any

import psutil


def describe_machine() -> str:
    """Processor, cores and memory of this machine."""
    info = Path("/proc/cpuinfo").read_text()
    model = next((ln.split(":")[1].strip() for ln in info.splitlines() if "model name" in ln), "?")
    memory = psutil.virtual_memory().total / 2**30
    return f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB, Python {platform.python_version()}"


@dataclass(frozen=True)
class Result:
    """A figure and whether it meets its target; ``target`` None is a figure that is only told."""

    name: str
    figure: float
    unit: str
    target: float | None
    holds: bool
    machine: str = field(default_factory=describe_machine)
    peers: Mapping[str, Any] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)

    def line(self) -> str:
        return json.dumps(asdict(self))


def data_file(name: str) -> Path:
    """A file of real data, from RETUNE_DATA or where the configs look."""
    from tasks.ingest.files import data_places

    places = data_places()
    found = next((place / name for place in places if (place / name).is_file()), None)
    if found is None:
        looked = ", ".join(str(place) for place in places)
        raise SystemExit(f"{name} is in none of {looked}: set RETUNE_DATA to its folder.")
    return found


def peak_of_this_process() -> float:
    """GiB; of this process alone: ``getrusage`` starts from the peak of the one that started it."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 2**20


class Memory:
    """The peak of the memory that a group of processes holds, shared pages counted once (PSS)."""

    peak_gib = 0.0


@contextmanager
def peak_memory(mark: str) -> Iterator[Memory]:
    """Sample, once a second, all processes whose environment has ``RETUNE_LOCAL=mark``."""
    memory, done = Memory(), Event()

    def sample() -> None:
        while not done.wait(1.0):
            memory.peak_gib = max(memory.peak_gib, _held_gib(mark))

    thread = Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield memory
    finally:
        done.set()
        thread.join()


def _held_gib(mark: str) -> float:
    held = 0
    for process in psutil.process_iter():
        try:
            if process.environ().get("RETUNE_LOCAL") == mark:
                held += process.memory_full_info().pss
        except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return held / 2**30
