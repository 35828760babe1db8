"""What traffic shows of a challenger: better, worse, harmful, or nothing yet."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from tasks.serve.canary.comparison import Comparison
from tasks.serve.canary.observed import Seen
from tasks.serve.exchange import Exchange, Figures, counted, figures_of
from tasks.serve.traffic import Feedback
from tasks.trial import Verdict
from tests.tasks.serve.canary.makers import BEGUN, answer, exchange, trial

LATER = BEGUN + timedelta(hours=1)


def figures(exchanges: list[Exchange]) -> list[Figures]:
    return figures_of([counted(one) for one in exchanges])


def judgement(of: Exchange, **what: Any) -> Feedback:
    return Feedback(
        request_id=of.request_id, asked_at=of.created_at, created_at=of.created_at, **what
    )


def requests(n: int, share: float = 0.2, seed: int = 0, first: int = 0) -> Iterator[Exchange]:
    draw = random.Random(seed)
    for number in range(first, first + n):
        yield exchange(number, "challenger" if draw.random() < share else "champion")


def shown(
    exchanges: list[Exchange], feedback: list[Feedback] | None = None, **settings: Any
) -> Verdict:
    comparison = Comparison(trial(**settings))
    comparison.take(Seen(figures(exchanges), feedback or []), LATER)
    return comparison.verdict(LATER)


def accepted(exchanges: list[Exchange], challenger: float, champion: float) -> list[Feedback]:
    draw = random.Random(7)
    shares = {"challenger": challenger, "champion": champion}
    return [judgement(e, accepted=draw.random() < shares[e.side]) for e in exchanges]


def test_better_is_promoted_once_there_are_enough_answers() -> None:
    asked = list(requests(800))
    feedback = accepted(asked, 0.9, 0.6)
    verdict = shown(asked, feedback)
    assert verdict.outcome == "promote"
    assert "Shown to be better. accepted: the challenger's" in verdict.reasons[0]
    assert verdict.success.evidence >= verdict.bar > verdict.worse
    assert verdict.sentence.startswith("tickets: version 2 is promoted. ")
    assert verdict.num_requests == 800
    count = sum(e.side == "challenger" for e in asked)
    assert verdict.success.num_challenger == count
    waits = shown(asked, feedback, min_answers=count + 5)
    assert waits.outcome == "watch"
    assert "5 answers before it may be" in waits.reasons[0]


def test_worse_is_rolled_back_and_little_difference_is_watched() -> None:
    asked = list(requests(800))
    assert shown(asked, accepted(asked, 0.5, 0.85)).outcome == "roll_back"
    same = shown(asked, accepted(asked, 0.7, 0.7))
    assert same.outcome == "watch"
    assert same.reasons[0].startswith("accepted: the challenger's ")


def test_at_the_horizon_the_champion_stays() -> None:
    asked = list(requests(50))
    comparison = Comparison(trial(horizon_hours=2))
    comparison.take(Seen(figures(asked), accepted(asked, 0.7, 0.7)), LATER)
    assert comparison.verdict(BEGUN + timedelta(hours=1.9)).outcome == "watch"
    verdict = comparison.verdict(BEGUN + timedelta(hours=2))
    assert verdict.outcome == "inconclusive"
    assert "Neither better nor worse was shown within 2 hours" in verdict.reasons[0]
    assert "version 1 stays" in verdict.sentence


def test_a_user_counts_once() -> None:
    """One who asks a thousand times and always accepts is one who accepts."""
    asked = list(requests(60))
    eager = [exchange(1000 + n, "challenger", unit="eager") for n in range(1000)]
    feedback = [
        *accepted(asked, 0.5, 0.5),
        *(judgement(e, accepted=True) for e in eager),
    ]
    verdict = shown(asked + eager, feedback)
    assert verdict.outcome == "watch"
    assert verdict.success.num_challenger == sum(e.side == "challenger" for e in asked) + 1


@pytest.mark.parametrize(
    ("name", "harm"),
    [
        ("error", {"failure": "upstream_error", "status": 502}),
        ("error", {"fell_back": True, "model_version": "1"}),
        ("slow", {"seconds": 1.0}),
        ("empty", {"response": answer("  ")}),
        ("refused", {"response": answer("I can't help with that.")}),
        ("too_long", {"response": answer("all is well " * 9)}),
        (
            "invalid_json",
            {"request": '{"response_format": {"type": "json_object"}}', "response": answer("{")},
        ),
    ],
)
def test_each_guard_acts_on_its_harm(name: str, harm: dict[str, Any]) -> None:
    draw = random.Random(1)
    json_too = {"request": harm["request"], "response": answer("{}")} if "request" in harm else {}
    warm = [exchange(n, **json_too) for n in range(200)]
    harmed = [
        exchange(
            int(e.request_id[4:]),
            e.side,
            **(harm if e.side == "challenger" and draw.random() < 0.6 else json_too),
        )
        for e in requests(400, first=200)
    ]
    verdict = shown(warm + harmed)
    assert verdict.outcome == "roll_back"
    guards = {g.name: g for g in verdict.guards}
    assert [g for g in guards if guards[g].evidence >= verdict.guard_bar] == [name]
    assert guards[name].challenger > 0.4
    assert "against the champion's 0.0% of" in verdict.reasons[0]


def test_a_harmful_one_is_known_after_a_few_answers() -> None:
    comparison = Comparison(trial())
    answers = 0
    for one in requests(100, share=0.1):
        failing = one.side == "challenger"
        changed = one.model_copy(update={"status": 503, "failure": "unreachable"})
        comparison.take(Seen(figures([changed if failing else one]), []), LATER)
        answers += failing
        if comparison.verdict(LATER).outcome == "roll_back":
            break
    assert 2 <= answers <= 6


def test_what_is_no_harm_of_the_challenger_trips_nothing() -> None:
    """Errors of both alike, clients that left, refused requests, and what is little worse."""
    draw = random.Random(2)
    both = [
        e.model_copy(update={"status": 503, "failure": "unreachable"}) if draw.random() < 0.3 else e
        for e in requests(1500)
    ]
    assert shown(both).outcome == "watch"
    left = [
        e.model_copy(update={"status": 499, "failure": "client_left"})
        if e.side == "challenger"
        else e
        for e in requests(500)
    ]
    assert shown(left).outcome == "watch"
    wrong = [
        e.model_copy(update={"status": 400}) if e.side == "challenger" else e for e in requests(500)
    ]
    assert shown(wrong).outcome == "watch"
    # One in a hundred of very many: shown beyond doubt, and below what matters.
    number = 0
    little = []
    for e in requests(8000, share=0.5):
        number += e.side == "challenger"
        worse = e.side == "challenger" and number % 100 == 0
        little.append(
            e.model_copy(update={"status": 502, "failure": "upstream_error"}) if worse else e
        )
    verdict = shown(little)
    assert verdict.guards[0].evidence > verdict.guard_bar
    assert verdict.outcome == "watch"


def test_versions_that_are_no_part_of_the_trial_count_for_nothing() -> None:
    others = [
        exchange(1, "challenger", model_version="7"),
        exchange(2, "champion", model_version="7"),
        exchange(3, "shadow"),
    ]
    assert shown(others).num_requests == 0


def test_a_shadow_is_guarded_and_never_promoted() -> None:
    asked = [
        exchange(n, "shadow" if n % 2 else "champion", response=answer("" if n % 2 else "well"))
        for n in range(100)
    ]
    assert shown(asked, mode="shadow").outcome == "roll_back"


def test_scores_are_scaled_and_what_is_out_of_range_is_counted() -> None:
    asked = list(requests(400))
    feedback = [judgement(e, score=5.0 if e.side == "challenger" else 2.0) for e in asked]
    feedback[0] = judgement(asked[0], score=6.0)
    verdict = shown(asked, feedback, success="score", score_range=(1.0, 5.0))
    assert verdict.outcome == "promote"
    assert (verdict.success.challenger, verdict.success.champion) == (1.0, 0.25)
    assert verdict.num_out_of_range == 1
    assert verdict.success.num_challenger + verdict.success.num_champion == 399


def test_json_is_judged_without_feedback() -> None:
    wanted = '{"response_format": {"type": "json_schema"}}'
    asked = [
        e.model_copy(
            update={"request": wanted, "response": answer("{}" if e.side == "challenger" else "{")}
        )
        for e in requests(300)
    ]
    assert shown(asked, success="json_valid").outcome == "promote"


def test_feedback_before_its_request_waits_and_what_has_none_is_counted() -> None:
    asked = [exchange(1), exchange(2, "challenger")]
    comparison = Comparison(trial())
    early = [judgement(e, accepted=True) for e in (*asked, exchange(9))]
    soon = BEGUN + timedelta(seconds=5)
    comparison.take(Seen([], early), soon)
    assert comparison.verdict(soon).num_unmatched == 0
    comparison.take(Seen(figures(asked), []), soon)
    verdict = comparison.verdict(soon)
    assert (verdict.success.num_champion, verdict.success.num_challenger) == (1, 1)
    comparison.take(Seen([], []), LATER)
    assert comparison.verdict(LATER).num_unmatched == 1


def test_the_way_of_the_evidence_is_kept_whole_and_short() -> None:
    asked = list(requests(4000, share=0.4))
    path = shown(asked, accepted(asked, 0.62, 0.6)).path
    assert 150 <= len(path) <= 301
    times: list[datetime] = [point.at for point in path]
    assert times == sorted(times)
    assert times[0] < asked[40].created_at
    assert path[-1].at == LATER
