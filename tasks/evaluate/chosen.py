"""The metrics of an evaluation: those of the kind of task, those named, and a team's own.

A metric of one's own is a class derived from ``tasks.metrics.TextMetric``, which may override
``stats`` for all answers at once, named ``package.module:Class``.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Sequence

import numpy as np
from jsonschema import Draft202012Validator

from tasks.artifacts import TaskConfig
from tasks.embeddings import EmbeddingConfig, embed
from tasks.errors import ConfigError
from tasks.evaluate.config import EvaluateConfig
from tasks.json_values import parse
from tasks.metrics import METRICS, TextMetric, metrics_for
from tasks.scores import Floats
from tasks.storage import digest_of


class SchemaCompliance(TextMetric):
    """Whether the answer is a JSON text that meets the task's schema (JSON Schema 2020-12)."""

    name = "schema_compliance"

    def __init__(self, task: TaskConfig) -> None:
        super().__init__()
        if task.answer_schema is None:
            raise ConfigError(
                "evaluate.metrics: schema_compliance needs task.answer_schema, which is not given."
            )
        self._validator = Draft202012Validator(task.answer_schema)

    def _row(self, prediction: str, reference: str) -> Sequence[float]:
        try:
            return [self._validator.is_valid(parse(prediction))]
        except (ValueError, RecursionError):
            return [0.0]


class SemanticSimilarity(TextMetric):
    """How near the meanings of answer and reference are: the cosine of their sentence vectors.

    By a small local model (``tasks.embeddings``); below 0, opposites, counts as 0.
    """

    name = "semantic_similarity"
    reducer = "mean"

    def __init__(self, config: EmbeddingConfig) -> None:
        super().__init__()
        self._config = config

    def stats(self, predictions: Sequence[str], references: Sequence[str]) -> Floats:
        """The similarities, shape (n, 1)."""
        if len(predictions) != len(references):
            raise ValueError(f"{len(predictions)} predictions for {len(references)} references")
        vectors = embed([*predictions, *references], self._config).astype(np.float64)
        ours, theirs = np.split(vectors, 2)
        return np.asarray(np.clip((ours * theirs).sum(axis=1), 0, 1))[:, None]


def chosen_metrics(config: EvaluateConfig, task: TaskConfig) -> list[TextMetric]:
    """The metrics that the config names, or those usual for the kind of task.

    Raises:
        ConfigError: there is no such metric, or it cannot be used for this task.
    """
    if config.metrics is None:
        usual = metrics_for(task.kind)
        if task.answer_schema is not None:
            usual.append(SchemaCompliance(task))
        if task.kind == "generation":
            usual.append(SemanticSimilarity(config.embedding))
        return usual
    return [_named(name, config, task) for name in config.metrics]


def own_metrics_digest(config: EvaluateConfig) -> str:
    """What tells versions of a team's own metrics apart: the source of their modules."""
    own = [name for name in config.metrics or () if ":" in name]
    return digest_of(
        [[name, inspect.getsource(inspect.getmodule(_own(name)) or _own(name))] for name in own]
    )


def _named(name: str, config: EvaluateConfig, task: TaskConfig) -> TextMetric:
    if name == SchemaCompliance.name:
        return SchemaCompliance(task)
    if name == SemanticSimilarity.name:
        return SemanticSimilarity(config.embedding)
    if ":" in name:
        return _own(name)()
    (metric,) = metrics_for(task.kind, [name])
    return metric


def _own(path: str) -> type[TextMetric]:
    module, _, attribute = path.partition(":")
    expected = "expected package.module:Class of a subclass of tasks.metrics.TextMetric"
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"evaluate.metrics: {path!r}: {error}; {expected}.") from error
    if not (isinstance(found, type) and issubclass(found, TextMetric)):
        raise ConfigError(f"evaluate.metrics: {path!r} is {found!r}; {expected}.")
    name = vars(found).get("name")  # the library's own class has a property of that name
    if not isinstance(name, str) or name in METRICS:
        raise ConfigError(
            f"evaluate.metrics: {path!r} must have a name of its own, and has {name!r}."
        )
    return found
