"""Formatting as one of the checks, and the row that is shown token by token."""

from __future__ import annotations

import pytest

from tasks.report.data import Piece, pieces
from tasks.report.formatting import example, format_check


def test_set_of_an_older_version_has_its_counts_alone() -> None:
    check = format_check({}, {"too_long": 3}, 100)
    assert (check.num_in, check.num_out) == (100, 97)
    assert check.histogram is None
    assert (check.notes, check.samples) == ([], [])
    assert example({}) == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [(" a b", "·a·b"), ("\n\n", "↵\n↵\n"), ("\tx\r", "→\tx␍"), ("", ""), ("<b>", "<b>")],
)
def test_white_space_is_visible(text: str, shown: str) -> None:
    assert list(pieces([(text, True)])) == [Piece(shown, True)]


def test_long_prompt_leaves_the_answer_in_sight() -> None:
    prompt = [(f"p{i}", False) for i in range(3_000)]
    answer = [(f"a{i}", True) for i in range(100)]
    shown = list(pieces([*prompt, *answer]))
    assert [p.text for p in shown if p.trained] == [f"a{i}" for i in range(100)]
    (gap,) = [p for p in shown if p.num_left_out]
    assert gap == Piece("", False, 2_760)
    assert [p.text for p in shown[119:122]] == ["p119", "", "p2880"]


def test_every_token_is_shown_or_counted() -> None:
    tokens = [("t", i % 2 == 0) for i in range(1_000)] + [("u", True)] * 999
    shown = list(pieces(tokens))
    assert sum(p.num_left_out or 1 for p in shown) == len(tokens)
    assert len(shown) < 300
