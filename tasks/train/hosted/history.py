"""What a fine-tuning API tells of a job on the way: losses by step, checkpoints, the best of them.

Events of type ``metrics`` carry ``step``, ``total_steps``, ``train_loss``, ``valid_loss`` (of a
batch) and, at the end of an epoch, ``full_valid_loss`` (of the whole validation file), as the
metrics of a checkpoint do. What an API does not tell costs the history, never the model.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tasks.errors import ConfigError, TrainingError
from tasks.openai_client import HostedError
from tasks.train.config import EVAL_LOSS
from tasks.train.hosted.api import Checkpoint, Event, HostedApi, Job

logger = logging.getLogger(__name__)
Report = Callable[[dict[str, float], int, float], None]  # metrics, step, share done
_Told = TypeVar("_Told", Event, Checkpoint)
_LOSS = "loss"
# Of those errors, the ones that stay; what may pass is raised, since asking again costs nothing.
_UNTOLD = (HostedError, ConfigError, TrainingError)


@dataclass(slots=True)
class Outcome:
    """The model to keep, its losses, and the history of them all."""

    model_id: str
    num_steps: int
    best_step: int
    train_loss: float
    validation_loss: float
    history: list[dict[str, float]]
    notes: list[str] = field(default_factory=list)


class Watch:
    """Tells of metrics as they come, each step once."""

    def __init__(self, api: HostedApi, report: Report) -> None:
        self._api = api
        self._report = report
        self._told: set[int] = set()

    def look(self, job_id: str) -> None:
        """Report what is new. An API that tells nothing now may do so at the next look."""
        import openai

        try:
            events = self._api.events(job_id)
        except (openai.APIError, *_UNTOLD) as error:
            logger.warning("hosted: no news of %s: %s", job_id, error)
            return
        total = _total_steps(events)
        for line in history(events):
            step = int(line["step"])
            if step in self._told:
                continue
            self._told.add(step)
            metrics = {name: value for name, value in line.items() if name != "step"}
            self._report(metrics, step, min(step / total, 1.0) if total else 0.0)
            logger.info("hosted: step %d of %s: %s", step, total or "?", metrics)


def outcome(api: HostedApi, job: Job) -> Outcome:
    """Read the history of a job that has succeeded, and choose its checkpoint.

    Kept is the one of least loss on the whole validation file, the earlier of equals; where the API
    has no checkpoints or no such loss, the model at the end. Raises openai.APIError for what may
    pass.
    """
    notes: list[str] = []
    events = _told_or_noted(lambda: api.events(job.id), "history", notes)
    checkpoints = _told_or_noted(lambda: api.checkpoints(job.id), "checkpoints", notes)
    lines = history([*events, *map(_as_event, checkpoints)])
    notes += _not_numbers(events)
    steps = [int(line["step"]) for line in lines] + [c.step_number for c in checkpoints]
    num_steps = max([*steps, _total_steps(events)], default=0)
    best = _best(checkpoints)
    train = [line[_LOSS] for line in lines if _LOSS in line]
    validation = [line[EVAL_LOSS] for line in lines if EVAL_LOSS in line]
    last = validation[-1] if validation else math.nan
    return Outcome(
        model_id=best.fine_tuned_model_checkpoint if best else str(job.fine_tuned_model),
        num_steps=num_steps,
        best_step=best.step_number if best else num_steps,
        train_loss=train[-1] if train else math.nan,
        validation_loss=_full_loss(best) if best else last,
        history=lines,
        notes=notes,
    )


def history(events: Iterable[Event]) -> list[dict[str, float]]:
    """A line a step with ``loss`` and ``eval_loss``, those that are numbers, in order of the steps.

    ``eval_loss`` is of the whole validation file where the API tells it, else of a batch.
    """
    told = [e.data for e in events if e.data and _number(e.data.get("step")) is not None]
    has_full = any(_number(data.get("full_valid_loss")) is not None for data in told)
    names = {
        _LOSS: "train_loss",
        EVAL_LOSS: "full_valid_loss" if has_full else "valid_loss",
    }
    lines: dict[int, dict[str, float]] = {}
    for data in told:
        step = int(data["step"])
        for name, theirs in names.items():
            if (value := _number(data.get(theirs))) is not None:
                lines.setdefault(step, {"step": float(step)})[name] = value
    return [lines[step] for step in sorted(lines)]


def _best(checkpoints: Iterable[Checkpoint]) -> Checkpoint | None:
    measured = [c for c in checkpoints if not math.isnan(_full_loss(c))]
    return min(measured, key=lambda c: (_full_loss(c), c.step_number), default=None)


def _full_loss(checkpoint: Checkpoint) -> float:
    loss = _number(checkpoint.metrics.get("full_valid_loss"))
    return math.nan if loss is None else loss


def _as_event(checkpoint: Checkpoint) -> Event:
    data: dict[str, Any] = {**checkpoint.metrics, "step": checkpoint.step_number}
    return Event(id=checkpoint.id, type="metrics", data=data)


def _not_numbers(events: Iterable[Event]) -> list[str]:
    broken = sorted(
        int(step)
        for data in (e.data for e in events if e.data)
        if (step := _number(data.get("step"))) is not None and _is_broken(data)
    )
    if not broken:
        return []
    return [f"The API told a loss that is not a number, first at step {broken[0]}."]


def _is_broken(data: Mapping[str, Any]) -> bool:
    losses = (data.get(name) for name in ("train_loss", "valid_loss", "full_valid_loss"))
    return any(isinstance(loss, float) and not math.isfinite(loss) for loss in losses)


def _total_steps(events: Iterable[Event]) -> int:
    totals = (_number(e.data.get("total_steps")) for e in events if e.data)
    return int(max((total for total in totals if total is not None), default=0))


def _number(value: Any) -> float | None:
    """A finite number, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _told_or_noted(ask: Callable[[], list[_Told]], what: str, notes: list[str]) -> list[_Told]:
    try:
        return ask()
    except _UNTOLD as error:
        notes.append(f"The fine-tuning API tells no {what}: {error}")
        return []
