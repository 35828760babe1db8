"""Parts of the golden set: what an expression gives, how many rows, and who is better on them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from tasks.errors import ConfigError
from tasks.evidence import Score, SliceScore
from tasks.example import Example, Message
from tasks.report.config import ReportConfig
from tasks.report.html import render_page
from tasks.report.slices import row_fields, slice_scores
from tasks.report.story import Story
from tasks.scores import MetricScores
from tests.tasks.report.conftest import Summarise

N = 80


def row(number: int, words: int = 5) -> Example:
    turns = (Message("user", "word " * words), Message("assistant", "yes"))
    return Example(
        str(number),
        turns,
        "human" if number % 4 else "production",
        "g",
        label=f"label-{number % 20}",
        meta={"shop": "north" if number < 20 else "south"},
    )


ROWS = [row(i, words=5 if i < 60 else 50) for i in range(N)]


def right(*, until: int) -> MetricScores:
    values = (np.arange(N) < until).astype(float)[:, None]
    return MetricScores("accuracy", "proportion", True, values, tuple(str(i) for i in range(N)))


def sliced(**slices: str) -> tuple[list[SliceScore], dict[str, int]]:
    config = ReportConfig(slices=slices, max_parts=3)
    return slice_scores(ROWS, right(until=70), right(until=40), config)


def test_parts_by_a_field_of_meta() -> None:
    (south, north), more = sliced(shop="meta.shop")
    assert (south.name, south.value, south.n, south.is_small) == ("shop", "south", 60, False)
    assert (north.value, north.n, north.is_small) == ("north", 20, True)
    assert (north.candidate.value, north.baseline.value, north.difference) == (1, 1, 0)
    assert south.candidate.value == pytest.approx(50 / 60)
    assert south.difference == pytest.approx(30 / 60)
    assert 0 < south.ci_low < south.difference < south.ci_high
    assert more == {}


def test_the_largest_parts_are_shown_and_the_rest_counted() -> None:
    scores, more = sliced(label="label", length="length")
    assert [s.value for s in scores if s.name == "label"] == ["label-0", "label-1", "label-10"]
    assert [(s.value, s.n) for s in scores if s.name == "length"] == [
        ("up to 15 words", 60),
        ("41 to 120 words", 20),
    ]
    assert more == {"label": 17}


@pytest.mark.parametrize(
    ("expression", "parts"),
    [
        ("num_words > `20`", {"no": 60, "yes": 20}),
        ("contains(prompt, 'word')", {}),  # all rows alike: nothing to tell
        ("meta.missing", {}),
        ("messages[].role", {"user": 80, "assistant": 80}),
        ("join('/', [source, meta.shop])", {"human/south": 45, "production/south": 15}),
    ],
)
def test_any_expression_makes_parts(expression: str, parts: dict[str, int]) -> None:
    found = {s.value: s.n for s in sliced(own=expression)[0]}
    assert parts.items() <= found.items()
    assert bool(found) == bool(parts)


def test_a_wrong_expression_is_told_before_the_run() -> None:
    with pytest.raises(ValidationError, match="not a JMESPath expression"):
        ReportConfig(slices={"own": "meta.["})


def test_an_expression_that_fails_on_a_row_is_named() -> None:
    with pytest.raises(ConfigError, match=r"report\.slices\.own: 'abs\(label\)'"):
        sliced(own="abs(label)")


def test_what_an_expression_sees() -> None:
    fields = row_fields(
        Example(
            "1",
            (
                Message("user", "Where is the parcel that I ordered last week?"),
                Message("assistant", "Here."),
            ),
            "human",
            "customer-7",
        )
    )
    assert (fields["language"], fields["num_words"], fields["num_turns"]) == ("en", 9, 1)
    assert (fields["length"], fields["group"], fields["label"]) == (
        "up to 15 words",
        "customer-7",
        None,
    )
    assert row_fields(row(1, words=2))["language"] is None


def test_only_rows_that_were_measured_count() -> None:
    few = MetricScores("accuracy", "proportion", True, np.ones((2, 1)), ("0", "79"))
    scores, _ = slice_scores(ROWS, few, few, ReportConfig(slices={"shop": "meta.shop"}))
    assert [s.n for s in scores] == [1, 1]


def test_the_page_shows_them(summarise: Summarise) -> None:
    score = Score(value=0.5, ci_low=0.4, ci_high=0.6, n=40)
    values: dict[str, Any] = {"candidate": score, "baseline": score, "n": 40}
    slices = [
        SliceScore(
            name="shop",
            value="<b>north",
            is_small=False,
            difference=0.2,
            ci_low=0.1,
            ci_high=0.3,
            **values,
        ),
        SliceScore(
            name="shop",
            value="south",
            is_small=True,
            difference=-0.2,
            ci_low=-0.3,
            ci_high=-0.1,
            **values,
        ),
    ]
    story = Story(num_more_slices={"shop": 3})
    page = render_page(
        summarise("promoted", slices=slices), story, datetime(2026, 1, 1, tzinfo=UTC)
    )
    assert "&lt;b&gt;north" in page
    assert "and 3 smaller ones" in page
    assert 'aria-label="+0.200, interval +0.100 to +0.300"' in page
    assert page.index('class="plot passed"') < page.index('class="plot failed"')
