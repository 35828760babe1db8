"""Diversity falls where texts repeat, and the verdict says so."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.embeddings import EmbeddingConfig
from tasks.synthesize.config import DiversityConfig
from tasks.synthesize.diversity import compare, distinct, self_bleu, spread

CONFIG = DiversityConfig(embedding=None)


def varied(count: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    vocabulary = [f"w{i}" for i in range(500)]
    return [" ".join(rng.choices(vocabulary, k=12)) for _ in range(count)]


def repetitive(count: int) -> list[str]:
    return [f"please help me with my order number {i} as soon as possible" for i in range(count)]


def test_distinct_counts_ngrams() -> None:
    assert distinct(["a b a b"], 1) == 0.5
    assert distinct(["a b a b"], 2) == pytest.approx(2 / 3)
    assert distinct(["A b", "a  B"], 2) == 0.5
    assert distinct(["a"], 3) == 0.0


def test_self_bleu_is_high_where_texts_repeat() -> None:
    assert self_bleu(varied(30)) < 20 < 60 < self_bleu(repetitive(30))


def test_a_generator_that_repeats_itself_has_collapsed() -> None:
    found = compare(repetitive(80), varied(60), CONFIG)
    assert found.verdict == "collapsed"
    assert [reason.split()[0] for reason in found.reasons] == ["distinct-2", "self-BLEU"]
    assert found.synthetic is not None
    assert found.seeds is not None
    assert found.synthetic.n == found.seeds.n == 60


def test_one_as_diverse_as_the_seeds_has_not() -> None:
    assert compare(varied(80, seed=1), varied(60), CONFIG).verdict == "diverse"
    assert compare(repetitive(60), repetitive(60), CONFIG).verdict == "diverse"


def test_few_rows_say_nothing() -> None:
    assert compare(repetitive(19), varied(60), CONFIG).verdict == "too_few"


@given(st.lists(st.text("ab c", max_size=12), max_size=8), st.integers(1, 3))
def test_distinct_is_a_share(texts: list[str], n: int) -> None:
    assert 0.0 <= distinct(texts, n) <= 1.0


@pytest.mark.slow
def test_the_spread_of_meanings() -> None:
    near = ["The parcel is late.", "My package has not come.", "The delivery is delayed."]
    far = ["The parcel is late.", "Photosynthesis needs light.", "She sings in a choir."]
    config = EmbeddingConfig()
    assert 0 < spread(near, config) < spread(far, config) < 2
    assert spread(near[:1] * 3, config) == pytest.approx(0, abs=1e-5)
