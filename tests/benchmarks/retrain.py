"""A whole ``make run`` on a stack of its own: from an empty folder, and again with nothing changed.

    make bench B=retrain     seconds of the first run; target 15 minutes
    make bench B=overhead    flow seconds of the repeated run; target 60 s
    make bench B=memory      peak of the whole stack during the first run; target 8 GiB

Each starts a stack in a temporary folder on free ports. The packages and the base model are those
of the checkout: downloads do not count.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployments import environment
from tests.benchmarks.harness import Result, peak_memory
from tests.conftest import free_ports_for_a_stack

SAMPLE = environment.home() / "deployments" / "configs" / "sample.yaml"


@dataclass(frozen=True)
class Measured:
    """One run of the product, as its user sees it."""

    seconds: float
    peak_gib: float
    summary: dict[str, Any]

    def stage(self, name: str) -> float:
        return sum(s["work_seconds"] for s in self.summary["stages"] if s["name"] == name)


def retrain() -> Result:
    first, _ = _measure(repeat=False)
    return Result(
        "retrain",
        round(first.seconds, 1),
        "s from `make run` on prepared packages to the result",
        900,
        first.seconds <= 900 and first.summary["decision"] == "promoted",
        details=_details(first),
    )


def memory() -> Result:
    first, _ = _measure(repeat=False)
    peak = round(first.peak_gib, 2)
    return Result(
        "memory", peak, "GiB, stack and run together", 8, peak <= 8, details=_details(first)
    )


def overhead() -> Result:
    first, second = _measure(repeat=True)
    assert second is not None
    seconds = second.summary["seconds"]
    cached = [s["name"] for s in second.summary["stages"] if s["state"] == "cached"]
    return Result(
        "overhead",
        seconds,
        "s of flow time with nothing changed",
        60,
        seconds <= 60 and "train" in cached and second.summary["decision"] == "no_change",
        details={
            "first run": _details(first),
            "repeated run": _details(second),
            "cached": cached,
        },
    )


def _measure(*, repeat: bool) -> tuple[Measured, Measured | None]:
    with own_stack() as child:
        first = run(child, SAMPLE)
        return first, run(child, SAMPLE) if repeat else None


@contextmanager
def own_stack() -> Iterator[dict[str, str]]:
    """The environment of a stack in a temporary folder, which ends with the context."""
    with tempfile.TemporaryDirectory(prefix="retune-bench-") as folder:
        child = {
            **os.environ,
            **free_ports_for_a_stack(),
            "RETUNE_LOCAL": folder,
            "RETUNE_MODELS": str(environment.models()),
        }
        for name in ("RETUNE_STORE", "RETUNE_DATA"):
            child.pop(name, None)
        try:
            yield child
        finally:
            _python("deployments.stack", "down", env=child)


def run(child: dict[str, str], config: Path) -> Measured:
    """One run of a config on the stack of an environment, which it starts where it is down."""
    folder = child["RETUNE_LOCAL"]
    started = time.monotonic()
    with peak_memory(folder) as memory:
        _python("deployments.stack", "up", env=child)
        _python("deployments.start", str(config), env=child)
    seconds = time.monotonic() - started
    summary = json.loads((Path(folder) / "runs" / "latest" / "summary.json").read_text())
    return Measured(seconds, memory.peak_gib, summary)


def _python(module: str, *arguments: str, env: dict[str, str]) -> None:
    subprocess.run([sys.executable, "-m", module, *arguments], env=env, check=True)


def _details(run: Measured) -> dict[str, Any]:
    return {
        "decision": run.summary["decision"],
        "flow_seconds": run.summary["seconds"],
        "training_seconds": run.stage("train"),
        "generation_seconds": run.stage("generate"),
        "overhead_seconds": run.summary["overhead_seconds"],
        "peak_memory_gib": round(run.peak_gib, 2),
    }
