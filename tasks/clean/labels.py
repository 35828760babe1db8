"""Labels that the other rows contradict: confident learning on cross-validated probabilities.

Confident learning (Northcutt et al., 2021, by cleanlab) needs, for each row, what a classifier that
has not seen it says. TF-IDF with a linear classifier by stochastic gradient descent is thirty times
faster here than logistic regression and finds as much. In a structured answer, each field with few
values is a label of its own.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.artifacts import TaskConfig
from tasks.clean.config import LabelConfig
from tasks.clean.rows import Indices
from tasks.errors import DataError

logger = logging.getLogger(__name__)
_MIN_ROWS_PER_CLASS = 5  # of a rarer label a classifier learns nothing, and cleanlab little
_MAX_WORDS = 3  # of a label, on average
_LOSS_DEVIATIONS = 6.0  # robust standard deviations above the median loss
_SEED = 0

Score = Callable[[Sequence[str], Sequence[str]], npt.NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class LabelIssue:
    """A label that the classifier, trained on the other rows, does not believe."""

    index: int
    field: str
    given: str
    suggested: str
    given_probability: float
    suggested_probability: float


@dataclass(frozen=True, slots=True)
class LossOutlier:
    """An answer that surprises the base model far more than the others do, in nats a token."""

    index: int
    loss: float
    limit: float


def find_label_issues(
    ids: Sequence[str],
    prompts: Sequence[str],
    answers: Sequence[str],
    task: TaskConfig,
    config: LabelConfig,
) -> list[LabelIssue]:
    """The doubtful labels of all fields, the most doubtful of each field first."""
    columns = label_columns(answers, task, config)
    if not columns:
        return []
    words = _words(prompts)
    return [
        issue
        for field, values in columns.items()
        for issue in _issues_of(field, values, ids, words, config)
    ]


def label_columns(
    answers: Sequence[str], task: TaskConfig, config: LabelConfig
) -> dict[str, list[str | None]]:
    """The label of each row by field, None where it has none or one too rare to judge.

    Of a classification task the answer itself; of a structured one every field of the answer whose
    values repeat: at most ``config.max_classes`` of them, most rows having one that is not rare.
    """
    if task.kind == "generation":
        return {}
    if task.kind == "classification":
        columns: Mapping[str, list[str | None]] = {"answer": [a.strip() for a in answers]}
    else:
        columns = {name: values for name, values in _fields(answers).items() if _is_terse(values)}
    labels = {}
    for field, values in columns.items():
        counts = Counter(v for v in values if v is not None)
        common = {value for value, n in counts.items() if n >= _MIN_ROWS_PER_CLASS}
        covered = sum(counts[value] for value in common)
        if 2 <= len(common) <= config.max_classes and covered >= 0.5 * len(values):
            labels[field] = [v if v in common else None for v in values]
    return labels


def loss_outliers(
    prompts: Sequence[str], answers: Sequence[str], score: Score, config: LabelConfig
) -> list[LossOutlier]:
    """Free-text answers that the base model, which never saw them, finds far too surprising.

    ``score`` gives the mean loss of each answer given its prompt. At most ``config.max_scored``
    rows are asked for, evenly over all of them.
    """
    count = min(len(prompts), config.max_scored)
    chosen = np.linspace(0, len(prompts) - 1, count).astype(np.int64)
    if count < 20:  # of a few rows none can be called the odd one
        return []
    losses = score([prompts[i] for i in chosen], [answers[i] for i in chosen])
    middle = float(np.nanmedian(losses))
    spread = 1.4826 * float(np.nanmedian(np.abs(losses - middle)))
    limit = middle + _LOSS_DEVIATIONS * max(spread, 0.1)
    return [
        LossOutlier(int(i), float(loss), limit)
        for i, loss in zip(chosen, losses, strict=True)
        if loss > limit
    ]


def _fields(answers: Sequence[str]) -> dict[str, list[str | None]]:
    columns: dict[str, list[str | None]] = {}
    for number, answer in enumerate(answers):
        for field, value in _object(answer).items():
            column = columns.setdefault(field, [None] * len(answers))
            if isinstance(value, str | bool | int) or value is None:
                column[number] = value if isinstance(value, str) else json.dumps(value)
    return columns


def _is_terse(values: Sequence[str | None]) -> bool:
    """Whether the values are names rather than sentences: what is worded freely is no label."""
    words = [len(value.split()) for value in values if value is not None]
    return bool(words) and sum(words) <= _MAX_WORDS * len(words)


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _issues_of(
    field: str,
    values: Sequence[str | None],
    ids: Sequence[str],
    words: Any,
    config: LabelConfig,
) -> list[LabelIssue]:
    from cleanlab.filter import find_label_issues as confident_learning

    # By id, so that the folds do not depend on the order of the rows.
    rows: Indices = np.array(
        sorted((i for i, v in enumerate(values) if v is not None), key=lambda i: ids[i]),
        dtype=np.int64,
    )
    names, labels = np.unique([str(values[i]) for i in rows], return_inverse=True)
    probabilities = _held_out_probabilities(words[rows], labels, config.num_folds)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of every class that no row is predicted to have
        doubtful = confident_learning(
            labels, probabilities, return_indices_ranked_by="self_confidence", n_jobs=1
        )
    logger.info("labels of %s: %d of %d doubtful", field, len(doubtful), len(rows))
    best = probabilities.argmax(axis=1)
    return [
        LabelIssue(
            index=int(rows[i]),
            field=field,
            given=str(names[labels[i]]),
            suggested=str(names[best[i]]),
            given_probability=float(probabilities[i, labels[i]]),
            suggested_probability=float(probabilities[i, best[i]]),
        )
        for i in doubtful
        if best[i] != labels[i]
    ]


def _words(prompts: Sequence[str]) -> Any:
    """[n, words]: sparse TF-IDF of words and pairs of words, over all rows: it knows no label."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(
        sublinear_tf=True, ngram_range=(1, 2), max_features=200_000, dtype=np.float32
    )
    try:
        return vectorizer.fit_transform(prompts)
    except ValueError as error:  # of prompts without a single word there is nothing to learn
        raise DataError(f"No prompt holds a word to judge labels by: {error}.") from error


def _held_out_probabilities(
    words: Any, labels: npt.NDArray[Any], num_folds: int
) -> npt.NDArray[np.float64]:
    """[n, classes]: what a classifier trained on the other folds says of each row."""
    from sklearn.linear_model import SGDClassifier
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    classifier = SGDClassifier(loss="log_loss", alpha=1e-5, random_state=_SEED)
    num_folds = min(num_folds, int(np.bincount(labels).min()))
    folds = StratifiedKFold(num_folds, shuffle=True, random_state=_SEED)
    return np.asarray(
        cross_val_predict(classifier, words, labels, cv=folds, method="predict_proba")
    )
