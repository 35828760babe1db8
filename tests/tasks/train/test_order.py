"""The order of an epoch: every row once, steps of similar rows, the same for seed and epoch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tasks.train.order import EpochSampler, grouped_order


def order(lengths: list[int], epoch: int = 0, seed: int = 0, grouped: bool = True) -> list[int]:
    return list(EpochSampler(lengths, 4, seed, lambda: epoch, grouped=grouped))


@given(
    st.lists(st.integers(1, 500), min_size=1, max_size=300), st.integers(1, 9), st.integers(0, 9)
)
def test_every_row_once_and_the_longest_first(lengths: list[int], step: int, seed: int) -> None:
    found = grouped_order(lengths, step, torch.Generator().manual_seed(seed))
    assert sorted(found) == list(range(len(lengths)))
    whole = len(lengths) // step * step
    if max(lengths[i] for i in found[:whole] or found) == max(lengths):
        assert max(lengths[i] for i in found[:step]) == max(lengths)


def test_a_step_holds_rows_of_similar_length() -> None:
    lengths = [1 + i % 100 for i in range(400)]
    found = order(lengths)
    widths = [
        max(lengths[i] for i in found[at : at + 4]) - min(lengths[i] for i in found[at : at + 4])
        for at in range(0, 400, 4)
    ]
    assert sum(widths) / len(widths) < 3


def test_steps_do_not_go_from_long_to_short() -> None:
    lengths = [1 + i % 100 for i in range(400)]
    found = order(lengths)
    first, second = (sum(lengths[i] for i in half) for half in (found[4:200], found[200:]))
    assert first == pytest.approx(second, rel=0.15)


@pytest.mark.parametrize("grouped", [True, False])
def test_seed_and_epoch_alone_decide(grouped: bool) -> None:
    lengths = [1 + i % 7 for i in range(60)]
    torch.manual_seed(1)
    first = order(lengths, grouped=grouped)
    torch.manual_seed(2)
    assert order(lengths, grouped=grouped) == first
    assert order(lengths, epoch=1, grouped=grouped) != first
    assert order(lengths, seed=1, grouped=grouped) != first
