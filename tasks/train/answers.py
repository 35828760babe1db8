"""Answers to some validation rows at a checkpoint, and what the task's metrics say of them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any, NamedTuple

from accelerate.utils import gather_object

from tasks.artifacts import TaskConfig
from tasks.errors import ConfigError
from tasks.generation import continue_sorted
from tasks.metrics import TextMetric, metrics_for
from tasks.scores import reduce
from tasks.train.batches import IGNORED, Row
from tasks.train.config import EVAL_LOSS, TrainConfig


class Asked(NamedTuple):
    """A prompt as token ids, and the text that was to come."""

    prompt: list[int]
    reference: str


class Examiner:
    """Asks a model in training for answers, the same rows each time, split over the processes."""

    def __init__(
        self,
        rows: Sequence[Row],
        tokenizer: Any,
        stop_ids: Sequence[int],
        config: TrainConfig,
        task: TaskConfig,
        process: tuple[int, int] = (0, 1),
    ) -> None:
        """``process``: this process's number, and how many there are."""
        self._tokenizer = tokenizer
        self._stop_ids = {tokenizer.eos_token_id, *stop_ids} - {None}
        self._max_new_tokens = config.validation.max_new_tokens
        self._batch_size = 2 * config.batch_size  # no gradients: twice the rows fit easily
        self._process = process
        self._metrics = metrics_for(task.kind)
        # By id, which is a hash: a choice that is random, and the same in every run.
        chosen = sorted(rows, key=lambda row: row["id"])[: config.validation.num_generated]
        self._asked = [asked(row, tokenizer) for row in chosen]

    def __call__(self, model: Any) -> dict[str, float]:
        """Each metric's value by its name; empty where no answers are asked for."""
        if not self._asked:
            return {}
        was_training = model.training
        model.eval()
        number, count = self._process
        mine = range(number, len(self._asked), count)
        outputs = continue_sorted(
            model,
            self._tokenizer,
            [self._asked[i].prompt for i in mine],
            self._stop_ids,
            self._max_new_tokens,
            self._batch_size,
        )
        model.train(was_training)
        texts = [self._tokenizer.decode(ids, skip_special_tokens=True) for ids in outputs]
        said = list(zip(mine, texts, strict=True))
        answers = dict(said if count == 1 else gather_object(said))
        predictions = [answers[i] for i in range(len(self._asked))]
        references = [one.reference for one in self._asked]
        return {metric.name: _value(metric, predictions, references) for metric in self._metrics}


def asked(row: Row, tokenizer: Any) -> Asked:
    """The last answer of a row, and all that stands before it."""
    labels = row["labels"]
    end = max(i for i, label in enumerate(labels) if label != IGNORED) + 1
    length = len(list(takewhile(lambda label: label != IGNORED, reversed(labels[:end]))))
    start = end - length
    reference = tokenizer.decode(labels[start:end], skip_special_tokens=True)
    return Asked(list(row["input_ids"][:start]), reference)


def check_metric(config: TrainConfig, task: TaskConfig) -> TextMetric | None:
    """The metric that chooses the checkpoint, None for the loss.

    Raises ConfigError for one that the kind of task does not have.
    """
    wanted = config.validation.metric
    if wanted == EVAL_LOSS:
        return None
    known = {metric.name: metric for metric in metrics_for(task.kind)}
    if wanted not in known:
        raise ConfigError(
            f"train.validation.metric is {wanted}, which a task of the kind {task.kind} does not "
            f"have. Set it to {EVAL_LOSS} or one of {', '.join(known)}."
        )
    return known[wanted]


def _value(metric: TextMetric, predictions: Sequence[str], references: Sequence[str]) -> float:
    return float(reduce(metric.reducer, metric.stats(predictions, references)))
