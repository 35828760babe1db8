"""The gate's verdicts: a table of cases, and how often chance alone promotes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike
from pydantic import ValidationError

from tasks.errors import ConfigError, DataError
from tasks.evidence import Outcome
from tasks.gate.config import GateConfig
from tasks.gate.decide import Verdict, decide
from tasks.gate.rules import ContestantScores
from tasks.scores import MetricScores, Reducer

N = 200


def metric(
    name: str,
    values: ArrayLike,
    *,
    reducer: Reducer = "mean",
    higher_is_better: bool = True,
    ids: tuple[str, ...] | None = None,
) -> MetricScores:
    stats = np.asarray(values, dtype=float).reshape(-1, 1)
    return MetricScores(name, reducer, higher_is_better, stats, ids)


def right(num_right: int, n: int = N, *, first: int = 0) -> MetricScores:
    """exact_match with ``num_right`` right answers from row ``first`` on."""
    values = np.zeros(n)
    values[first : first + num_right] = 1
    return metric("exact_match", values, reducer="proportion")


def contestant(
    *scores: MetricScores, digest: str | None = "c" * 64, **unmeasured: str
) -> ContestantScores:
    n = max(len(s.stats) for s in scores)
    return ContestantScores(
        role="candidate" if digest else "base",
        adapter_digest=digest,
        scores={s.metric: s for s in scores},
        ids=tuple(f"row-{i}" for i in range(n)),
        unmeasured={"judge": "not configured", "general_loss": "switched off", **unmeasured},
    )


BETTER = {"metric": "primary", "kind": "superiority"}
MORE = {"rules": [BETTER | {"margin": 0.05}]}
JUDGED = {"metric": "judge", "kind": "non_inferiority", "margin": 0.1}


def held(metric: str, margin: float) -> dict[str, Any]:
    return {"metric": metric, "kind": "non_inferiority", "margin": margin}


def settings(*rules: dict[str, Any], **config: Any) -> GateConfig:
    """A gate whose rules are that the primary metric must improve, and ``rules``."""
    return GateConfig.model_validate({"rules": [BETTER, *rules], **config})


def against(candidate: ContestantScores, *others: ContestantScores) -> dict[Any, ContestantScores]:
    return {c.role: c for c in (*others, candidate)}


def outcome(
    candidate: Sequence[MetricScores],
    base: Sequence[MetricScores],
    *rules: dict[str, Any],
    **config: Any,
) -> tuple[Outcome, list[str]]:
    contestants = against(contestant(*candidate), contestant(*base, digest=None))
    verdict = decide(contestants, settings(*rules, **config))
    return verdict.outcome, verdict.reasons


@pytest.mark.parametrize(
    ("candidate", "base", "config", "expected", "reason"),
    [
        (
            right(150),
            right(20),
            {},
            "promoted",
            "exact_match improved: candidate 0.750, base 0.100",
        ),
        (right(20), right(150), {}, "blocked", "exact_match got worse"),
        (right(99), right(100), {}, "inconclusive", "exact_match is not shown to have improved"),
        (right(100), right(100), {}, "inconclusive", "exact_match is not shown to have improved"),
        (right(100, first=5), right(100), {}, "inconclusive", "not shown to have improved"),
        (right(112, first=5), right(110), {}, "inconclusive", "not shown to have improved"),
        (right(104), right(100), {}, "inconclusive", "but chance could have done it"),
        (right(110), right(100), {}, "promoted", "exact_match improved"),
        (
            right(110),
            right(100),
            {"rules": [BETTER | {"margin": 0.05}]},
            "inconclusive",
            "margin 0.050",
        ),
        (right(150), right(20), MORE, "promoted", "margin 0.050"),
        (right(29, 29), right(0, 29), {}, "inconclusive", "fewer than 30 answers"),
        (right(30, 30), right(0, 30), {}, "promoted", "n=30, p="),
    ],
)
def test_primary_metric(
    candidate: MetricScores, base: MetricScores, config: dict[str, Any], expected: str, reason: str
) -> None:
    got, reasons = outcome([candidate], [base], **config)

    assert (got, len(reasons)) == (expected, 1)
    assert reason in reasons[0]


@pytest.mark.parametrize(
    ("loss", "noise", "expected", "reason"),
    [
        (0.00, 0.01, "promoted", "rouge_l stayed within its margin"),
        (0.01, 0.01, "promoted", "rouge_l stayed within its margin"),
        (-0.3, 0.01, "promoted", "rouge_l stayed within its margin"),
        (0.01, 0.20, "inconclusive", "rouge_l is not shown to stay within its margin"),
        (0.05, 0.01, "blocked", "rouge_l got worse by more than its margin"),
        (0.05, 0.50, "blocked", "rouge_l got worse by more than its margin"),
    ],
)
def test_guards(loss: float, noise: float, expected: str, reason: str) -> None:
    base = np.linspace(0.3, 0.9, N)
    wobble = np.tile([noise, -noise], N // 2)
    candidates = [right(150), metric("rouge_l", base - loss + wobble)]

    got, reasons = outcome(
        candidates,
        [right(20), metric("rouge_l", base)],
        held("rouge_l", 0.02),
    )

    assert got == expected
    assert "exact_match improved" in reasons[0]
    assert reason in reasons[1]
    assert "margin 0.020" in reasons[1]


def test_a_loss_equal_to_the_margin_is_within_it() -> None:
    base = np.linspace(0.3, 0.9, N)

    got, _ = outcome(
        [right(150), metric("rouge_l", base - 0.02)],
        [right(20), metric("rouge_l", base)],
        held("rouge_l", 0.02),
    )

    assert got == "promoted"


def test_blocked_outweighs_inconclusive() -> None:
    base = np.linspace(0.3, 0.9, N)

    got, _ = outcome(
        [right(100, first=5), metric("rouge_l", base - 0.1)],
        [right(100), metric("rouge_l", base)],
        held("rouge_l", 0.02),
    )

    assert got == "blocked"


def test_latency_is_guarded_in_its_own_direction() -> None:
    base = np.linspace(200, 300, 40)

    def latency(values: ArrayLike) -> MetricScores:
        return metric("latency_p50_ms", values, reducer="median", higher_is_better=False)

    guard = held("latency_p50_ms", 20)
    candidate, baseline = right(35, 40), right(2, 40)

    assert (
        outcome([candidate, latency(base + 5)], [baseline, latency(base)], guard)[0] == "promoted"
    )
    assert (
        outcome([candidate, latency(base + 90)], [baseline, latency(base)], guard)[0] == "blocked"
    )
    assert (
        outcome([candidate, latency(base - 90)], [baseline, latency(base)], guard)[0] == "promoted"
    )


def test_the_record_holds_what_the_sentence_says() -> None:
    verdict = decide(
        against(contestant(right(150)), contestant(right(20), digest=None)), settings()
    )

    (difference,) = verdict.differences
    assert (difference.metric, difference.rule, difference.verdict) == (
        "exact_match",
        "superiority",
        "passed",
    )
    assert (difference.candidate_value, difference.baseline_value) == (0.75, 0.1)
    assert difference.difference == pytest.approx(0.65)
    assert difference.ci_low < difference.difference < difference.ci_high
    assert (difference.n, difference.margin, difference.baseline) == (N, 0, "base")
    interval = f"[{difference.ci_low:+.3f}, {difference.ci_high:+.3f}]"
    assert verdict.reasons[0] == (
        f"exact_match improved: candidate 0.750, base 0.100, difference +0.650 {interval} at "
        f"95 %, n=200, "
        f"p={difference.p_adjusted:.2g} (mcnemar)."
    )


def test_the_same_adapter_is_no_change_and_claims_nothing() -> None:
    champion = replace(contestant(right(20)), role="champion")

    verdict = decide(against(contestant(right(20)), champion), settings(primary="absent"))

    assert (verdict.outcome, verdict.differences) == ("no_change", [])
    assert verdict.reasons == [
        "The candidate is the champion itself (cccccccccccc): there is nothing to decide."
    ]


@pytest.mark.parametrize("config", [{"primary": "bleu"}, {"rules": [BETTER, held("bleu", 0.1)]}])
def test_a_metric_that_was_not_measured_is_named(config: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"'bleu'.*available: exact_match"):
        outcome([right(150)], [right(20)], **config)


def test_different_rows_cannot_be_compared() -> None:
    base = contestant(right(20), digest=None)
    other = replace(base, ids=("another", *base.ids[1:]))

    with pytest.raises(DataError, match="200 and 200, of which 199 in common"):
        decide(against(contestant(right(150)), other), settings())


def test_rows_in_another_order_are_matched_by_id() -> None:
    values = np.arange(N) % 2
    candidate = contestant(metric("exact_match", values), metric("rouge_l", values))
    base = contestant(metric("exact_match", values), digest=None)
    turned = replace(
        base, ids=base.ids[::-1], scores={"exact_match": metric("exact_match", values[::-1])}
    )

    (difference,) = decide(against(candidate, turned), settings()).differences

    assert (difference.difference, difference.ci_low, difference.ci_high) == (0, 0, 0)


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


def test_claims_share_the_level() -> None:
    """Against each alone p is 0.0195; of two claims together it is twice that, and not shown."""
    contestants = {
        "base": contestant(right(10), digest=None),
        "base_few_shot": replace(contestant(right(1), digest=None), role="base_few_shot"),
        "candidate": contestant(right(11, first=9)),
    }
    one = decide({r: contestants[r] for r in ("base", "candidate")}, settings())
    both = decide(contestants, settings(BETTER | {"against": "base_few_shot"}))

    alone = one.differences[0]
    assert alone.p_adjusted == alone.p_value
    by_baseline = {d.baseline: d for d in both.differences}
    smaller, larger = sorted(d.p_value for d in both.differences)
    adjusted = sorted(d.p_adjusted for d in both.differences)
    assert adjusted == [pytest.approx(min(1, 2 * smaller)), max(min(1, 2 * smaller), larger)]
    assert by_baseline["base"].p_value == alone.p_value


def test_what_is_undecided_says_what_would_settle_it() -> None:
    def settling(verdict: Verdict) -> str:
        (line,) = verdict.settling
        return line

    def verdict(ours: MetricScores, theirs: MetricScores) -> Verdict:
        return decide(against(contestant(ours), contestant(theirs, digest=None)), settings())

    small_gain = verdict(right(112, first=5), right(110))
    (d,) = small_gain.differences
    assert d.detectable is not None
    assert d.n_needed is not None
    assert 0.01 < d.difference < d.detectable
    assert d.n_needed == pytest.approx(N * (d.detectable / d.difference) ** 2, rel=0.01)
    assert settling(small_gain) == (
        f"exact_match against the base model: with n=200 a true gain below {d.detectable:.3f} "
        f"would probably be missed; for the difference seen (+0.010) about {d.n_needed:,} rows are "
        "needed."
    )
    assert "the model must get better" in settling(verdict(right(100, first=5), right(100)))
    assert "all 200 answers score alike" in settling(verdict(right(100), right(100)))
    assert verdict(right(150), right(20)).settling == []
