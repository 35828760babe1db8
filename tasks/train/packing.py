"""The rows of a micro-batch in one sequence: no padding, and what they begin with computed once.

Every row begins with the same system turn and header, often half of it. The packed sequence is that
common beginning once, then the rest of each row; positions go on from the beginning's end in each,
and attention (``tasks.train.attention``) lets a row see the beginning and itself alone. The loss
and its gradient are those of the rows apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tasks.train.batches import IGNORED, Row


@dataclass(frozen=True, slots=True)
class Layout:
    """Where rows stand in a packed sequence of ``num_shared`` common tokens and then their rests.

    ``gather`` (rows, longest rest) holds each rest's positions in the sequence, filled up with its
    last; ``scatter`` (tokens of all rests) finds them again in the flattened ``gather``. ``real``,
    of the shape of ``gather``, is False where it is filled up.
    """

    num_shared: int
    gather: torch.Tensor
    scatter: torch.Tensor
    real: torch.Tensor

    def to(self, device: Any, **options: Any) -> Layout:
        """On another device; called by accelerate and by the Trainer alike."""
        moved = (tensor.to(device, **options) for tensor in (self.gather, self.scatter, self.real))
        return Layout(self.num_shared, *moved)


def pack(rows: Sequence[Row], multiple: int = 1) -> dict[str, Any]:
    """``input_ids``, ``position_ids`` and ``labels``, each (1, tokens), and their ``layout``.

    ``tokens`` is made a whole ``multiple`` by repeating the last token of the shortest rows, where
    no token that counts sees it.
    """
    shared = num_shared(rows)
    rests = [len(row["input_ids"]) - shared for row in rows]
    filled = list(rests)
    for _ in range(-(shared + sum(rests)) % multiple):
        filled[filled.index(min(filled))] += 1
    ids, labels = list(rows[0]["input_ids"][:shared]), [IGNORED] * shared
    positions = list(range(shared))
    for row, rest, length in zip(rows, rests, filled, strict=True):
        ids += row["input_ids"][shared:] + row["input_ids"][-1:] * (length - rest)
        labels += row["labels"][shared:] + [IGNORED] * (length - rest)
        positions += [shared + min(place, rest - 1) for place in range(length)]
    return {
        "input_ids": torch.tensor([ids]),
        "position_ids": torch.tensor([positions]),
        "labels": torch.tensor([labels]),
        "layout": _layout(shared, filled),
    }


def num_shared(rows: Sequence[Row]) -> int:
    """How many tokens all rows begin with, but for the last one before a row's first trained token.

    That one stays with its row, since what is predicted from it is the row's own.
    """
    first, last = (
        pick(list(row["input_ids"]) for row in rows) for pick in (min, max)
    )  # what the least and the greatest list begin with, all between them do
    limit = min(_first_trained(row["labels"]) for row in rows) - 1
    common = 0
    for a, b in zip(first, last, strict=False):
        if common >= limit or a != b:
            break
        common += 1
    return max(0, common)


def _first_trained(labels: Sequence[int]) -> int:
    return next((i for i, label in enumerate(labels) if label != IGNORED), len(labels))


def _layout(shared: int, rests: Sequence[int]) -> Layout:
    longest = max(rests)
    lengths = torch.tensor(list(rests))[:, None]
    starts = shared + torch.cumsum(lengths, 0) - lengths
    place = torch.arange(longest)[None, :]
    gather = starts + torch.minimum(place, lengths - 1)
    real = place < lengths
    return Layout(shared, gather, torch.nonzero(real.flatten()).flatten(), real)
