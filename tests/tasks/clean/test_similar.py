"""Near-duplicates: against brute force, whatever the order, the batches and the crowds."""

import logging
import multiprocessing
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations

import numpy as np
import pyarrow as pa
import pytest
from datasketch import MinHash
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.clean import minhash, similar
from tasks.clean.config import DuplicateConfig
from tasks.clean.similar import (
    NearDuplicates,
    choose_bands,
    cluster_sizes,
    jaccard,
    near_duplicates,
    shingles,
)


@pytest.mark.parametrize(
    ("text", "words", "expected"),
    [
        ("one two three", 2, {"one two", "two three"}),
        ("One  TWO, three!", 2, {"one two", "two three"}),
        ("one two", 3, {"one two"}),
        ("one - two", 1, {"one", "-", "two"}),
        ("", 3, {""}),
        ("?!", 3, {""}),
        ("a a a a", 2, {"a a"}),
    ],
)
def test_shingles(text: str, words: int, expected: set[str]) -> None:
    assert shingles(text, words) == expected


@given(st.frozensets(st.text(max_size=2)), st.frozensets(st.text(max_size=2)))
def test_jaccard(a: frozenset[str], b: frozenset[str]) -> None:
    assert 0 <= jaccard(a, b) == jaccard(b, a) <= 1
    assert (jaccard(a, b) == 1) == (a == b)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.8, 0.9])
def test_bands_find_99_percent_of_the_pairs_at_the_threshold(threshold: float) -> None:
    bands, rows = choose_bands(threshold, 128)
    assert bands * rows <= 128
    assert 1 - (1 - threshold**rows) ** bands >= 0.99


WORDS = [f"w{n}" for n in range(400)]


def random_texts(seed: int) -> list[str]:
    """Some 600 texts of 30 words, half of them another with a few words changed."""
    rng = random.Random(seed)
    texts = [[rng.choice(WORDS) for _ in range(30)] for _ in range(300)]
    for text in list(texts):
        copy = list(text)
        for _ in range(rng.randrange(1, 6)):
            copy[rng.randrange(30)] = rng.choice(WORDS)
        texts.append(copy)
    rng.shuffle(texts)
    return list(dict.fromkeys(" ".join(text) for text in texts))


def find(
    texts: list[str], config: DuplicateConfig | None = None, order: list[int] | None = None
) -> NearDuplicates:
    places = np.array(range(len(texts)) if order is None else order, np.int64)
    column = pa.array(texts, pa.large_string())
    return near_duplicates(column, places, config or DuplicateConfig())


def kept(found: NearDuplicates) -> set[int]:
    return {i for i, k in enumerate(found.kept_of.tolist()) if i == k}


def close_pairs(texts: list[str], config: DuplicateConfig) -> dict[tuple[int, int], float]:
    sets = [shingles(text, config.shingle_words) for text in texts]
    pairs = {(i, k): jaccard(sets[i], sets[k]) for i, k in combinations(range(len(texts)), 2)}
    return {pair: s for pair, s in pairs.items() if s >= config.threshold}


@pytest.mark.parametrize("threshold", [0.6, 0.8])
def test_against_brute_force(threshold: float) -> None:
    config = DuplicateConfig(threshold=threshold)
    num_pairs = num_missed = 0
    for seed in range(3):
        texts = random_texts(seed)
        pairs = close_pairs(texts, config)
        found = find(texts, config)
        stays = kept(found)
        num_pairs += len(pairs)
        num_missed += sum(i in stays and k in stays for i, k in pairs)
        for index in {*range(len(texts))} - stays:  # precision 1: the pair is real, one row stays
            other = int(found.kept_of[index])
            assert pairs[min(index, other), max(index, other)] == found.similarity[index]
            assert other in stays
        assert all(found.similarity[index] == 1 for index in stays)
    assert num_pairs > 100
    print(f"near duplicates at {threshold}: {num_missed} of {num_pairs} pairs missed")
    assert num_missed <= 0.02 * num_pairs


def greedy(texts: list[str], order: list[int], config: DuplicateConfig) -> NearDuplicates:
    """The definition, row by row: the most similar kept row of those that share a band."""
    num_bands, rows = choose_bands(config.threshold, config.num_permutations)
    data, offsets = minhash.normalised_bytes(pa.array(texts, pa.large_string()))
    keys = np.empty((num_bands, len(texts)), np.uint64)
    a, b = MinHash(num_bands * rows, seed=1).permutations
    minhash.band_keys(
        minhash.Texts(data, offsets[:-1], offsets[1:]),
        *(0, len(texts), config.shingle_words, a, b, rows),
        *(minhash.scratch(int(np.diff(offsets).max()), 0), keys, np.empty(len(texts), np.int32)),
    )
    sets = [shingles(text, config.shingle_words) for text in texts]
    kept_of, similarity = np.arange(len(texts)), np.ones(len(texts))
    stays: list[int] = []
    for i in order:
        near = [(jaccard(sets[i], sets[k]), k) for k in stays if (keys[:, i] == keys[:, k]).any()]
        best = max(near, key=lambda pair: pair[0], default=(0.0, i))  # the first of the largest
        if best[0] >= config.threshold:
            similarity[i], kept_of[i] = best
        else:
            stays.append(i)
    return NearDuplicates(kept_of, similarity)


