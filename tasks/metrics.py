"""The task metrics, as ``evaluate.Metric`` classes that need no network.

Each metric says what every answer contributes (``stats``, see ``tasks.scores``); its value follows
from that, on 0..1. ``ExactMatch().compute(predictions=[...], references=[...])`` works as for any
metric of the evaluate library, without downloads and without cache files.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import datasets
import evaluate
import numpy as np
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from tasks.errors import ConfigError, DataError
from tasks.json_values import comparable, pairs, parse
from tasks.scores import Floats, Reducer, reduce

Kind = Literal["classification", "structured", "generation"]


class TextMetric(evaluate.Metric):  # type: ignore[misc]  # the library is untyped
    """Base of the metrics: compares answers with references, text with text."""

    name: str
    reducer: Reducer = "proportion"
    higher_is_better: bool = True
    bounds: tuple[float, float] | None = (0.0, 1.0)  # of what a mean averages; None: unbounded

    def __init__(self) -> None:
        super().__init__(keep_in_memory=True)

    def stats(self, predictions: Sequence[str], references: Sequence[str]) -> Floats:
        """What each answer contributes, shape (n, k).

        Raises:
            DataError: a reference is not what the metric needs.
            ValueError: there are not as many predictions as references.
        """
        rows = [self._row(p, r) for p, r in zip(predictions, references, strict=True)]
        return np.asarray(rows, dtype=np.float64).reshape(len(rows), -1)

    def _row(self, prediction: str, reference: str) -> Sequence[float]:
        raise NotImplementedError

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=type(self).__doc__ or "",
            citation="",
            inputs_description="predictions and references: lists of strings of equal length",
            features=datasets.Features({"predictions": text, "references": text}),
        )

    def _compute(self, predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
        return {self.name: float(reduce(self.reducer, self.stats(predictions, references)))}

    def _build_data_dir(self) -> str:
        # The library would create a cache folder even for a metric that is kept in memory.
        return str(self._data_dir_root)


class ExactMatch(TextMetric):
    """Whether the answer equals the reference.

    JSON objects and arrays are equal when their content is, whatever the order of keys, the white
    space or the notation of numbers; any other texts after stripping outer white space.
    """

    name = "exact_match"

    def _row(self, prediction: str, reference: str) -> Sequence[float]:
        return [comparable(prediction) == comparable(reference)]


class JsonValidity(TextMetric):
    """Whether the answer, as a whole, is a JSON text (RFC 8259). The reference does not matter."""

    name = "json_validity"

    def _row(self, prediction: str, reference: str) -> Sequence[float]:
        try:
            parse(prediction)
        except (ValueError, RecursionError):
            return [0.0]
        return [1.0]


class _Fields(TextMetric):
    """Counts the (path, value) pairs of JSON objects: right, wrong and missed.

    Nested objects give longer paths; a list counts as the set of its elements, each compared whole;
    an empty object or list is a value of its own. A pair in both texts is a true positive. An
    answer that is not a JSON object misses every pair of the reference.
    """

    def _row(self, prediction: str, reference: str) -> Sequence[float]:
        expected = pairs(reference)
        if expected is None:
            raise DataError(f"{self.name}: the reference is not a JSON object: {reference[:200]!r}")
        found = pairs(prediction) or set()
        return [len(expected & found), len(found - expected), len(expected - found)]


class FieldF1(_Fields):
    """Micro F1 over the (path, value) pairs of JSON objects."""

    name = "field_f1"
    reducer = "f1"


class FieldPrecision(_Fields):
    """The share of the (path, value) pairs answered that are right; 0 where none was answered."""

    name = "field_precision"
    reducer = "precision"


class FieldRecall(_Fields):
    """The share of the (path, value) pairs expected that were answered."""

    name = "field_recall"
    reducer = "recall"


class Rouge(TextMetric):
    """F-measure of the words in common (Lin, 2004), by Google's rouge_score.

    Its tokenizer lower-cases and keeps only a-z and 0-9: not for other scripts.
    """

    reducer = "mean"
    kind: str

    def __init__(self) -> None:
        super().__init__()
        self._scorer = RougeScorer([self.kind])

    def _row(self, prediction: str, reference: str) -> Sequence[float]:
        return [self._scorer.score(reference, prediction)[self.kind].fmeasure]


class Rouge1(Rouge):
    """ROUGE-1: of single words."""

    name, kind = "rouge_1", "rouge1"


class Rouge2(Rouge):
    """ROUGE-2: of two words in a row."""

    name, kind = "rouge_2", "rouge2"


class RougeL(Rouge):
    """ROUGE-L: of the longest common subsequence."""

    name, kind = "rouge_l", "rougeL"


class Bleu(TextMetric):
    """Corpus BLEU-4 on 0..1, from sacrebleu's counts and tokenizer (13a), one reference each."""

    name = "bleu"
    reducer = "bleu"

    def __init__(self) -> None:
        super().__init__()
        # effective_order only silences a warning about sentence scores: the counts are the same.
        self._bleu = BLEU(effective_order=True)

    def _row(self, prediction: str, reference: str) -> Sequence[float]:
        counts = self._bleu.sentence_score(prediction, [reference])
        return [counts.sys_len, counts.ref_len, *counts.counts, *counts.totals]


