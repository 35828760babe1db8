"""What the config's rules ask for: the judge, forgetting, limits, and who is compared with whom."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike
from pydantic import ValidationError

from tasks.errors import ConfigError
from tasks.gate.config import GateConfig
from tasks.gate.decide import decide
from tasks.gate.rules import ContestantScores
from tasks.scores import MetricScores
from tests.tasks.gate.contestants import (
    BETTER,
    JUDGED,
    N,
    against,
    contestant,
    held,
    metric,
    right,
    settings,
)


def judged(
    scores: MetricScores, grades: ArrayLike, *, skip: int, digest: str | None
) -> ContestantScores:
    """A contestant whose judge did not grade the first ``skip`` rows."""
    ids = tuple(f"row-{i}" for i in range(skip, N))
    judgements = metric("judge", np.asarray(grades)[skip:], ids=ids)
    return contestant(scores, judgements, digest=digest)


GRADES = np.tile([2.0, 3.0, 4.0, 5.0], N // 4)


@pytest.mark.parametrize(
    ("grades", "expected"),
    [(GRADES, "promoted"), (GRADES - 0.5, "blocked"), (GRADES[::-1], "inconclusive")],
)
@pytest.mark.parametrize("required", [True, False])
def test_the_judge_guards_over_the_rows_both_judged(
    grades: ArrayLike, expected: str, required: bool
) -> None:
    verdict = decide(
        against(
            judged(right(150), grades, skip=2, digest="c"),
            judged(right(20), GRADES, skip=4, digest=None),
        ),
        settings(JUDGED | {"optional": not required}),
    )

    assert verdict.outcome == expected
    assert verdict.differences[1].metric == "judge"
    assert verdict.differences[1].n == N - 4


def test_without_a_rule_the_judge_says_nothing() -> None:
    verdict = decide(
        against(
            judged(right(150), GRADES - 1, skip=0, digest="c"),
            judged(right(20), GRADES, skip=0, digest=None),
        ),
        settings(),
    )

    assert (verdict.outcome, len(verdict.reasons)) == ("promoted", 1)


@pytest.mark.parametrize(("required", "expected"), [(True, "inconclusive"), (False, "promoted")])
def test_a_judge_that_did_not_run(required: bool, expected: str) -> None:
    verdict = decide(
        against(
            judged(right(150), GRADES, skip=0, digest="c"),
            contestant(right(20), digest=None, judge="failed: 9 of 200 judgements failed"),
        ),
        settings(JUDGED | {"optional": not required}),
    )

    assert verdict.outcome == expected
    assert verdict.reasons[1].startswith("judge: not measured (base: failed: 9 of 200")
    if required:
        assert verdict.settling == ["judge: let it be measured, or set optional: true in its rule."]
        assert verdict.sentence.startswith("The candidate is held back: judge: not measured")
    else:
        assert verdict.settling == []
        assert verdict.reasons[1].endswith("decided without it.")


FORGETTING = {
    "metric": "general_loss",
    "against": "base",
    "kind": "non_inferiority",
    "margin": 0.1,
}


@pytest.mark.parametrize(
    ("forgotten", "expected"), [(0.0, "promoted"), (0.3, "blocked"), (0.095, "inconclusive")]
)
def test_what_was_forgotten_is_held_against_the_base_model(forgotten: float, expected: str) -> None:
    """General rows have ids of their own, and fewer than the golden rows."""
    noise = np.random.default_rng(0).normal(0, 0.05, 40)
    ids = tuple(f"general-{i}" for i in range(40))
    before = metric("general_loss", np.full(40, 2.0), higher_is_better=False, ids=ids)
    after = metric("general_loss", 2.0 + forgotten + noise, higher_is_better=False, ids=ids)
    champion = replace(contestant(right(20), before, digest="d"), role="champion")
    verdict = decide(
        {
            "base": contestant(right(10), before, digest=None),
            "champion": champion,
            "candidate": contestant(right(150), after),
        },
        settings(FORGETTING),
    )

    assert verdict.outcome == expected
    forgetting = verdict.differences[1]
    assert (forgetting.metric, forgetting.baseline, forgetting.n) == ("general_loss", "base", 40)
    if expected == "blocked":
        assert verdict.sentence.startswith(
            "The candidate is worse than the base model on general_loss (-0.2"
        )


@pytest.mark.parametrize(
    ("seconds", "limit", "expected", "told"),
    [
        (0.2, 300.0, "promoted", "latency_p50_ms keeps its limit: candidate 200"),
        (0.4, 300.0, "blocked", "latency_p50_ms breaks its limit: candidate 400"),
        (0.298, 300.0, "inconclusive", "latency_p50_ms is not shown to keep its limit"),
    ],
)
def test_a_limit_is_kept_or_broken(seconds: float, limit: float, expected: str, told: str) -> None:
    """A few answers alone are timed, so the rule has a least number of its own."""
    ids = tuple(f"row-{i}" for i in range(12))
    taken = 1000 * seconds + np.linspace(-20, 20, 12)
    latency = metric("latency_p50_ms", taken, reducer="median", higher_is_better=False, ids=ids)
    rule = {
        "metric": "latency_p50_ms",
        "limit": limit,
        "kind": "non_inferiority",
        "min_n": 8,
    }
    verdict = decide(
        against(contestant(right(150), latency), contestant(right(20), digest=None)),
        settings(rule),
    )

    assert verdict.outcome == expected
    assert verdict.reasons[1].startswith(told)
    assert (verdict.differences[1].baseline, verdict.differences[1].baseline_value) == (
        "limit",
        limit,
    )


def test_a_share_has_a_limit_as_well() -> None:
    cut = metric("truncated", np.arange(N) < 2, reducer="proportion", higher_is_better=False)
    rule = {"metric": "truncated", "limit": 0.1, "kind": "non_inferiority"}
    verdict = decide(
        against(contestant(right(150), cut), contestant(right(20), digest=None)), settings(rule)
    )
    assert verdict.outcome == "promoted"
    assert verdict.differences[1].candidate_value == pytest.approx(0.01)


def test_a_limit_is_to_be_kept_not_beaten() -> None:
    with pytest.raises(ValidationError, match="which is to be kept: set kind to non_inferiority"):
        settings({"metric": "latency_p50_ms", "limit": 300, "kind": "superiority"})


def test_whole_corpus_metrics_have_no_limit() -> None:
    f1 = MetricScores("field_f1", "f1", True, np.ones((N, 3)))
    rule = {"metric": "field_f1", "limit": 0.5, "kind": "non_inferiority"}
    with pytest.raises(ConfigError, match="cannot be held against a limit"):
        decide(
            against(contestant(right(150), f1), contestant(right(20), digest=None)),
            settings(rule),
        )


def three(candidate: int, champion: int, few_shot: int) -> dict[Any, ContestantScores]:
    """Contestants by their right answers, each right on other rows as far as that goes."""
    return {
        "base": contestant(right(10), digest=None),
        "base_few_shot": replace(
            contestant(right(few_shot, first=N - few_shot), digest=None), role="base_few_shot"
        ),
        "champion": replace(contestant(right(champion), digest="d"), role="champion"),
        "candidate": contestant(right(candidate)),
    }


@pytest.mark.parametrize(
    ("candidate", "champion", "few_shot", "expected", "sentence"),
    [
        (
            150,
            60,
            50,
            "promoted",
            "The candidate is shown to be better than the champion and the base model with "
            "examples in its prompt on exact_match.",
        ),
        (
            150,
            60,
            190,
            "blocked",
            "The candidate is worse than the base model with examples in its prompt on "
            "exact_match (-0.200).",
        ),
        (
            100,
            60,
            95,
            "inconclusive",
            "The candidate is not shown to be better than the base model with examples in its "
            "prompt on exact_match (+0.025).",
        ),
        (60, 150, 50, "blocked", "The candidate is worse than the champion on exact_match"),
    ],
)
def test_a_fine_tune_must_beat_what_serves_and_a_prompt(
    candidate: int, champion: int, few_shot: int, expected: str, sentence: str
) -> None:
    verdict = decide(three(candidate, champion, few_shot), GateConfig())

    assert verdict.outcome == expected
    assert verdict.sentence.startswith(sentence)
    assert {d.baseline for d in verdict.differences} == {"champion", "base_few_shot"}


def test_while_nothing_serves_the_base_model_is_what_to_beat() -> None:
    contestants = three(150, 60, 50)
    del contestants["champion"]
    rules = [BETTER, BETTER | {"against": "base"}, BETTER | {"against": "champion"}]

    verdict = decide(contestants, GateConfig.model_validate({"rules": rules}))

    # The first two are one and the same claim now, and the third says nothing yet.
    assert [d.baseline for d in verdict.differences] == ["base"]


def test_a_contestant_that_was_not_evaluated_is_named() -> None:
    with pytest.raises(ConfigError, match="compared with base_few_shot, which was not evaluated"):
        decide(
            against(contestant(right(150)), contestant(right(20), digest=None)),
            settings(BETTER | {"against": "base_few_shot"}),
        )


def test_every_metric_that_no_rule_names_is_held_by_default() -> None:
    base = np.linspace(0.3, 0.9, N)
    names = ("rouge_l", "bleu", "latency_p50_ms", "num_tokens")

    def whole(right_answers: int, shift: float, digest: str | None) -> ContestantScores:
        others = [metric(name, base + shift) for name in names]
        return contestant(right(right_answers), *others, digest=digest)

    rules = [held("rouge_l", 0.5), held("others", 0.05)]
    verdict = decide(against(whole(150, -0.1, "c"), whole(20, 0, None)), settings(*rules))

    found = {d.metric: d.verdict for d in verdict.differences}
    assert found == {"exact_match": "passed", "rouge_l": "passed", "bleu": "failed"}


def test_a_rule_may_have_its_own_direction_and_number_of_answers() -> None:
    longer = metric("num_tokens", np.full(N, 30.0) + np.arange(N) % 2)
    shorter = metric("num_tokens", np.full(N, 20.0))
    rule = held("num_tokens", 2)

    def found(**more: Any) -> str:
        contestants = against(
            contestant(right(150), longer), contestant(right(20), shorter, digest=None)
        )
        return decide(contestants, settings(rule | more)).differences[1].verdict

    assert found() == "passed"
    assert found(direction="lower") == "failed"
    assert found(min_n=N + 1) == "inconclusive"
