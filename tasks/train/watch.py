"""What is told of a training while it runs: speed, memory, time left; a line each time."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import psutil
import torch
from transformers import TrainerCallback

logger = logging.getLogger(__name__)
Report = Callable[[dict[str, float], int, float], None]  # metrics, step, share done
_LABELS = {"loss": "loss", "eval_loss": "validation loss", "learning_rate": "lr"}
_TOLD = frozenset({"loss", "eval_loss"})
_BAR = 20


class Watch(TrainerCallback):
    """Adds to what the Trainer logs, and passes it on.

    ``seconds`` and ``num_tokens`` go on from those of the attempt that is resumed, since each
    logged record holds them; so does the speed, which counts steps alone, not validations.
    """

    def __init__(self, report: Report, started: float, num_tokens: Callable[[], int]) -> None:
        """``started``: when the stage began, by ``time.monotonic``."""
        self.first_step_seconds: float | None = None
        self._report = report
        self._started = started
        self._num_tokens = num_tokens
        self._before: Mapping[str, float] = {}
        self._step_seconds = 0.0
        self._step_began = 0.0
        self._step_tokens = 0

    def figures(self) -> dict[str, float]:
        """Of the whole training up to now; memory is this process's peak."""
        step_seconds = self._before.get("step_seconds", 0.0) + self._step_seconds
        tokens = self._before.get("num_tokens", 0) + self._num_tokens()
        return {
            "num_tokens": tokens,
            "step_seconds": step_seconds,
            "seconds": self._before.get("seconds", 0.0) + time.monotonic() - self._started,
            "tokens_per_second": tokens / step_seconds if step_seconds else math.nan,
            "memory_gib": peak_memory_gib(),
        }

    def go_on(self, state: Any) -> None:
        """Begin where a checkpoint ended."""
        self._before = last_figures(state.log_history)

    def tell_again(self, state: Any) -> None:
        """Tell of what was before the checkpoint."""
        for line in state.log_history:
            numbers = {k: float(v) for k, v in line.items() if isinstance(v, int | float)}
            step = int(numbers.pop("step"))
            if _TOLD & set(numbers):
                self._report(numbers, step, step / state.max_steps)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._step_began = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if args.device.type == "cuda":
            torch.cuda.synchronize()
        now = time.monotonic()
        self._step_seconds += now - self._step_began
        if self.first_step_seconds is None:
            self.first_step_seconds = now - self._started

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        logs = {k: float(v) for k, v in kwargs["logs"].items() if isinstance(v, int | float)}
        if not state.is_world_process_zero or not _TOLD & set(logs):
            return  # the summary at the end, which the result holds too
        share = state.global_step / state.max_steps
        self._report(logs, state.global_step, share)
        logger.info(_line(state, logs, share))


def last_figures(history: Sequence[Mapping[str, float]]) -> Mapping[str, float]:
    """The last logged record that holds ``Watch.figures``."""
    return next((line for line in reversed(history) if "step_seconds" in line), {})


def peak_memory_gib() -> float:
    """What this process held at most: of its GPU where it has one, else of the memory."""
    if torch.cuda.is_available():
        return float(torch.cuda.max_memory_reserved() / 2**30)
    info = psutil.Process().memory_info()
    return float(getattr(info, "peak_wset", info.rss) / 2**30)


def _line(state: Any, logs: dict[str, float], share: float) -> str:
    """One readable line of progress, with a bar and the time that is left."""
    filled = round(_BAR * share)
    bar = "█" * filled + "░" * (_BAR - filled)
    values = [f"{label} {logs[name]:.4g}" for name, label in _LABELS.items() if name in logs]
    values += [
        f"{name.removeprefix('eval_')} {value:.3g}"
        for name, value in logs.items()
        if name.startswith("eval_") and name not in _LABELS and not name.endswith(_NO_METRIC)
    ]
    left = logs["seconds"] * (1 / share - 1) if share else math.nan
    return (
        f"train {share:4.0%} {bar} step {state.global_step}/{state.max_steps} "
        f"{', '.join(values)}, {logs['tokens_per_second']:.0f} tokens/s, "
        f"{logs['memory_gib']:.1f} GiB, {_duration(left)} left"
    )


# What the Trainer logs beside a validation's own figures.
_NO_METRIC = ("_runtime", "_per_second", "_time")


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
