"""What a contestant said to one golden row."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said to one row. ``latency_ms`` only where it was asked for alone."""

    id: str
    prompt: str
    reference: str
    answer: str
    num_tokens: int
    truncated: bool
    latency_ms: float | None
