"""Duplicates and leaks: against brute force, whatever the order of the rows."""

import os
import random
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.clean.config import DuplicateConfig, GoldenOverlapConfig
from tasks.clean.similar import (
    choose_bands,
    exact_duplicates,
    golden_overlaps,
    jaccard,
    near_duplicates,
    shingles,
)
from tasks.example import Example, Message, content_id

START = datetime(2025, 1, 1, tzinfo=UTC)


def row(prompt: str, answer: str = "a", source: str = "human", day: int | None = None) -> Example:
    turns = (Message("user", prompt), Message("assistant", answer))
    created = None if day is None else START + timedelta(days=day)
    return Example(content_id(turns), turns, source, f"{source}-{day}", created)


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


def random_rows(seed: int) -> list[Example]:
    """Some 600 texts of 30 words, half of them another with a few words changed."""
    rng = random.Random(seed)
    texts = [[rng.choice(WORDS) for _ in range(30)] for _ in range(300)]
    for text in list(texts):
        copy = list(text)
        for _ in range(rng.randrange(1, 6)):
            copy[rng.randrange(30)] = rng.choice(WORDS)
        texts.append(copy)
    rng.shuffle(texts)
    return [row(text) for text in dict.fromkeys(" ".join(text) for text in texts)]


WORDS = [f"w{n}" for n in range(400)]


def close_pairs(rows: list[Example], config: DuplicateConfig) -> dict[tuple[int, int], float]:
    sets = [shingles(e.prompt, config.shingle_words) for e in rows]
    pairs = {(i, k): jaccard(sets[i], sets[k]) for i, k in combinations(range(len(rows)), 2)}
    return {pair: s for pair, s in pairs.items() if s >= config.threshold}


@pytest.mark.parametrize("threshold", [0.6, 0.7, 0.8])
def test_near_duplicates_against_brute_force(threshold: float) -> None:
    config = DuplicateConfig(threshold=threshold)
    num_pairs = num_missed = 0
    for seed in range(3):
        rows = random_rows(seed)
        pairs = close_pairs(rows, config)
        found = near_duplicates(rows, config)
        gone = {m.index for m in found}
        num_pairs += len(pairs)
        num_missed += sum(i not in gone and k not in gone for i, k in pairs)
        places = {e.id: i for i, e in enumerate(rows)}
        for match in found:  # precision 1: the pair is real, and its other row stays
            kept = places[match.kept_id]
            pair = (min(match.index, kept), max(match.index, kept))
            assert pairs[pair] == match.similarity
            assert kept not in gone
    assert num_pairs > 100
    print(f"near duplicates at {threshold}: {num_missed} of {num_pairs} pairs missed")
    assert num_missed <= 0.02 * num_pairs


def survivors(rows: list[Example], config: DuplicateConfig) -> set[tuple[str, str]]:
    first = {m.index for m in exact_duplicates(rows)}
    rows = [e for i, e in enumerate(rows) if i not in first]
    gone = {m.index for m in near_duplicates(rows, config)}
    return {(e.prompt, e.group) for i, e in enumerate(rows) if i not in gone}


def test_the_order_of_the_rows_does_not_matter() -> None:
    config = DuplicateConfig(threshold=0.6)
    rows = random_rows(7)
    rows += [row(e.prompt.upper(), day=n % 5) for n, e in enumerate(rows[:200])]
    expected = survivors(rows, config)
    for seed in range(3):
        random.Random(seed).shuffle(rows)
        assert survivors(rows, config) == expected


TEXT = "my kettle leaks at the bottom and it ruins the table in our kitchen every single day"


@pytest.mark.parametrize("copy", [TEXT, f"hello {TEXT}"], ids=["exact", "near"])
@pytest.mark.parametrize(
    ("better", "worse"),
    [
        (row(TEXT, source="human", day=9), row(TEXT, source="synthetic", day=1)),
        (row(TEXT, source="annotation"), row(TEXT, source="production")),
        (row(TEXT, source="production"), row(TEXT, source="hub")),
        (row(TEXT, source="hub", day=9), row(TEXT, source="synthetic")),
        (row(TEXT, source="human", day=1), row(TEXT, source="human", day=2)),
        (row(TEXT, source="human", day=1), row(TEXT, source="human")),
    ],
    ids=range(6),
)
def test_the_better_source_stays_then_the_older_row(
    better: Example, worse: Example, copy: str
) -> None:
    worse = replace(worse, messages=row(copy).messages, id=row(copy).id)
    for rows in ([better, worse], [worse, better]):
        assert survivors(rows, DuplicateConfig()) == {(better.prompt, better.group)}


def test_rows_that_differ_in_the_answer_are_no_exact_duplicates() -> None:
    assert exact_duplicates([row("q", "a"), row("q", "b")]) == []
    assert len(exact_duplicates([row("q", "a"), row(" Q", "A ")])) == 1


GOLDEN = row("the parcel came open and half of what I ordered was not in the box")


@pytest.mark.parametrize(
    ("prompt", "leaks"),
    [
        (GOLDEN.prompt, True),
        (GOLDEN.prompt.upper() + "!", True),
        (f"well, {GOLDEN.prompt} thanks", True),
        ("so " * 80 + GOLDEN.prompt, True),  # held whole by a long text: little similarity
        ("the parcel came open and half of what I ordered was not in the car today", True),
        ("the parcel came late and none of what I wanted was in it", False),
        ("the parcel came open", False),
        ("", False),
    ],
)
def test_golden_overlap(prompt: str, leaks: bool) -> None:
    found = golden_overlaps(
        [row(prompt)], [row("something else"), GOLDEN], GoldenOverlapConfig(), 3
    )
    assert [m.kept_id for m in found] == ([GOLDEN.id] if leaks else [])


def test_golden_overlap_names_the_same_row_in_every_process() -> None:
    """Sets of words come in another order in every process; results must not."""
    script = "from tests_rows import *"  # replaced below: the rows are made in the other process
    script = (
        "from tasks.clean.config import GoldenOverlapConfig as C\n"
        "from tasks.clean.similar import golden_overlaps\n"
        "from tasks.example import Example, Message\n"
        "def row(n, text): return Example(n, (Message('user', text),), 'human', n)\n"
        "words = [f'w{n}' for n in range(40)]\n"
        "golden = [row(f'g{n}', ' '.join(words[n:n + 20])) for n in range(20)]\n"
        "found = golden_overlaps([row('x', ' '.join(words))], golden, C(), 1)\n"
        "print([(m.kept_id, m.similarity) for m in found])\n"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert printed == {b"[('g9', 0.5)]\n"}
