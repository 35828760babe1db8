"""Which metrics an evaluation has: schema compliance, similarity of meaning, and a team's own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tasks.artifacts import TaskConfig
from tasks.embeddings import EmbeddingConfig
from tasks.errors import ConfigError
from tasks.evaluate.answers import Answer
from tasks.evaluate.chosen import (
    SchemaCompliance,
    SemanticSimilarity,
    chosen_metrics,
    own_metrics_digest,
)
from tasks.evaluate.config import EvaluateConfig
from tasks.evaluate.scoring import score
from tasks.objects import open_store

SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["city"],
    "properties": {"city": {"type": "string"}, "guests": {"type": "integer", "minimum": 1}},
}
TASK = TaskConfig(kind="structured", answer_schema=SCHEMA)
OWN = """
from tasks.metrics import TextMetric


class Shouting(TextMetric):
    name = "shouting"
    higher_is_better = False

    def _row(self, prediction, reference):
        return [prediction.isupper()]


class Words(TextMetric):
    name = "words"
    reducer = "mean"
    bounds = None

    def _row(self, prediction, reference):
        return [len(prediction.split())]


class Nameless(TextMetric):
    pass


class Usurper(Shouting):
    name = "bleu"


NUMBER = 5
"""


@pytest.fixture(autouse=True)
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "our_metrics.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "our_metrics.py"
    sys.modules.pop("our_metrics", None)


def named(*names: str) -> EvaluateConfig:
    return EvaluateConfig(metrics=names)


@pytest.mark.parametrize(
    ("answer", "complies"),
    [
        ('{"city": "Bonn", "guests": 2}', 1),
        (' {"city": "Bonn"}\n', 1),
        ('{"city": "Bonn", "guests": 0}', 0),
        ('{"city": "Bonn", "more": 1}', 0),
        ('{"guests": 1}', 0),
        ('["Bonn"]', 0),
        ('{"city": "Bonn"', 0),
        ("", 0),
        ("[" * 100_000, 0),
    ],
)
def test_schema_compliance(answer: str, complies: int) -> None:
    assert SchemaCompliance(TASK).stats([answer], ["{}"]).tolist() == [[complies]]


def test_schema_compliance_without_a_schema_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"needs task\.answer_schema"):
        chosen_metrics(named("schema_compliance"), TaskConfig(kind="structured"))


def test_meanings_are_compared_by_the_real_model() -> None:
    metric = SemanticSimilarity(EmbeddingConfig())
    same, alike, other = metric.stats(
        ["The parcel never arrived."] * 3,
        ["The parcel never arrived.", "My package was not delivered.", "Bananas are yellow."],
    )[:, 0]
    assert same == pytest.approx(1, abs=1e-5)
    assert 1 > alike > 0.4 > other >= 0
    with pytest.raises(ValueError, match="2 predictions for 1 references"):
        metric.stats(["a", "b"], ["c"])


def test_the_usual_metrics_by_kind() -> None:
    names = {
        kind: [m.name for m in chosen_metrics(EvaluateConfig(), TaskConfig(kind=kind))]
        for kind in ("classification", "structured", "generation")
    }
    assert "semantic_similarity" in names["generation"]
    assert "schema_compliance" not in names["structured"]
    assert [m.name for m in chosen_metrics(EvaluateConfig(), TASK)][-1] == "schema_compliance"
    assert "semantic_similarity" not in names["classification"]


def test_a_metric_of_ones_own() -> None:
    (metric,) = chosen_metrics(named("our_metrics:Shouting"), TASK)
    assert metric.stats(["NO", "yes"], ["", ""]).tolist() == [[1], [0]]
    assert (metric.name, metric.higher_is_better) == ("shouting", False)


def test_a_metric_of_ones_own_need_not_be_a_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RETUNE_STORE", str(tmp_path / "store"))
    answers = [Answer(str(i), "p", "r", "some words " * i, i, False, None) for i in range(3)]
    scores, _, _ = score(answers, named("our_metrics:Words"), TASK, open_store())
    assert scores["words"].value == 2


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("our_metrics:Missing", "has no attribute 'Missing'"),
        ("no_such_module:Metric", "No module named 'no_such_module'"),
        ("our_metrics:NUMBER", "is 5; expected package.module:Class"),
        ("our_metrics:Nameless", "must have a name of its own"),
        ("our_metrics:Usurper", "must have a name of its own, and has 'bleu'"),
    ],
)
def test_what_is_no_metric_is_told(path: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        chosen_metrics(named(path), TASK)


def test_an_edited_metric_is_another(own_module: Path) -> None:
    config = named("our_metrics:Shouting", "bleu")
    before = own_metrics_digest(config)
    assert own_metrics_digest(config) == before != own_metrics_digest(named("bleu"))
    own_module.write_text(OWN.replace("isupper", "islower"))
    sys.modules.pop("our_metrics")
    import linecache

    linecache.checkcache()
    assert own_metrics_digest(config) != before