class Chrf(TextMetric):
    """Corpus chrF2 (Popović, 2015) on 0..1: sequences of one to six characters, by sacrebleu."""

    name = "chrf"
    reducer = "chrf"

    def __init__(self) -> None:
        super().__init__()
        self._chrf = CHRF()

    def _row(self, prediction: str, reference: str) -> Sequence[float]:
        # Its public methods give the score alone; these counts are what it computes it from.
        counts: list[float] = self._chrf._extract_corpus_statistics([prediction], [[reference]])[0]
        return counts


class Accuracy(TextMetric):
    """Whether the answer is the right label, after stripping outer white space."""

    name = "accuracy"

    def _row(self, prediction: str, reference: str) -> Sequence[float]:
        return [prediction.strip() == reference.strip()]


class MacroF1(TextMetric):
    """Mean F1 of the classes that the references name.

    The classes come from the references alone, so that two models on the same rows have the same.
    An answer that is none of them is wrong (a false negative of the right class) and a class to
    itself never: ``sklearn.metrics.f1_score(average="macro", labels=sorted(set(references)))``.
    """

    name = "macro_f1"
    reducer = "macro_f1"

    def stats(self, predictions: Sequence[str], references: Sequence[str]) -> Floats:
        """One-hot counts of shape (n, 3 x classes): true positives, false ones, false negatives."""
        answers = np.array([p.strip() for p in predictions], dtype=object)
        right = np.array([r.strip() for r in references], dtype=object)
        if len(answers) != len(right):
            raise ValueError(f"{len(answers)} predictions for {len(right)} references")
        classes = np.array(sorted(set(right)), dtype=object)
        answered, expected = answers[:, None] == classes, right[:, None] == classes
        blocks = [answered & expected, answered & ~expected, expected & ~answered]
        return np.concatenate(blocks, axis=1).astype(np.float64)


METRICS: dict[str, type[TextMetric]] = {
    m.name: m
    for m in (
        *(ExactMatch, JsonValidity, FieldF1, FieldPrecision, FieldRecall),
        *(Rouge1, Rouge2, RougeL, Bleu, Chrf, Accuracy, MacroF1),
    )
}
_NAMES_BY_KIND: dict[Kind, tuple[str, ...]] = {
    "structured": (
        *("exact_match", "json_validity", "field_f1", "field_precision", "field_recall"),
        *("rouge_l", "bleu"),
    ),
    "classification": ("accuracy", "macro_f1", "exact_match"),
    "generation": ("exact_match", "rouge_1", "rouge_2", "rouge_l", "bleu", "chrf"),
}


def metrics_for(kind: Kind, names: Sequence[str] | None = None) -> list[TextMetric]:
    """The metrics called ``names``, or those usual for the kind of task.

    Raises:
        ConfigError: there is no metric of such a name.
    """
    wanted = _NAMES_BY_KIND[kind] if names is None else names
    unknown = [name for name in wanted if name not in METRICS]
    if unknown:
        raise ConfigError(f"unknown metrics {unknown}; available: {sorted(METRICS)}")
    return [METRICS[name]() for name in wanted]
