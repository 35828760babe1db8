"""The page of a trial: what it says, that it escapes, and where its curves lie."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tasks.report import canary
from tasks.report.notice import notice_of_trial
from tasks.trial import Measured, PathPoint, Trial, Verdict

BEGUN = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)


def verdict(**more: Any) -> Verdict:
    trial = Trial(model="tickets", champion="6", challenger="7", begun_at=BEGUN, settings={})
    path = [
        PathPoint(at=BEGUN + timedelta(hours=h), better=h / 10, worse=-h, guard=h / 50)
        for h in range(15)
    ]
    guards = [
        Measured(
            name=name,
            champion=0.01,
            challenger=0.011,
            num_champion=9000,
            num_challenger=1000,
            evidence=-0.02,
        )
        for name in ("error", "slow", "empty", "refused", "invalid_json", "too_long")
    ]
    fields: dict[str, Any] = {
        "trial": trial,
        "outcome": "promote",
        "reasons": ["Shown to be better. accepted: <b>91.0%</b> against 84.2%."],
        "looked_at": path[-1].at,
        "success": Measured(
            name="accepted",
            champion=0.842,
            challenger=0.91,
            num_champion=1800,
            num_challenger=203,
            evidence=1.4,
        ),
        "worse": -14.0,
        "bar": 1.301,
        "guards": guards,
        "guard_bar": 2.079,
        "num_requests": 10_234,
        "path": path,
    }
    return Verdict(**{**fields, **more})


def test_the_page_says_what_was_done_and_why() -> None:
    page = canary.render(verdict(), BEGUN + timedelta(days=1))
    assert '<p class="badge">promoted</p>' in page
    assert "tickets: version 7 against 6" in page
    assert "&lt;b&gt;91.0%&lt;/b&gt;" in page
    assert "<b>91.0%</b> against" not in page
    text = " ".join(re.sub(r"<[^>]+>", " ", page).split())
    assert "better shown 91.0% of 203 84.2% of 1,800 +6.8 points 25" in text
    assert "worse 91.0% of 203 84.2% of 1,800 +6.8 points 0.00" in text
    assert "invalid json 1.1% of 1,000 1.0% of 9,000 +0.1 points 0.95" in text
    assert "at 20 it decides" in text
    assert "reaches 120" in text
    assert "http" not in page.replace("http-equiv", "")


def test_curves_lie_by_hour_and_evidence_and_never_below_the_floor() -> None:
    chart = canary.chart(verdict())
    assert chart is not None
    better, worse, guard, bar, guard_bar = chart.curves
    hours = [100 * hour / 14 for hour in range(15)]
    assert [x for x, _ in better.lines[0]] == pytest.approx(hours, abs=0.01)
    # Down is large: the bar lies above the middle, the worst evidence on the floor.
    assert better.lines[0][-1][1] < bar.lines[0][0][1] < guard.lines[0][-1][1]
    assert guard_bar.lines[0][0][1] < bar.lines[0][0][1]
    assert max(y for _, y in worse.lines[0]) == 100
    assert all(0 <= y <= 100 for c in chart.curves for _, y in c.lines[0])
    assert canary.chart(verdict(path=[])) is None


def test_a_trial_of_which_nothing_is_known_has_a_page() -> None:
    nothing = Measured(
        name="score", champion=None, challenger=None, num_champion=0, num_challenger=0, evidence=0
    )
    page = canary.render(
        verdict(
            outcome="inconclusive",
            success=nothing,
            worse=0,
            path=[],
            num_unmatched=3,
            num_out_of_range=1200,
        ),
        BEGUN,
    )
    assert "Nothing was judged yet." in page
    assert "3 pieces of feedback" in page
    assert "1,200 scores" in page


def test_the_note_and_the_message() -> None:
    note = canary.markdown(verdict())
    assert note.startswith("**tickets: version 7 is promoted. Shown to be better.")
    assert "| 91.0% of 203 | 84.2% of 1,800 | 25 |" in note
    occasions = {
        outcome: notice_of_trial(verdict(outcome=outcome), "link").occasion
        for outcome in ("promote", "roll_back", "inconclusive")
    }
    assert occasions == {
        "promote": "promoted",
        "roll_back": "rolled_back",
        "inconclusive": "inconclusive",
    }
    assert notice_of_trial(verdict(), "link").subject == "tickets, on live traffic: promoted"
