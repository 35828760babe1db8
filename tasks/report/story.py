"""What the report tells beyond the run's summary; any part that a run did not reach is None."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tasks.artifacts import Role

Verdict = Literal["better", "worse", "unchanged"]
VERDICTS: tuple[Verdict, ...] = ("better", "worse", "unchanged")


@dataclass(frozen=True, slots=True)
class DataStory:
    """Where the rows came from and what became of them.

    ``steps`` holds the rows left after each check, the first being the rows read. ``samples`` are
    rejected rows as {reason, where, detail, text}.
    """

    num_by_source: Mapping[str, int]
    num_quarantined: int
    steps: Sequence[tuple[str, int]]
    num_rejected: Mapping[str, int]
    num_redacted: Mapping[str, int]
    splits: Mapping[str, int]
    samples: Sequence[Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class TrainingStory:
    """How training went.

    Each line of ``history`` has ``step`` and, among others, ``loss`` or ``eval_loss``; ``figures``
    are shown under their names.
    """

    history: Sequence[Mapping[str, Any]]
    best_step: int | None
    figures: Mapping[str, float | int | str | None]


@dataclass(frozen=True, slots=True)
class AnswerRow:
    """One golden row, answered by the baseline and by the candidate."""

    id: str
    prompt: str
    expected: str
    baseline_role: Role
    baseline: str
    candidate: str
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Story:
    """Everything on the page that is not in the summary.

    ``num_by_verdict`` counts all golden rows, of which ``answers`` shows a few.
    """

    data: DataStory | None = None
    training: TrainingStory | None = None
    answers: Sequence[AnswerRow] = ()
    config_yaml: str = ""
    num_by_verdict: Mapping[Verdict, int] = field(default_factory=dict)
