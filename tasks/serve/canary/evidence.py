"""Evidence that one stream of outcomes is higher than another, valid at every look.

The e-process of Turner, Ly and Grünwald, "Generic E-variables for exact sequential k-sample tests
that allow for optional stopping" (2024), for two streams: where the first is not higher, its
chance ever to reach 1/a is at most a (Ville 1939), however often it is looked at and whenever one
stops. Nothing is approximated, so that it holds for few observations and rare events as well.

Outcomes are between 0 and 1 and come in blocks, which are closed once both streams are in them.
With shares w of the block, a guess of the common mean m, and an assumed difference d, each outcome
y of a stream whose assumed mean is t counts by the factor

    (1 - y) (1 - t) / (1 - m) + y t / m        t = m + d w_other, for the first; m - d w_own, else

whose product over a block has an expectation of at most 1 where the first is not higher: factors
are linear in y, and their logarithm is concave. The guess is made of the blocks before. Several
differences are assumed at once, and their products averaged, so that a large one is seen soon and a
small one in the end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_DIFFERENCES = np.array([0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64])
# A mean of 0 or 1 would be sure that what was not seen never happens.
_LEAST = 1e-6


class Evidence:
    """For "the challenger's outcomes are higher than the champion's"; ``prior`` is a guess of both.

    ``prior`` is what the mean is thought to be while nothing was seen, worth one outcome. A wrong
    one costs time, not validity.
    """

    def __init__(self, prior: float = 0.5) -> None:
        self._sum, self._n = prior, 1.0
        self._logs = np.zeros(len(_DIFFERENCES))
        self._open: tuple[list[float], list[float]] = ([], [])

    def take(self, outcome: float, *, of_challenger: bool) -> bool:
        """Take an outcome in [0, 1]; whether it closed a block. Raises ValueError for another."""
        if not 0 <= outcome <= 1:
            raise ValueError(f"expected an outcome from 0 to 1, came {outcome}")
        challenger, champion = self._open
        (challenger if of_challenger else champion).append(outcome)
        if not (challenger and champion):
            return False
        self._close(challenger, champion)
        self._open = ([], [])
        return True

    @property
    def log10(self) -> float:
        """The decimal logarithm of the e-value; 0 where nothing was seen."""
        highest = self._logs.max()
        mean = np.exp(self._logs - highest).mean()
        return float((highest + np.log(mean)) / math.log(10))

    def _close(self, challenger: Sequence[float], champion: Sequence[float]) -> None:
        num_first, num_second = len(challenger), len(champion)
        share = num_first / (num_first + num_second)
        mean = min(max(self._sum / self._n, _LEAST), 1 - _LEAST)
        # No assumed mean may leave (0, 1).
        most = min((1 - mean) / (1 - share), mean / share) * (1 - _LEAST)
        assumed = np.minimum(_DIFFERENCES, most)
        self._logs += _grown(challenger, mean, mean + assumed * (1 - share))
        self._logs += _grown(champion, mean, mean - assumed * share)
        self._sum += math.fsum(challenger) + math.fsum(champion)
        self._n += num_first + num_second


def _grown(
    outcomes: Sequence[float], mean: float, assumed: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The sum of the logarithms of the factors, for each assumed mean."""
    y = np.asarray(outcomes)[:, None]
    factors = (1 - y) * (1 - assumed) / (1 - mean) + y * assumed / mean
    logs: NDArray[np.float64] = np.log(factors).sum(axis=0)
    return logs
