"""The gate's verdicts: a table of cases, and how often chance alone promotes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike

from tasks.errors import ConfigError, DataError
from tasks.evidence import Outcome
from tasks.gate.decide import Verdict, decide
from tasks.scores import MetricScores
from tests.tasks.gate.contestants import (
    BETTER,
    MORE,
    N,
    against,
    contestant,
    held,
    metric,
    right,
    settings,
)


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