@pytest.fixture(params=[(1, 8), (3, 5), (10**6, 10**6)], ids=str)
def limits(request: pytest.FixtureRequest) -> Iterator[None]:
    """How many rows are a crowd, and how many are compared side by side."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(minhash, "CROWD", request.param[0])
        patch.setattr(similar, "_BATCH", request.param[1])
        yield


@pytest.mark.usefixtures("limits")
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.text("ab é.", max_size=24), min_size=1, max_size=40),
    st.randoms(use_true_random=False),
    st.sampled_from([0.05, 0.2, 0.5, 0.8, 1.0]),
    st.integers(1, 3),
)
def test_the_result_is_the_greedy_one(
    texts: list[str], rng: random.Random, threshold: float, words: int
) -> None:
    config = DuplicateConfig(threshold=threshold, shingle_words=words, num_permutations=32)
    order = rng.sample(range(len(texts)), len(texts))
    found, expected = find(texts, config, order), greedy(texts, order, config)
    np.testing.assert_array_equal(found.kept_of, expected.kept_of)
    np.testing.assert_array_equal(found.similarity, expected.similarity)


@pytest.mark.usefixtures("limits")
def test_the_order_of_the_rows_does_not_matter() -> None:
    config = DuplicateConfig(threshold=0.6)
    texts = random_texts(7)
    ranks = {text: rank for rank, text in enumerate(texts)}
    expected = {texts[i] for i in kept(find(texts, config))}
    assert 0 < len(expected) < len(texts)
    for seed in range(3):
        random.Random(seed).shuffle(texts)
        order = sorted(range(len(texts)), key=lambda i: ranks[texts[i]])
        assert {texts[i] for i in kept(find(texts, config, order))} == expected


KETTLE = "my kettle leaks at the bottom and it ruins the table in our kitchen every single day"


def test_the_row_that_comes_first_stays() -> None:
    texts = [KETTLE, f"hello {KETTLE}", "something else"]
    assert find(texts).kept_of.tolist() == [0, 0, 2]
    assert find(texts, order=[2, 1, 0]).kept_of.tolist() == [1, 1, 2]


def test_a_row_goes_to_the_most_similar_and_of_equals_to_the_first() -> None:
    config = DuplicateConfig(threshold=0.5, shingle_words=1)
    texts = ["a b c d", "a b c d e f g h i", "a b c d e", "a b c d e f g"]
    found = find(texts, config, [0, 1, 2, 3])
    assert found.kept_of.tolist() == [0, 1, 0, 1]
    assert found.similarity.tolist() == [1, 1, 4 / 5, 7 / 9]
    texts = ["a b c x", "a b c y", "a b c"]
    config = DuplicateConfig(threshold=0.7, shingle_words=1)
    assert find(texts, config, [0, 1, 2]).kept_of.tolist() == [0, 1, 0]
    assert find(texts, config, [1, 0, 2]).kept_of.tolist() == [0, 1, 1]


def test_texts_without_a_word_are_near_duplicates_of_each_other() -> None:
    assert find(["", "a", "?!", " \n"]).kept_of.tolist() == [0, 1, 0, 0]


def test_no_rows() -> None:
    found = find([])
    assert len(found.kept_of) == len(found.similarity) == 0
    assert cluster_sizes(found.kept_of) == {}


@pytest.mark.parametrize("order", [[0], [0, 0], [0, 2], [-1, 0]])
def test_an_order_that_does_not_name_each_row_once_is_refused(order: list[int]) -> None:
    with pytest.raises(ValueError, match="order must name each of the 2 rows once"):
        find(["a", "b"], order=order)


def test_cluster_sizes() -> None:
    assert cluster_sizes(np.array([0, 1, 1, 3, 3, 3, 0])) == {3: 3, 0: 2, 1: 2}
    assert list(cluster_sizes(np.array([0, 1, 1, 3, 3, 3, 0]))) == [3, 0, 1]


@pytest.mark.parametrize("rare", [True, False], ids=["numbers", "words"])
def test_ten_thousand_texts_of_one_template(rare: bool) -> None:
    """All pairs are similar, at 0.6, but not enough: LSH alone would compare 30 million of them."""
    rng = random.Random(1)
    words = [f"w{n}" for n in range(500)]
    template = " ".join(f"t{n}" for n in range(40))
    bodies = [
        " ".join(str(rng.randrange(10**9)) if rare else rng.choice(words) for _ in range(10))
        for _ in range(9_990)
    ]
    texts = [f"{template} {body}" for body in bodies]
    texts += [f"{text} indeed" for text in texts[:10]]
    found = find(texts)
    assert found.kept_of.tolist() == [*range(9_990), *range(10)]


def test_progress_is_told(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(similar, "_TELL_EVERY", 1000)
    monkeypatch.setattr(similar, "_BATCH", 300)
    with caplog.at_level(logging.INFO, logger=similar.__name__):
        find([f"text number {n}" for n in range(2500)])
    told = [record.getMessage() for record in caplog.records]
    assert told == [
        *(f"near_duplicate: {n} of 2,500 rows hashed" for n in ("1,000", "2,000", "2,500")),
        *(f"near_duplicate: {n} of 2,500 rows" for n in ("1,200", "2,100", "2,500")),
    ]


def test_several_threads_and_forked_processes_at_once() -> None:
    texts = random_texts(3)
    expected = find(texts).kept_of.tolist()
    with ThreadPoolExecutor(3) as pool:
        for found in pool.map(find, [texts] * 6):
            assert found.kept_of.tolist() == expected
    with multiprocessing.get_context("fork").Pool(2) as processes:
        for found in processes.map(find, [texts] * 4):
            assert found.kept_of.tolist() == expected
