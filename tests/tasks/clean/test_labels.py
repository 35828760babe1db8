"""Wrong labels: planted ones are found, right ones are left alone."""

import json
import random
from typing import Any

import numpy as np
import pytest

from tasks.artifacts import TaskConfig
from tasks.clean.config import LabelConfig
from tasks.clean.labels import find_label_issues, label_columns, loss_outliers
from tasks.errors import DataError

LABELS = TaskConfig(kind="classification")
TICKETS = TaskConfig(kind="structured")
WORDS = {
    "card": ("card", "pin", "chip", "contactless", "expired", "declined"),
    "transfer": ("transfer", "account", "beneficiary", "pending", "sent", "iban"),
    "loan": ("loan", "rate", "mortgage", "repay", "interest", "borrow"),
}


def questions(num: int, seed: int = 0) -> tuple[list[str], list[str]]:
    rng = random.Random(seed)
    labels = [rng.choice(list(WORDS)) for _ in range(num)]
    prompts = [
        f"{' '.join(rng.sample(WORDS[label], 3))} question {rng.random()}" for label in labels
    ]
    return prompts, labels


def issues(prompts: list[str], answers: list[str], task: TaskConfig = LABELS, **config: Any) -> Any:
    ids = [f"{i:04d}" for i in range(len(prompts))]
    return find_label_issues(ids, prompts, answers, task, LabelConfig(**config))


def test_planted_wrong_labels_are_found_and_the_right_one_is_suggested() -> None:
    prompts, labels = questions(300)
    wrong = list(labels)
    planted = list(range(0, 300, 25))
    for i in planted:
        wrong[i] = next(label for label in WORDS if label != labels[i])
    found = issues(prompts, wrong)
    assert {i.index for i in found} <= set(planted)
    assert len(found) >= 0.8 * len(planted)
    assert all(i.suggested == labels[i.index] for i in found)
    assert all(i.given_probability < i.suggested_probability for i in found)


def test_right_labels_are_left_alone() -> None:
    assert issues(*questions(200)) == []


def test_each_field_of_a_structured_answer_is_a_label_of_its_own() -> None:
    prompts, labels = questions(200)
    answers = [
        json.dumps({"topic": label, "urgent": i % 2 == 0, "order": f"A-{i}", "n": [i]})
        for i, label in enumerate(labels)
    ]
    wrong = "loan" if labels[7] != "loan" else "card"
    answers[7] = json.dumps({"topic": wrong, "urgent": False, "order": "A-7", "n": []})
    columns = label_columns(answers, TICKETS, LabelConfig())
    assert set(columns) == {"topic", "urgent"}  # an order's number is no class
    assert columns["urgent"][:2] == ["true", "false"]
    found = [i for i in issues(prompts, answers, TICKETS) if i.field == "topic"]
    assert [(i.index, i.given, i.suggested) for i in found] == [(7, wrong, labels[7])]


def test_rare_labels_are_not_judged() -> None:
    prompts, labels = questions(100)
    rare = [*labels[:-2], "rare", "rare"]
    column = label_columns(rare, LABELS, LabelConfig())["answer"]
    assert column[-2:] == [None, None]
    assert all(i.index < 98 for i in issues(prompts, rare))


@pytest.mark.parametrize(
    ("answers", "task"),
    [
        (["yes"] * 50, LABELS),
        ([f"answer {i}" for i in range(50)], LABELS),
        ([], LABELS),
        (["not json"] * 50, TICKETS),
        (["[1]"] * 50, TICKETS),
        (["yes", "no"] * 25, TaskConfig(kind="generation")),
    ],
)
def test_where_there_are_no_labels_nothing_is_judged(answers: list[str], task: TaskConfig) -> None:
    assert issues(["a question"] * len(answers), answers, task) == []


def test_the_order_of_the_rows_does_not_matter() -> None:
    prompts, labels = questions(120)
    labels[3] = "loan" if labels[3] != "loan" else "card"
    ids = [f"{i:04d}" for i in range(120)]
    one = find_label_issues(ids, prompts, labels, LABELS, LabelConfig())
    turned = find_label_issues(ids[::-1], prompts[::-1], labels[::-1], LABELS, LabelConfig())
    assert [(119 - i.index, i.suggested_probability) for i in turned] == [
        (i.index, i.suggested_probability) for i in one
    ]


def test_prompts_without_a_word_are_an_error_that_says_so() -> None:
    with pytest.raises(DataError, match="No prompt holds a word"):
        issues(["?!"] * 20, ["yes", "no"] * 10)


def test_an_answer_with_an_outlying_loss_is_found() -> None:
    losses = np.concatenate([np.random.default_rng(0).normal(2, 0.2, 99), [9.0]])
    prompts = [str(i) for i in range(100)]

    def score(asked: Any, _answers: Any) -> Any:
        return losses[[int(p) for p in asked]]

    found = loss_outliers(prompts, prompts, score, LabelConfig())
    assert [(o.index, o.loss) for o in found] == [(99, 9.0)]
    assert loss_outliers(prompts[:5], prompts[:5], score, LabelConfig()) == []
    few = loss_outliers(prompts, prompts, score, LabelConfig(max_scored=50))
    assert [o.index for o in few] == [99]  # the first and the last are always among those asked
