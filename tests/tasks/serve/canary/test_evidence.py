"""The e-process: that it cannot be fooled by looking, and how soon it sees what is there."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from tasks.serve.canary.evidence import Evidence

BAR = math.log10(20)


def after(*blocks: tuple[list[float], list[float]], prior: float = 0.5) -> float:
    evidence = Evidence(prior)
    for champion, challenger in blocks:
        closed = [evidence.take(y, of_challenger=False) for y in champion]
        closed += [evidence.take(y, of_challenger=True) for y in challenger]
        assert closed == [False] * (len(champion) + len(challenger) - 1) + [True]
    return 10**evidence.log10


@pytest.mark.parametrize("sizes", [(1, 1), (4, 1), (8, 1)])
@pytest.mark.parametrize("mean", [0.001, 0.2, 0.5, 0.93])
@pytest.mark.parametrize("prior", [0.02, 0.5, 0.9])
def test_no_block_is_expected_to_grow_where_there_is_no_difference(
    sizes: tuple[int, int], mean: float, prior: float
) -> None:
    """By enumeration of all that a block can hold, so that nothing is left to chance."""
    num_champion, num_challenger = sizes
    expected = worse = 0.0
    for ys in itertools.product((0.0, 1.0), repeat=num_champion + num_challenger):
        value = after((list(ys[:num_champion]), list(ys[num_champion:])), prior=prior)
        expected += math.prod(mean if y else 1 - mean for y in ys) * value
        lower = [*[min(1.0, mean + 0.05)] * num_champion, *[mean] * num_challenger]
        worse += math.prod(m if y else 1 - m for y, m in zip(ys, lower, strict=True)) * value
    assert expected <= 1 + 1e-12
    assert worse <= expected + 1e-12


def first_at_bar(
    rng: np.random.Generator, means: tuple[float, float], n: int, share: float, beta: float = 0
) -> int | None:
    """The outcome at which the evidence is enough, looked at after each."""
    evidence = Evidence()
    of_challenger = rng.random(n) < share
    mean = np.where(of_challenger, means[1], means[0])
    # Over the day both go up and down together.
    mean = mean + beta * np.sin(np.arange(n) / 150)
    outcomes = rng.random(n) < mean
    for number in range(n):
        closed = evidence.take(float(outcomes[number]), of_challenger=bool(of_challenger[number]))
        if closed and evidence.log10 >= BAR:
            return number
    return None


@pytest.mark.parametrize("beta", [0.0, 0.15])
def test_looked_at_after_every_outcome_it_is_wrong_as_seldom_as_it_says(beta: float) -> None:
    rng = np.random.default_rng(20261128)
    found = [first_at_bar(rng, (0.7, 0.7), 1200, 0.2, beta) for _ in range(300)]
    wrong = sum(number is not None for number in found)
    # 300 at 5 % are 15; 25 or more have a chance of 1 in 100.
    assert wrong < 25


def test_a_difference_is_seen_and_the_larger_the_sooner() -> None:
    rng = np.random.default_rng(3)
    medians = []
    for better in (0.8, 0.95):
        found = [first_at_bar(rng, (0.6, better), 6000, 0.1) for _ in range(25)]
        assert None not in found
        medians.append(np.median(found))
    assert medians[1] < medians[0] / 1.8


def test_scores_between_count_as_what_they_are() -> None:
    evidence = Evidence()
    for _ in range(150):
        evidence.take(0.55, of_challenger=False)
        evidence.take(0.85, of_challenger=True)
    assert evidence.log10 > BAR
    turned = Evidence()
    for _ in range(150):
        turned.take(0.85, of_challenger=False)
        turned.take(0.55, of_challenger=True)
    assert turned.log10 < 0


def test_certain_outcomes_and_very_much_evidence_have_a_value() -> None:
    evidence = Evidence()
    for _ in range(20_000):
        evidence.take(0.0, of_challenger=False)
        evidence.take(1.0, of_challenger=True)
    assert 308 < evidence.log10 < math.inf


@pytest.mark.parametrize("outcome", [-0.1, 1.1, math.nan])
def test_what_is_no_outcome_is_refused(outcome: float) -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        Evidence().take(outcome, of_challenger=True)
