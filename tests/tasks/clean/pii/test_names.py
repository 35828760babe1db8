"""The network evaluated here finds what spaCy's own code finds with it, to the character."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.clean.pii.names import SPACY_MODEL, Entity, NameRecogniser
from tests.pii_labelled import labelled

TEXTS = [item.text for item in labelled()]
WORDS = [
    "Anna",
    "Berg",
    "met",
    "Dr",
    "Lee",
    "in",
    "Paris",
    "on",
    "Monday",
    "\n",
    ",",
    ".",
    "12",
    "$",
]
ODD = [
    "",
    " ",
    "\n\n",
    "a",
    "Anna",
    "  Anna  Berg \n\t Berlin  ",
    "Anna Berg, Tom Ferris and Mr. Lee met in New York City on 3 May 2026 for $3,000. " * 30,
    "王小明 и Анна\u00a0Берг",
    "a" * 3000,
]


@pytest.fixture(scope="module")
def nlp() -> Any:
    import spacy

    return spacy.load(SPACY_MODEL)


@pytest.fixture(scope="module")
def recogniser() -> NameRecogniser:
    return NameRecogniser()


def spacy_entities(nlp: Any, text: str) -> list[Entity]:
    with nlp.select_pipes(enable=["ner"]):
        return [Entity(e.start_char, e.end_char, e.label_) for e in nlp(text).ents]


def test_equal_to_spacy(nlp: Any, recogniser: NameRecogniser) -> None:
    texts = [*TEXTS, *ODD]
    found = list(recogniser.find(texts))
    assert found == [spacy_entities(nlp, text) for text in texts]
    assert sum(len(entities) for entities in found) > 300


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(WORDS)))
def test_equal_to_spacy_on_any_words(
    nlp: Any, recogniser: NameRecogniser, words: list[str]
) -> None:
    text = " ".join(words)
    assert list(recogniser.find([text])) == [spacy_entities(nlp, text)]


def test_the_texts_beside_a_text_do_not_matter(recogniser: NameRecogniser) -> None:
    together = list(recogniser.find(TEXTS))
    assert list(recogniser.find(TEXTS[::-1]))[::-1] == together
    assert [next(recogniser.find([text])) for text in TEXTS[:40]] == together[:40]


def test_no_texts(recogniser: NameRecogniser) -> None:
    assert list(recogniser.find([])) == []
