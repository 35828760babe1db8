"""Recall and precision on the labelled set, beside Presidio's engine on the same texts.

Run with ``-s`` to see the figures of both halves. The floors lie a little under what was measured
on the held-out half; two thirds of the names are what a small model finds in such texts.
"""

import pytest

from tasks.clean.config import PiiConfig
from tasks.clean.pii.scan import personal_spans
from tests.pii_labelled import ENTITIES, Labelled, Score, labelled, plain_analyzer, score

FLOORS = {  # recall, precision
    "PERSON": (0.68, 0.75),
    "EMAIL_ADDRESS": (1.0, 1.0),
    "PHONE_NUMBER": (0.9, 0.8),
    "CREDIT_CARD": (0.75, 1.0),
    "IBAN_CODE": (1.0, 1.0),
    "US_SSN": (1.0, 1.0),
}


@pytest.fixture(scope="module", params=[False, True], ids=["development", "held out"])
def half(request: pytest.FixtureRequest) -> list[Labelled]:
    return [item for item in labelled() if item.is_held_out == request.param]


def test_recall_and_precision(half: list[Labelled]) -> None:
    ours = measured(half)
    print(ours.as_dict())
    if half[0].is_held_out:
        for entity, (recall, precision) in FLOORS.items():
            assert ours.recall(entity) >= recall, entity
            assert ours.precision(entity) >= precision, entity


def test_no_entity_has_less_recall_than_the_plain_engine(half: list[Labelled]) -> None:
    analyze = plain_analyzer()
    plain, ours = score(half, [analyze(item.text) for item in half]), measured(half)
    print("plain", plain.as_dict())
    for entity in ENTITIES:
        assert ours.recall(entity) >= plain.recall(entity), entity
    assert ours.total_recall() > plain.total_recall()


def measured(items: list[Labelled]) -> Score:
    return score(items, personal_spans([item.text for item in items], PiiConfig()))
