"""What became of the rows -> what the page shows of it: bars, histograms, a row token by token."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from tasks.report import plots
from tasks.report.story import CheckStory, DataStory

_MAX_TOKENS = 240  # of a stretch that is trained or is not; the middle of a longer one is left out
_MAX_STRETCHES = 40
_VISIBLE = str.maketrans({" ": "·", "\n": "↵\n", "\t": "→\t", "\r": "␍"})


@dataclass(frozen=True, slots=True)
class Check:
    """One check with its bars and figure."""

    story: CheckStory
    rejected: list[plots.Bar]
    bars: list[plots.Bar]
    histogram: plots.Histogram | None

    @property
    def share(self) -> float:
        return 1 - self.story.num_out / self.story.num_in if self.story.num_in else 0.0


@dataclass(frozen=True, slots=True)
class Piece:
    """A token as it is shown; ``num_left_out`` tokens stand for themselves where it is not 0."""

    text: str
    trained: bool
    num_left_out: int = 0


@dataclass(frozen=True, slots=True)
class DataView:
    """Everything that the page shows of the rows."""

    panels: list[tuple[str, list[plots.Bar]]]
    waterfall: list[plots.Bar]
    checks: list[Check]
    shares: list[plots.ShareBar]
    review: Sequence[Mapping[str, Any]]
    num_review: int
    drift: Sequence[Mapping[str, Any]]
    notes: Sequence[str]
    example: list[Piece]


def view(data: DataStory, num_golden: int | None) -> DataView:
    """The story of the rows, with the golden ones beside the splits."""
    splits = dict(data.splits) | ({"golden": num_golden} if num_golden is not None else {})
    panels = [
        ("Rows by source", data.checks[0].bars if data.checks else {}),
        ("Splits", splits),
        ("Quarantined: could not be read", data.num_quarantined),
        ("Left aside: not meant as examples", data.num_left_aside),
        ("In the review queue", data.num_review),
    ]
    return DataView(
        panels=[(title, plots.bars(counts)) for title, counts in panels if counts],
        waterfall=plots.waterfall(data),
        checks=[_check(check) for check in data.checks[1:]],
        shares=plots.share_bars(data.shares),
        review=data.review,
        num_review=sum(data.num_review.values()),
        drift=data.drift,
        notes=data.notes,
        example=list(pieces(data.example)),
    )


def pieces(tokens: Sequence[tuple[str, bool]]) -> Iterator[Piece]:
    """Tokens with their white space made visible; of long stretches only both ends.

    A prompt of thousands of tokens would push the answer, which is what is trained, off the page.
    """
    stretches = [list(group) for _, group in groupby(tokens, key=lambda token: token[1])]
    for stretch in stretches[:_MAX_STRETCHES]:
        left_out = max(0, len(stretch) - _MAX_TOKENS)
        head = _MAX_TOKENS // 2 if left_out else len(stretch)
        yield from (_piece(*token) for token in stretch[:head])
        if left_out:
            yield Piece("", stretch[0][1], left_out)
            yield from (_piece(*token) for token in stretch[head + left_out :])
    rest = stretches[_MAX_STRETCHES:]
    if rest:
        yield Piece("", False, sum(map(len, rest)))


def _piece(text: str, trained: bool) -> Piece:
    return Piece(text.translate(_VISIBLE), bool(trained))


def _check(check: CheckStory) -> Check:
    return Check(
        story=check,
        rejected=plots.bars(check.num_rejected),
        bars=plots.bars({name: count for name, count in check.bars.items() if count}),
        histogram=plots.histogram(check.histogram),
    )
