"""What the report tells beyond the run's summary; any part that a run did not reach is None."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tasks.artifacts import Role

Verdict = Literal["better", "worse", "unchanged"]
VERDICTS: tuple[Verdict, ...] = ("better", "worse", "unchanged")


@dataclass(frozen=True, slots=True)
class CheckStory:
    """What one check did to the rows.

    ``bars`` are counts under their names; ``histogram`` has title, edges, counts and limit;
    ``samples`` are rejected rows as {reason, where, detail, text}.
    """

    name: str
    num_in: int
    num_out: int
    num_rejected: Mapping[str, int] = field(default_factory=dict)
    bars: Mapping[str, int] = field(default_factory=dict)
    histogram: Mapping[str, Any] | None = None
    notes: Sequence[str] = ()
    samples: Sequence[Mapping[str, str]] = ()


@dataclass(frozen=True, slots=True)
class DataStory:
    """Where the rows came from and what became of them.

    ``checks`` begins with the rows read. ``shares`` are {name, low, high, achieved} of the training
    split; ``review`` are rows in doubt as {kind, place, reason, prompt, answer, other}; ``drift``
    are {name, value, verdict, detail} against the snapshot before; ``notes`` are sentences;
    ``example`` is one training row as (token, whether it is trained).
    """

    checks: Sequence[CheckStory]
    num_quarantined: Mapping[str, int] = field(default_factory=dict)
    num_left_aside: Mapping[str, int] = field(default_factory=dict)
    splits: Mapping[str, int] = field(default_factory=dict)
    shares: Sequence[Mapping[str, Any]] = ()
    num_review: Mapping[str, int] = field(default_factory=dict)
    review: Sequence[Mapping[str, Any]] = ()
    drift: Sequence[Mapping[str, Any]] = ()
    notes: Sequence[str] = ()
    example: Sequence[tuple[str, bool]] = ()


@dataclass(frozen=True, slots=True)
class TrainingStory:
    """How training went.

    Each line of ``history`` has ``step`` and, among others, ``loss`` or ``eval_loss``; ``figures``
    are shown under their names. ``log`` is the rest of the adapter's ``log.json``, any key of which
    may be missing: an older version, or another engine, wrote it. ``actual`` has the keys of
    ``log["plan"]`` with what was used.
    """

    history: Sequence[Mapping[str, Any]]
    best_step: int | None
    figures: Mapping[str, float | int | str | None]
    log: Mapping[str, Any] = field(default_factory=dict)
    actual: Mapping[str, float | int | None] = field(default_factory=dict)


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
class Confusion:
    """``labels`` are the right classes, by name; ``columns`` those and, where it was answered,
    "none of them"; ``counts`` has a row for each label, or is empty where there are too many.
    ``pairs`` are (right, answered, count), the most frequent first.
    """

    labels: Sequence[str]
    columns: Sequence[str]
    counts: Sequence[Sequence[int]]
    pairs: Sequence[tuple[str, str, int]]


@dataclass(frozen=True, slots=True)
class Story:
    """Everything on the page that is not in the summary.

    ``num_by_verdict`` counts all golden rows, of which ``answers`` shows a few;
    ``num_more_slices`` the parts of each expression that are not shown. ``confusion`` is that of
    the candidate's classes, where the task is to name one.
    """

    data: DataStory | None = None
    training: TrainingStory | None = None
    answers: Sequence[AnswerRow] = ()
    config_yaml: str = ""
    num_by_verdict: Mapping[Verdict, int] = field(default_factory=dict)
    num_more_slices: Mapping[str, int] = field(default_factory=dict)
    confusion: Confusion | None = None
