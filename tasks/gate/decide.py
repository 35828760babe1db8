"""The decision: the contestants' scores on the same golden rows, and a config, to a verdict.

Pure. A superiority rule passes where the candidate is shown to be better, by its interval and by an
exact test whose level is shared among all superiority claims (Holm); a non-inferiority rule where
it is shown not to be worse by more than a margin. What the evidence cannot show either way is
inconclusive, says what would settle it, and leaves production as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from tasks.artifacts import serving_role
from tasks.evidence import MetricDifference, Outcome
from tasks.gate import wording
from tasks.gate.config import GateConfig
from tasks.gate.rules import (
    Contestants,
    Rule,
    beside_limit,
    check_same_rows,
    on_common_rows,
    rules_for,
)
from tasks.gate.significance import (
    Precision,
    PValue,
    beyond_margin,
    detectable,
    exchange_test,
    holm,
    rows_needed,
)
from tasks.intervals import Difference, paired_difference
from tasks.scores import MetricScores

Finding = Literal["passed", "failed", "inconclusive"]

# 0.90 - 0.92 is a little below -0.02 in binary: a loss that equals the margin is within it.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Verdict:
    """The outcome, in one sentence, with one reason per rule, and the figures behind them.

    ``settling`` says what would settle each rule that is undecided.
    """

    outcome: Outcome
    sentence: str
    reasons: list[str]
    settling: list[str]
    differences: list[MetricDifference]


@dataclass(frozen=True, eq=False)
class _Comparison:
    rule: Rule
    ours: MetricScores
    theirs: MetricScores
    estimate: Difference
    p_value: PValue | None  # of superiority claims alone


def decide(contestants: Contestants, config: GateConfig) -> Verdict:
    """Whether the candidate may replace what serves now.

    ``blocked`` where any rule failed, else ``inconclusive`` where any is, else ``promoted``;
    ``no_change`` where the candidate is what serves, without statistics.

    Raises:
        ConfigError: a metric or contestant that the config names was not measured.
        DataError: two contestants did not answer the same rows.
    """
    candidate, serving = contestants["candidate"], contestants[serving_role(contestants)]
    if candidate.adapter_digest == serving.adapter_digest:
        same = wording.same_adapter(candidate.adapter_digest, serving.role)
        return Verdict("no_change", same, [same], [], [])
    for other in contestants.values():
        check_same_rows(candidate, other)
    claims, unmeasured = rules_for(contestants, config)
    compared = [_compare(rule, contestants, config) for rule in claims]
    adjusted = holm({c.rule: c.p_value.value for c in compared if c.p_value is not None})
    differences = [_record(c, adjusted, config) for c in compared]
    verdicts: list[Finding] = [d.verdict for d in differences]
    needed = [u for u in unmeasured if not u.rule.optional]
    verdicts += ["inconclusive"] * len(needed)
    outcome = _outcome(verdicts)
    reasons = [*map(wording.reason, differences), *map(wording.unmeasured, unmeasured)]
    settling = [wording.settling(d) for d in differences if d.verdict == "inconclusive"]
    settling += map(wording.needed, needed)
    sentence = wording.sentence(outcome, differences, config.primary, reasons)
    return Verdict(outcome, sentence, reasons, settling, differences)


def _compare(rule: Rule, contestants: Contestants, config: GateConfig) -> _Comparison:
    candidate = contestants["candidate"]
    if rule.against == "limit":
        ours, theirs = beside_limit(candidate, rule)
    else:
        ours, theirs = on_common_rows(candidate, contestants[rule.against], rule)
    estimate = paired_difference(
        ours,
        theirs,
        confidence=_confidence(rule, config),
        resamples=config.resamples,
        seed=config.seed,
    )
    return _Comparison(rule, ours, theirs, estimate, _p_value(rule, ours, theirs, estimate, config))


def _confidence(rule: Rule, config: GateConfig) -> float:
    return config.confidence if rule.kind == "superiority" else 1 - 2 * config.regression_risk


def _p_value(
    rule: Rule,
    ours: MetricScores,
    theirs: MetricScores,
    estimate: Difference,
    config: GateConfig,
) -> PValue | None:
    if rule.kind != "superiority":
        return None
    if rule.margin > 0:
        return beyond_margin(estimate.value, estimate.standard_error, rule.margin)
    return exchange_test(ours, theirs, permutations=config.permutations, seed=config.seed)


def _record(
    compared: _Comparison, adjusted: Mapping[Rule, float], config: GateConfig
) -> MetricDifference:
    rule, estimate = compared.rule, compared.estimate
    p_value = adjusted.get(rule)
    line = rule.margin if rule.kind == "superiority" else -rule.margin
    num_claims = len(adjusted) if rule.kind == "superiority" else 1
    precision = Precision(_confidence(rule, config), config.power, num_claims)
    spread, n = estimate.standard_error, estimate.n
    least = detectable(spread, n, precision)
    return MetricDifference(
        metric=rule.metric,
        rule=rule.kind,
        baseline=rule.against,
        candidate_value=compared.ours.value,
        baseline_value=compared.theirs.value,
        difference=estimate.value,
        ci_low=estimate.ci_low,
        ci_high=estimate.ci_high,
        confidence=_confidence(rule, config),
        n=n,
        margin=rule.margin,
        min_n=rule.min_n,
        verdict=_finding(rule, estimate, p_value, config),
        p_value=compared.p_value.value if compared.p_value else None,
        p_adjusted=p_value,
        test=compared.p_value.test if compared.p_value else None,
        detectable=None if least is None else least + line,
        n_needed=rows_needed(estimate.value - line, spread, n, precision),
    )


def _finding(
    rule: Rule, estimate: Difference, p_adjusted: float | None, config: GateConfig
) -> Finding:
    """What the evidence says of one rule."""
    if estimate.n < rule.min_n:
        return "inconclusive"
    if rule.kind == "non_inferiority":
        if estimate.value < -rule.margin - _ROUNDING:
            return "failed"
        return "passed" if estimate.ci_low >= -rule.margin - _ROUNDING else "inconclusive"
    if estimate.ci_high < -_ROUNDING:
        return "failed"
    # Two-sided intervals leave half of what is risked on either side: so must the one-sided test.
    is_significant = p_adjusted is not None and p_adjusted <= (1 - config.confidence) / 2
    is_beyond = estimate.ci_low > rule.margin + _ROUNDING
    return "passed" if is_beyond and is_significant else "inconclusive"


def _outcome(verdicts: Iterable[Finding]) -> Outcome:
    seen = set(verdicts)
    if "failed" in seen:
        return "blocked"
    return "inconclusive" if "inconclusive" in seen else "promoted"
