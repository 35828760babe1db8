"""``python -m tests.benchmarks [NAME]``: measure, print the figure, say whether it holds."""

from __future__ import annotations

import sys
from collections.abc import Callable

from tests.benchmarks.harness import Result


def main(arguments: list[str]) -> int:
    """Run the named benchmark, or all; exit 0 only where every target holds."""
    known = _benchmarks()
    names = arguments or list(known)
    unknown = [name for name in names if name not in known]
    if unknown:
        print(f"No benchmark {unknown[0]!r}; there are {', '.join(known)}.", file=sys.stderr)
        return 2
    results = []
    for name in names:
        results.append(known[name]())
        print(results[-1].line(), flush=True)
    return 0 if all(result.holds for result in results) else 1


def _benchmarks() -> dict[str, Callable[[], Result]]:
    def train_cpu() -> Result:
        from tests.benchmarks.train_cpu import train_cpu as run  # torch, only when asked for

        return run()

    def train_gpu() -> Result:
        from tests.benchmarks.train_gpu import train_gpu as run

        return run()

    def generate() -> Result:
        from tests.benchmarks.generate import generate as run

        return run()

    from tests.benchmarks.canary import canary
    from tests.benchmarks.clean import clean
    from tests.benchmarks.dedup import dedup, dedup_1m
    from tests.benchmarks.gateway import gateway
    from tests.benchmarks.labels import labels
    from tests.benchmarks.mislabelled import mislabelled
    from tests.benchmarks.orchestration import orchestration
    from tests.benchmarks.pii import pii
    from tests.benchmarks.retrain import memory, overhead, retrain
    from tests.benchmarks.webhook import webhook

    return {
        "retrain": retrain,
        "overhead": overhead,
        "memory": memory,
        "orchestration": orchestration,
        "train-cpu": train_cpu,
        "train-gpu": train_gpu,
        "generate": generate,
        "dedup": dedup,
        "dedup-1m": dedup_1m,
        "pii": pii,
        "clean": clean,
        "labels": labels,
        "mislabelled": mislabelled,
        "webhook": webhook,
        "gateway": gateway,
        "canary": canary,
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
