"""The gate's verdicts: a table of cases, and how often chance alone promotes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike

from tasks.artifacts import Outcome
from tasks.errors import ConfigError, DataError
from tasks.gate.config import GateConfig
from tasks.gate.decide import ContestantScores, decide
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
    *scores: MetricScores, digest: str | None = "c" * 64, judge: str = "not configured"
) -> ContestantScores:
    n = max(len(s.stats) for s in scores)
    return ContestantScores(
        role="candidate" if digest else "base",
        adapter_digest=digest,
        scores={s.metric: s for s in scores},
        ids=tuple(f"row-{i}" for i in range(n)),
        judge=judge,
    )


def outcome(
    candidate: Sequence[MetricScores], base: Sequence[MetricScores], **config: Any
) -> tuple[Outcome, list[str]]:
    verdict = decide(
        contestant(*candidate),
        contestant(*base, digest=None),
        GateConfig.model_validate({"judge": "ignore", **config}),
    )
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
        (right(104), right(100), {}, "inconclusive", "4 answers differ, 6 needed"),
        (right(110), right(100), {}, "promoted", "exact_match improved"),
        (right(110), right(100), {"min_gain": 0.05}, "inconclusive", "margin 0.050"),
        (right(150), right(20), {"min_gain": 0.05}, "promoted", "margin 0.050"),
        (right(29, 29), right(0, 29), {}, "inconclusive", "fewer than 30 answers"),
        (right(30, 30), right(0, 30), {}, "promoted", "n=30."),
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
        guards=[{"metric": "rouge_l", "margin": 0.02}],
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
        guards=[{"metric": "rouge_l", "margin": 0.02}],
    )

    assert got == "promoted"


def test_blocked_outweighs_inconclusive() -> None:
    base = np.linspace(0.3, 0.9, N)

    got, _ = outcome(
        [right(100, first=5), metric("rouge_l", base - 0.1)],
        [right(100), metric("rouge_l", base)],
        guards=[{"metric": "rouge_l", "margin": 0.02}],
    )

    assert got == "blocked"


def test_latency_is_guarded_in_its_own_direction() -> None:
    base = np.linspace(200, 300, 40)

    def latency(values: ArrayLike) -> MetricScores:
        return metric("latency_p50_ms", values, reducer="median", higher_is_better=False)

    guard = {"guards": [{"metric": "latency_p50_ms", "margin": 20}]}
    candidate, baseline = right(35, 40), right(2, 40)

    assert (
        outcome([candidate, latency(base + 5)], [baseline, latency(base)], **guard)[0] == "promoted"
    )
    assert (
        outcome([candidate, latency(base + 90)], [baseline, latency(base)], **guard)[0] == "blocked"
    )
    assert (
        outcome([candidate, latency(base - 90)], [baseline, latency(base)], **guard)[0]
        == "promoted"
    )


def test_the_record_holds_what_the_sentence_says() -> None:
    verdict = decide(contestant(right(150)), contestant(right(20), digest=None), GateConfig())

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
        f"exact_match improved: candidate 0.750, base 0.100, difference +0.650 {interval}, n=200."
    )


def test_the_same_adapter_is_no_change_and_claims_nothing() -> None:
    champion = replace(contestant(right(20)), role="champion")

    verdict = decide(contestant(right(20)), champion, GateConfig(primary="absent"))

    assert (verdict.outcome, verdict.differences) == ("no_change", [])
    assert verdict.reasons == [
        "The candidate is the champion itself (cccccccccccc): there is nothing to decide."
    ]


@pytest.mark.parametrize(
    "config", [{"primary": "bleu"}, {"guards": [{"metric": "bleu", "margin": 0.1}]}]
)
def test_a_metric_that_was_not_measured_is_named(config: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"'bleu'.*available: exact_match"):
        outcome([right(150)], [right(20)], **config)


def test_different_rows_cannot_be_compared() -> None:
    base = contestant(right(20), digest=None)
    other = replace(base, ids=("another", *base.ids[1:]))

    with pytest.raises(DataError, match="200 and 200, of which 199 in common"):
        decide(contestant(right(150)), other, GateConfig())


def test_rows_in_another_order_are_matched_by_id() -> None:
    values = np.arange(N) % 2
    candidate = contestant(metric("exact_match", values), metric("rouge_l", values))
    base = contestant(metric("exact_match", values), digest=None)
    turned = replace(
        base, ids=base.ids[::-1], scores={"exact_match": metric("exact_match", values[::-1])}
    )

    (difference,) = decide(candidate, turned, GateConfig()).differences

    assert (difference.difference, difference.ci_low, difference.ci_high) == (0, 0, 0)


def judged(
    scores: MetricScores, grades: ArrayLike, *, skip: int, digest: str | None
) -> ContestantScores:
    """A contestant whose judge did not grade the first ``skip`` rows."""
    ids = tuple(f"row-{i}" for i in range(skip, N))
    judgements = metric("judge", np.asarray(grades)[skip:], ids=ids)
    return contestant(scores, judgements, digest=digest, judge="run")


GRADES = np.tile([2.0, 3.0, 4.0, 5.0], N // 4)


@pytest.mark.parametrize(
    ("grades", "expected"),
    [(GRADES, "promoted"), (GRADES - 0.5, "blocked"), (GRADES[::-1], "inconclusive")],
)
@pytest.mark.parametrize("mode", ["required", "if_run"])
def test_the_judge_guards_over_the_rows_both_judged(
    grades: ArrayLike, expected: str, mode: str
) -> None:
    verdict = decide(
        judged(right(150), grades, skip=2, digest="c"),
        judged(right(20), GRADES, skip=4, digest=None),
        GateConfig.model_validate({"judge": mode}),
    )

    assert verdict.outcome == expected
    assert verdict.differences[1].metric == "judge"
    assert verdict.differences[1].n == N - 4


def test_the_judge_can_be_ignored() -> None:
    verdict = decide(
        judged(right(150), GRADES - 1, skip=0, digest="c"),
        judged(right(20), GRADES, skip=0, digest=None),
        GateConfig(judge="ignore"),
    )

    assert (verdict.outcome, len(verdict.reasons)) == ("promoted", 1)


@pytest.mark.parametrize(
    ("mode", "expected", "num_reasons"),
    [("required", "inconclusive", 2), ("if_run", "promoted", 2), ("ignore", "promoted", 1)],
)
def test_a_judge_that_did_not_run(mode: str, expected: str, num_reasons: int) -> None:
    verdict = decide(
        judged(right(150), GRADES, skip=0, digest="c"),
        contestant(right(20), digest=None, judge="failed: 9 of 200 judgements failed"),
        GateConfig.model_validate({"judge": mode}),
    )

    assert (verdict.outcome, len(verdict.reasons)) == (expected, num_reasons)
    if num_reasons == 2:
        assert verdict.reasons[1].startswith("judge: not run (base: failed: 9 of 200")


def share_promoted(p_both: float, p_candidate: float, p_base: float, *, num: int = 200) -> float:
    """Share of synthetic experiments promoted, by the chances of each pair of right and wrong."""
    rng = np.random.default_rng(11)
    chances = [p_both, p_candidate, p_base, 1 - p_both - p_candidate - p_base]
    promoted = 0
    for _ in range(num):
        cell = rng.choice(4, size=N, p=chances)
        ours, theirs = np.isin(cell, [0, 1]), np.isin(cell, [0, 2])
        got, _ = outcome(
            [metric("exact_match", ours)], [metric("exact_match", theirs)], resamples=1000
        )
        promoted += got == "promoted"
    return promoted / num


@pytest.mark.parametrize("disagreement", [0.02, 0.05, 0.3])
def test_chance_alone_rarely_promotes(disagreement: float) -> None:
    share = share_promoted(0.5, disagreement / 2, disagreement / 2)

    # At most 5 %, give or take three standard errors of 200 experiments.
    assert share <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 200)


def test_a_clear_gain_is_promoted_and_a_clear_loss_never() -> None:
    assert share_promoted(0.5, 0.25, 0.05, num=60) == 1
    assert share_promoted(0.5, 0.05, 0.25, num=60) == 0
