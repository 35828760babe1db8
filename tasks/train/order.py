"""The order of rows in an epoch: drawn from seed and epoch alone, so that it can be found again.

Transformers draws the order of length groups from the generator of the whole process, whose state
at the begin of an epoch is lost when training goes on in its middle: rows would be repeated and
skipped. Its groups also go from long to short, which shows in every loss curve.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch.utils.data import Sampler

_GROUPED_STEPS = 50  # steps whose rows are sorted together, as in transformers


class EpochSampler(Sampler[int]):
    """The numbers of an epoch's rows; ``epoch`` tells which epoch begins.

    ``step_rows`` is how many rows a step takes, over all processes.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        step_rows: int,
        seed: int,
        epoch: Callable[[], int],
        *,
        grouped: bool,
    ) -> None:
        self._lengths = lengths
        self._step_rows = step_rows
        self._seed = seed
        self._epoch = epoch
        self._grouped = grouped

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        epoch = self._epoch()
        # Far apart for every pair, unlike their sum: seed 0's second epoch is not seed 1's first.
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + epoch)
        if not self._grouped:
            return iter(torch.randperm(len(self._lengths), generator=generator).tolist())
        return iter(grouped_order(self._lengths, self._step_rows, generator))


def grouped_order(lengths: Sequence[int], step_rows: int, generator: torch.Generator) -> list[int]:
    """Rows of similar length in a step, the steps in random order but for two.

    The step with the longest row is the first, so that memory runs out soon or never; the last may
    hold fewer rows.
    """
    shuffled = torch.randperm(len(lengths), generator=generator).tolist()
    whole = len(lengths) // step_rows * step_rows
    rest, shuffled = shuffled[whole:], shuffled[:whole]
    steps: list[list[int]] = []
    group = _GROUPED_STEPS * step_rows
    for start in range(0, whole, group):
        rows = sorted(shuffled[start : start + group], key=lambda i: lengths[i], reverse=True)
        steps += [rows[i : i + step_rows] for i in range(0, len(rows), step_rows)]
    order = torch.randperm(len(steps), generator=generator).tolist()
    order.sort(key=lambda i: max(lengths[row] for row in steps[i]) < max(lengths))
    return [row for number in order for row in steps[number]] + rest
