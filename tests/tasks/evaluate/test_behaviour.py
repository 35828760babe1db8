"""How a model answers: lengths, cut-offs, refusals, repetitions."""

from __future__ import annotations

import pytest

from tasks.evaluate.answers import Answer
from tasks.evaluate.behaviour import behaviour, repetition


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 0),
        ("one two three", 0),
        ("one two three four five", 0),
        # Sequences: abcd, bcda, cdab, dabc, abcd; the last stood before.
        ("a b c d a b c d", 0.2),
        ("no no no no no no no no", 0.8),
    ],
)
def test_repetition_is_what_stood_before(text: str, expected: float) -> None:
    assert repetition(text) == pytest.approx(expected)


def test_each_answer_counts_once() -> None:
    def answer(text: str, num_tokens: int, *, truncated: bool) -> Answer:
        return Answer("i", "p", "r", text, num_tokens, truncated, None)

    found = behaviour(
        [
            answer("I'm sorry, but I can't help with that.", 4, truncated=False),
            answer("a b c d a b c d", 8, truncated=True),
        ]
    )
    assert {name: metric.value for name, metric in found.items()} == {
        "num_tokens": 6.0,
        "truncated": 0.5,
        "refusals": 0.5,
        "repetition": pytest.approx(0.1),
    }
    assert not any(metric.higher_is_better for metric in found.values())
