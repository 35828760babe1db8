"""The metrics agree with the libraries that define them, work offline, and leave nothing behind."""

from __future__ import annotations

import json
import random
from pathlib import Path

import evaluate
import numpy as np
import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer
from sklearn.metrics import accuracy_score, f1_score, precision_recall_fscore_support

from tasks.errors import ConfigError, DataError
from tasks.evaluate.config import METRIC_NAMES, EvaluateConfig
from tasks.metrics import (
    METRICS,
    Accuracy,
    Bleu,
    Chrf,
    ExactMatch,
    FieldF1,
    FieldPrecision,
    FieldRecall,
    JsonValidity,
    Kind,
    MacroF1,
    Rouge1,
    Rouge2,
    RougeL,
    TextMetric,
    metrics_for,
)

WORDS = [
    "the",
    "card",
    "payment",
    "was",
    "declined",
    "twice",
    "at",
    "a",
    "shop",
    ",",
    "please",
    ".",
]


def value(metric: TextMetric, predictions: list[str], references: list[str]) -> float:
    result = metric.compute(predictions=predictions, references=references)
    return float(result[metric.name])


def texts(seed: int, n: int = 60) -> tuple[list[str], list[str]]:
    """References and answers that lost, gained and swapped words; a few are empty or short."""
    rng = random.Random(seed)
    references = [" ".join(rng.choices(WORDS, k=rng.randint(1, 15))) for _ in range(n)]
    predictions = [
        " ".join(
            w if rng.random() < 0.7 else rng.choice(WORDS) for w in r.split()[rng.randint(0, 2) :]
        )
        for r in references
    ]
    return predictions, references


RECORDED = [
    (["the cat sat on the mat"], ["the cat sat on the mat"]),
    (["the cat"], ["the cat sat on the mat"]),
    (["completely different words"], ["the cat sat on the mat"]),
    (["", "a b c d e"], ["something", "a b c d f"]),
    (["Mixed CASE, with punctuation!"], ["mixed case with punctuation"]),
    (["un été à la plage"], ["un été à la mer"]),
]


@pytest.mark.parametrize(
    ("predictions", "references"), RECORDED + [texts(seed) for seed in range(5)]
)
def test_rouge_bleu_and_chrf_agree_with_their_libraries(
    predictions: list[str], references: list[str]
) -> None:
    for metric in (Rouge1(), Rouge2(), RougeL()):
        scorer = RougeScorer([metric.kind])
        rouge = [
            scorer.score(r, p)[metric.kind].fmeasure
            for p, r in zip(predictions, references, strict=True)
        ]
        assert value(metric, predictions, references) == pytest.approx(np.mean(rouge), abs=1e-6)
    bleu = sacrebleu.corpus_bleu(predictions, [references]).score / 100
    chrf = sacrebleu.corpus_chrf(predictions, [references]).score / 100

    assert value(Bleu(), predictions, references) == pytest.approx(bleu, abs=1e-6)
    assert value(Chrf(), predictions, references) == pytest.approx(chrf, abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_classification_agrees_with_scikit_learn(seed: int) -> None:
    rng = random.Random(seed)
    labels = ["card_lost", "top_up", "refund", "fees"]
    references = rng.choices(labels, weights=[8, 4, 2, 1], k=80)
    predictions = [
        r if rng.random() < 0.6 else rng.choice([*labels, "nonsense"]) for r in references
    ]

    macro = f1_score(
        references, predictions, average="macro", labels=sorted(set(references)), zero_division=0
    )

    assert value(MacroF1(), predictions, references) == pytest.approx(macro, abs=1e-6)
    assert value(Accuracy(), predictions, references) == pytest.approx(
        accuracy_score(references, predictions), abs=1e-6
    )


def test_answers_outside_the_labels_are_wrong_and_no_class_of_their_own() -> None:
    predictions, references = ["a", "I think it is b", " b\n"], ["a", "b", "b"]

    # a: F1 1; b: one right, one missed, none claimed wrongly: 2/3.
    assert value(MacroF1(), predictions, references) == pytest.approx((1 + 2 / 3) / 2)
    assert value(Accuracy(), predictions, references) == pytest.approx(2 / 3)
    assert MacroF1().stats(predictions, references).shape == (3, 3 * 2)


@pytest.mark.parametrize(
    ("prediction", "reference", "expected"),
    [
        ("yes", "yes", 1),
        (" yes\n", "yes", 1),
        ("Yes", "yes", 0),
        ('{"a": 1, "b": [1, 2]}', '{"b":[1,2],"a":1}', 1),
        ('{"a": 1.0}', '{"a": 1}', 1),
        ('{"a": true}', '{"a": 1}', 0),
        ('{"a": "1"}', '{"a": 1}', 0),
        ("[1, 2]", "[2, 1]", 0),
        ('{"a": 1', '{"a": 1}', 0),
        ('{"a": 1', '{"a": 1', 1),
        ("1.0", "1", 0),  # bare numbers are labels, not structure
    ],
)
def test_exact_match(prediction: str, reference: str, expected: int) -> None:
    assert value(ExactMatch(), [prediction], [reference]) == expected


@pytest.mark.parametrize(
    ("prediction", "expected"),
    [
        ('{"a": [1, null]}', 1),
        (' {"a": 1}\n', 1),
        ('"text"', 1),
        ("", 0),
        ("plain words", 0),
        ('{"a": NaN}', 0),
        ("{'a': 1}", 0),
        ('{"a": 1} and more', 0),
        ('```json\n{"a": 1}\n```', 0),
        ("[" * 100_000, 0),
        ("1" * 5000, 0),
    ],
)
def test_json_validity(prediction: str, expected: int) -> None:
    assert value(JsonValidity(), [prediction], ["{}"]) == expected


REFERENCE = '{"intent": "refund", "slots": {"amount": 5, "cards": ["visa", "amex"]}}'


@pytest.mark.parametrize(
    ("prediction", "counts"),
    [
        (REFERENCE, (4, 0, 0)),
        ('{"slots": {"cards": ["amex", "visa"], "amount": 5.0}, "intent": "refund"}', (4, 0, 0)),
        ('{"intent": "refund", "slots": {"amount": 6}}', (1, 1, 3)),
        ('{"intent": "refund", "slots": {"amount": 5, "cards": "visa"}}', (2, 1, 2)),
        ('{"intent": "refund", "slots": {}}', (1, 1, 3)),
        ("{}", (0, 1, 4)),
        ('["refund"]', (0, 0, 4)),
        ("not JSON", (0, 0, 4)),
        ("[" * 100_000, (0, 0, 4)),
    ],
)
def test_field_f1_counts(prediction: str, counts: tuple[int, int, int]) -> None:
    assert tuple(FieldF1().stats([prediction], [REFERENCE])[0]) == counts


def test_field_f1_is_micro_averaged() -> None:
    predictions = ['{"a": 1}', '{"a": 1, "b": 2, "c": 9}']
    references = ['{"a": 2}', '{"a": 1, "b": 2, "c": 3}']

    assert value(FieldF1(), predictions, references) == pytest.approx(2 * 2 / (2 * 2 + 2 + 2))


def test_precision_and_recall_of_fields_agree_with_scikit_learn() -> None:
    """Of flat objects, each of whose possible pairs is a label of its own."""
    rng = random.Random(3)

    def flat() -> dict[str, int]:
        return {key: rng.randint(0, 2) for key in "abcdef" if rng.random() < 0.7}

    answered, expected = ([flat() for _ in range(40)] for _ in range(2))
    pairs = [(key, number) for key in "abcdef" for number in range(3)]
    found, wanted = (
        np.array([[row.get(key) == number for key, number in pairs] for row in rows])
        for rows in (answered, expected)
    )
    texts_ = [[json.dumps(row) for row in rows] for rows in (answered, expected)]
    measures = precision_recall_fscore_support(wanted, found, average="micro")[:3]
    for metric, measure in zip((FieldPrecision(), FieldRecall(), FieldF1()), measures, strict=True):
        assert value(metric, *texts_) == pytest.approx(measure, abs=1e-6)
    assert value(FieldPrecision(), ["no object"], ['{"a": 1}']) == 0
    assert value(FieldRecall(), ['{"a": 1}'], ["{}"]) == 0


def test_objects_in_lists_are_compared_whole() -> None:
    reference = json.dumps({"items": [{"name": "tea", "n": 2}, {"name": "milk", "n": 1}]})
    prediction = json.dumps({"items": [{"n": 2, "name": "tea"}, {"name": "milk", "n": 3}]})

    assert FieldF1().stats([prediction], [reference]).tolist() == [[1, 1, 1]]


def test_an_empty_reference_can_be_met_and_missed() -> None:
    stats = FieldF1().stats(["{}", "not JSON", '{"a": 1}'], ["{}"] * 3)

    assert stats.tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 1]]


