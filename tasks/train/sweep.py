"""The trainings of a sweep -> the one whose validation is best."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tasks.artifacts import Adapter
from tasks.errors import TrainingError
from tasks.train.config import EVAL_LOSS, TrainConfig


def best_of(adapters: Sequence[Adapter], config: TrainConfig) -> Adapter:
    """The adapter of the best metric, the first of several; it tells of all the others.

    All are compared by the metric of the config itself: an override of it would compare apples with
    pears. Raises TrainingError when no training has a number to compare.
    """
    sign = 1 if config.validation.metric == EVAL_LOSS else -1
    values = [sign * adapter.metric_value for adapter in adapters]
    best = min(range(len(values)), key=lambda i: (math.isnan(values[i]), values[i]))
    if math.isnan(values[best]):
        raise TrainingError(
            f"None of the {len(adapters)} trainings of train.sweep has a {config.validation.metric}"
            " to be compared by."
        )
    told = tuple(
        {
            "overrides": overrides,
            "value": adapter.metric_value,
            "best_step": adapter.best_step,
            "chosen": number == best,
        }
        for number, (overrides, adapter) in enumerate(zip(config.sweep, adapters, strict=True))
    )
    return adapters[best].model_copy(update={"sweep": told})
