"""What Prefect and ``@stage`` cost, on real S3 and a real Prefect server on SQLite.

    make bench B=orchestration

Seconds a stage that does nothing but name an artifact in S3, made and cached, and beside it, in
turn in the same runs, a plain Prefect task whose result is kept in the same place under a key of
its inputs: what a team would write without ``@stage``. Then the memory of the Prefect server,
shared pages counted once, while 1,000 runs of five cached stages go by.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from tests.benchmarks.harness import Result
from tests.conftest import free_ports_for_a_stack
from tests.services import Services, services

STAGES, ROUNDS = 20, 5
RUNS, STAGES_A_RUN = 1_000, 5
LOOK_EVERY = 100
TARGET = 1.25  # times: the server's memory after all runs, against after the first hundred


def orchestration() -> Result:
    before = dict(os.environ)
    os.environ.update(free_ports_for_a_stack())
    try:
        with (
            tempfile.TemporaryDirectory() as folder,
            services(Path(folder), "s3", "prefect") as running,
        ):
            # Prefect reads its settings once, when first imported: not before the servers are up.
            from tests.benchmarks.orchestration_flows import many, round_of

            rounds = [round_of(STAGES, number) for number in range(ROUNDS)]
            print("seconds:", rounds, flush=True)
            held = [(0, _held_mib(running))]
            started = time.monotonic()
            for number in range(1, RUNS + 1):
                many(STAGES_A_RUN)
                if number % LOOK_EVERY == 0:
                    held.append((number, _held_mib(running)))
                    print(f"{number} runs: {held[-1][1]:.0f} MiB", flush=True)
            seconds = time.monotonic() - started
    finally:
        os.environ.clear()
        os.environ.update(before)
    medians = {
        name: round(statistics.median(r[name] for r in rounds) / STAGES, 4) for name in rounds[0]
    }
    growth = held[-1][1] / held[1][1]
    details: dict[str, Any] = {
        "seconds_a_stage": medians,
        "rounds": ROUNDS,
        "stages_a_round": STAGES,
        "server_mib_by_runs": {str(runs): round(mib) for runs, mib in held},
        "seconds_a_run_of_cached_stages": round(seconds / RUNS, 3),
    }
    return Result(
        "orchestration",
        round(growth, 3),
        f"times the server's memory of 100 runs after {RUNS:,}",
        TARGET,
        growth <= TARGET,
        peers={"plain Prefect task": {k: v for k, v in medians.items() if k.startswith("plain")}},
        details=details,
    )


def _held_mib(running: Services) -> float:
    """Of the Prefect server with its children."""
    root = psutil.Process(running.process_id("prefect"))
    family = [root, *root.children(recursive=True)]
    return float(sum(process.memory_full_info().pss for process in family)) / 2**20
