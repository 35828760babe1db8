"""Overlaps are exactly those that comparing all with all would find."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.example import Example, Message
from tasks.synthesize.config import FilterConfig
from tasks.synthesize.filter import overlaps, shingles

CONFIG = FilterConfig(shingle_words=2)
TEXTS = st.lists(st.lists(st.sampled_from("abcde"), max_size=7).map(" ".join), max_size=8)


def row(text: str) -> Example:
    return Example(text, (Message("user", text), Message("assistant", "yes")), "human", "g")


def jaccard(a: str, b: str) -> float:
    left, right = set(shingles(a, 2)), set(shingles(b, 2))
    return len(left & right) / len(left | right)


@settings(deadline=None, max_examples=40)
@given(TEXTS, TEXTS, TEXTS, TEXTS)
def test_equals_the_comparison_of_all_with_all(
    new: list[str], training: list[str], held_out: list[str], golden: list[str]
) -> None:
    splits = ["train"] * len(training) + ["test"] * len(held_out)
    rows = [row(t) for t in [*training, *held_out]]
    found = overlaps([row(t) for t in new], rows, splits, [row(t) for t in golden], CONFIG)

    expected, stays = [], []
    for index, text in enumerate(new):
        near = [
            ("golden_overlap", any(jaccard(text, t) >= 0.5 for t in golden)),
            ("heldout_overlap", any(jaccard(text, t) >= 0.5 for t in held_out)),
            ("duplicate_of_row", any(jaccard(text, t) >= 0.7 for t in training)),
            ("duplicate", any(jaccard(text, t) >= 0.7 for t in stays)),
        ]
        reason = next((name for name, holds in near if holds), None)
        if reason is None:
            stays.append(text)
        else:
            expected.append((index, reason))
    assert [(o.index, o.reason) for o in found] == expected
