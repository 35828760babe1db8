"""The choice of answers is balanced, deterministic and independent of the rows' order."""

from __future__ import annotations

import random
import time
from collections import Counter

import pytest

from tasks.report.answers import ScoredAnswer, choose, count_verdicts
from tasks.report.marking import Marked, Piece, mark


def answer(i: int, baseline_score: float, candidate_score: float) -> ScoredAnswer:
    return ScoredAnswer(
        f"g-{i:03}", "prompt", "yes", "base", "no", "yes", baseline_score, candidate_score
    )


def rows(better: int, worse: int, unchanged: int) -> list[ScoredAnswer]:
    scores = [(0.0, 1.0)] * better + [(1.0, 0.0)] * worse + [(1.0, 1.0)] * unchanged
    return [answer(i, *pair) for i, pair in enumerate(scores)]


@pytest.mark.parametrize(
    ("counts", "limit", "expected"),
    [
        ((50, 50, 50), 10, {"better": 4, "worse": 3, "unchanged": 3}),
        ((50, 1, 50), 10, {"better": 5, "worse": 1, "unchanged": 4}),
        ((0, 0, 50), 10, {"unchanged": 10}),
        ((1, 1, 1), 10, {"better": 1, "worse": 1, "unchanged": 1}),
        ((5, 5, 5), 2, {"better": 1, "worse": 1}),
        ((5, 5, 5), 0, {}),
        ((0, 0, 0), 10, {}),
    ],
)
def test_choice_is_balanced(
    counts: tuple[int, int, int], limit: int, expected: dict[str, int]
) -> None:
    chosen = choose(rows(*counts), limit)
    assert Counter(row.verdict for row in chosen) == expected
    assert [row.verdict for row in chosen] == list(
        Counter(row.verdict for row in chosen).elements()
    )


def test_choice_depends_on_the_rows_alone_not_on_their_order() -> None:
    given = rows(40, 30, 20)
    shuffled = random.Random(1).sample(given, len(given))
    assert choose(given) == choose(shuffled)
    assert [row.id for row in choose(given)[:4]] != [row.id for row in given[:4]]


def test_largest_change_comes_first() -> None:
    given = [answer(i, 0.5, 0.5 + i / 100) for i in range(1, 40)]
    assert [row.id for row in choose(given, 3)] == ["g-039", "g-038", "g-037"]


def test_all_rows_are_counted() -> None:
    assert count_verdicts(rows(3, 2, 1)) == {"better": 3, "worse": 2, "unchanged": 1}


@pytest.mark.parametrize(
    ("expected", "given", "marked"),
    [
        ("a b c", "a b c", Marked(pieces=(Piece("a b c"),))),
        (
            "pay the bill",
            "pay a bill now",
            Marked(
                pieces=(
                    Piece("pay "),
                    Piece("the", "missing"),
                    Piece(" "),
                    Piece("a", "different"),
                    Piece(" "),
                    Piece("bill "),
                    Piece("now", "different"),
                )
            ),
        ),
        (
            '{"a": 1, "b": null, "c": "x"}',
            '{"d": [1], "c": "y", "a": 1}',
            Marked(
                fields=(
                    ("a", Piece("1")),
                    ("b", Piece("null", "missing")),
                    ("c", Piece('"y"', "different")),
                    ("d", Piece("[1]", "different")),
                )
            ),
        ),
        ('{"a": 1}', "no", Marked(pieces=(Piece("no", "different"),), note="not a JSON object")),
        ('{"a": 1}', '{"a": true}', Marked(fields=(("a", Piece("true", "different")),))),
        ("a", "  ", Marked(note="empty answer")),
    ],
)
def test_differences_from_the_expected_are_marked(
    expected: str, given: str, marked: Marked
) -> None:
    assert mark(expected, given) == marked


def test_hostile_answers_stay_small_and_raise_nothing() -> None:
    deep, wide = "[" * 100_000, '{"a": "' + "x" * 100_000 + '"}'
    many = "{" + ", ".join(f'"k{i}": {i}' for i in range(500)) + "}"
    assert mark('{"a": 1}', deep).note == "not a JSON object"
    assert len(mark(wide, wide).fields[0][1].text) < 1000
    assert mark(many, many).note == "460 more fields"


def test_answer_that_repeats_itself_is_compared_in_no_time() -> None:
    ours, theirs = ("".join(f"a {word}{i} " for i in range(5_000)) for word in "xy")
    started = time.process_time()
    assert len(mark(ours, theirs).pieces) < 2000
    assert len(mark("a " * 50_000, "b " * 50_000).pieces) < 10
    assert time.process_time() - started < 5
