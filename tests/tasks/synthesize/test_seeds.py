"""Seeds: drawn the same each time, all in turn, unlike each other."""

from __future__ import annotations

from collections import Counter

from tasks.example import Example, Message
from tasks.synthesize.config import GenerationConfig
from tasks.synthesize.seeds import draw, seeds_of


def row(text: str, *more: Message) -> Example:
    turns = (Message("user", text), Message("assistant", "yes"), *more)
    return Example(text, turns, "human", text)


def test_every_seed_has_its_turn_before_any_comes_first_again() -> None:
    rows = [row(f"text number {i} about {'abcdefghij'[i % 10]}") for i in range(20)]
    drawn = draw(rows, GenerationConfig(num_calls=40, seeds_per_call=3))
    assert set(Counter(group[0].id for group in drawn).values()) == {2}
    assert all(len({seed.id for seed in group}) == 3 for group in drawn)


def test_the_same_seed_draws_the_same() -> None:
    rows = [row(f"text {i}") for i in range(20)]
    one, other = GenerationConfig(seed=1), GenerationConfig(seed=2)
    assert draw(rows, one) == draw(rows, one) != draw(rows, other)


def test_a_request_is_spread_over_topics() -> None:
    words = ("again", "today", "still")
    rows = [row(f"parcel is late {words[i % 3]}") for i in range(50)] + [row("camera lens broken")]
    drawn = draw(rows, GenerationConfig(num_calls=40, seeds_per_call=2))
    share = sum(any("camera" in s.id for s in group) for group in drawn) / len(drawn)
    assert share > 4 / 51, "no more often than by chance"


def test_copies_are_not_drawn_together() -> None:
    rows = [row("the same text")] * 5
    assert [len(group) for group in draw(rows, GenerationConfig(num_calls=2))] == [1, 1]


def test_longer_conversations_are_no_seeds_and_the_order_of_rows_does_not_matter() -> None:
    rows = [row(f"text {i}") for i in range(9)]
    longer = row("and more", Message("user", "more"), Message("assistant", "no"))
    found = seeds_of([*rows, longer], ["train"] * 10, 5)
    assert len(found) == 5
    assert longer not in found
    assert seeds_of(rows[::-1], ["train"] * 9, 5) == found
