"""What a contestant said to one golden row."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said to one row.

    ``latency_ms`` only where it was asked for alone; ``again``, its second answer, only where it
    was asked twice.
    """

    id: str
    prompt: str
    reference: str
    answer: str
    num_tokens: int
    truncated: bool
    latency_ms: float | None
    again: str | None = None


def evenly(num_rows: int, count: int) -> list[int]:
    """The indices of ``count`` rows, spread over all; of all rows where there are not as many."""
    count = min(count, num_rows)
    return [number * num_rows // count for number in range(count)]