def test_a_reference_that_is_no_object_is_bad_data() -> None:
    with pytest.raises(DataError, match=r"field_f1.*plain"):
        FieldF1().stats(["{}"], ["plain text"])


@pytest.mark.parametrize("name", METRICS)
def test_metric_contract(name: str) -> None:
    """Named, of the library's class, on 0..1, one row of finite statistics per answer."""
    metric = METRICS[name]()
    answers = ['{"a": 1}', '{"a": 2}', ""]

    stats = metric.stats(answers, ['{"a": 1}'] * 3)

    assert isinstance(metric, evaluate.Metric)
    assert metric.name == name
    assert (stats.ndim, len(stats)) == (2, 3)
    assert stats.dtype == np.float64
    assert np.isfinite(stats).all()
    assert 0 <= value(metric, answers, ['{"a": 1}'] * 3) <= 1
    with pytest.raises(ValueError, match=r"shorter|longer|predictions"):
        metric.stats(answers, ["{}"])


def test_metrics_leave_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)

    value(ExactMatch(), ["a"], ["a"])

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (
            "structured",
            [
                *("exact_match", "json_validity", "field_f1", "field_precision", "field_recall"),
                *("rouge_l", "bleu"),
            ],
        ),
        ("classification", ["accuracy", "macro_f1", "exact_match"]),
        ("generation", ["exact_match", "rouge_1", "rouge_2", "rouge_l", "bleu", "chrf"]),
    ],
)
def test_metrics_for_a_kind_of_task(kind: Kind, expected: list[str]) -> None:
    assert [metric.name for metric in metrics_for(kind)] == expected
    assert [metric.name for metric in metrics_for(kind, ["bleu"])] == ["bleu"]


def test_config_and_metrics_know_the_same_names() -> None:
    assert set(METRIC_NAMES) == {*METRICS, "schema_compliance", "semantic_similarity"}
    with pytest.raises(ConfigError, match="meteor"):
        metrics_for("generation", ["meteor"])
    with pytest.raises(ValueError, match="meteor"):
        EvaluateConfig.model_validate({"metrics": ["meteor"]})
