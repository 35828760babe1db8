"""The decision: two contestants' scores on the same golden rows, and a config, to a verdict.

Pure. The primary metric must be shown to be better (superiority); guards and the judge must be
shown not to be worse by more than a margin (non-inferiority). What the evidence cannot show either
way is inconclusive, and leaves production as it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from tasks.artifacts import MetricDifference, Outcome, Role
from tasks.errors import ConfigError, DataError
from tasks.gate.config import GateConfig
from tasks.scores import MetricScores, paired_difference

Finding = Literal["passed", "failed", "inconclusive"]

JUDGE = "judge"
# 0.90 - 0.92 is a little below -0.02 in binary: a loss that equals the margin is within it.
_ROUNDING = 1e-9


@dataclass(frozen=True, eq=False)
class ContestantScores:
    """One contestant's scores.

    ``ids`` are the golden rows in the order of the metrics' statistics; a metric that measured only
    some of them, as the judge may, carries its own ids, and is compared on the rows that both
    contestants have. ``judge`` is "run", or why the judge did not run.
    """

    role: Role
    adapter_digest: str | None
    scores: Mapping[str, MetricScores]
    ids: tuple[str, ...]
    judge: str = "not configured"


@dataclass(frozen=True)
class Verdict:
    """The outcome, one sentence per rule, and the figures behind them."""

    outcome: Outcome
    reasons: list[str]
    differences: list[MetricDifference]


@dataclass(frozen=True)
class _Rule:
    metric: str
    kind: Literal["superiority", "non_inferiority"]
    margin: float


def decide(candidate: ContestantScores, baseline: ContestantScores, config: GateConfig) -> Verdict:
    """Whether the candidate may replace the baseline.

    ``blocked`` where any rule failed, else ``inconclusive`` where any is, else ``promoted``;
    ``no_change`` where both are the same adapter, without statistics.

    Raises:
        ConfigError: a metric that the config names was not measured.
        DataError: the two did not answer the same rows.
    """
    if candidate.adapter_digest == baseline.adapter_digest:
        return Verdict("no_change", [_same_adapter(candidate, baseline)], [])
    _check_same_rows(candidate, baseline)
    judged = candidate.judge == baseline.judge == "run"
    found = [_apply(rule, candidate, baseline, config) for rule in _rules(config, judged=judged)]
    differences = [difference for difference, _ in found]
    reasons = [reason for _, reason in found]
    verdicts: list[Finding] = [difference.verdict for difference in differences]
    if config.judge != "ignore" and not judged:
        reasons.append(_judge_not_run(candidate, baseline, config))
        verdicts.append("inconclusive" if config.judge == "required" else "passed")
    return Verdict(_outcome(verdicts), reasons, differences)


def _same_adapter(candidate: ContestantScores, baseline: ContestantScores) -> str:
    digest = (candidate.adapter_digest or "no adapter")[:12]
    return f"The candidate is the {baseline.role} itself ({digest}): there is nothing to decide."


def _check_same_rows(candidate: ContestantScores, baseline: ContestantScores) -> None:
    ours, theirs = set(candidate.ids), set(baseline.ids)
    if ours != theirs or len(candidate.ids) != len(baseline.ids):
        raise DataError(
            f"{candidate.role} and {baseline.role} must answer the same rows: "
            f"{len(candidate.ids)} and {len(baseline.ids)}, of which {len(ours & theirs)} in common"
        )


def _rules(config: GateConfig, *, judged: bool) -> list[_Rule]:
    rules = [_Rule(config.primary, "superiority", config.min_gain)]
    rules += [_Rule(guard.metric, "non_inferiority", guard.margin) for guard in config.guards]
    if judged and config.judge != "ignore":
        rules.append(_Rule(JUDGE, "non_inferiority", config.judge_margin))
    return rules


def _outcome(verdicts: Iterable[Finding]) -> Outcome:
    seen = set(verdicts)
    if "failed" in seen:
        return "blocked"
    return "inconclusive" if "inconclusive" in seen else "promoted"


def _apply(
    rule: _Rule, candidate: ContestantScores, baseline: ContestantScores, config: GateConfig
) -> tuple[MetricDifference, str]:
    ours, theirs = _on_common_rows(candidate, baseline, rule.metric)
    difference, ci_low, ci_high, n = paired_difference(
        ours,
        theirs,
        confidence=config.confidence,
        resamples=config.resamples,
        seed=config.seed,
    )
    finding, what = _find(rule, (difference, ci_low, ci_high), ours, theirs, config)
    record = MetricDifference(
        metric=rule.metric,
        rule=rule.kind,
        baseline=baseline.role,
        candidate_value=ours.value,
        baseline_value=theirs.value,
        difference=difference,
        ci_low=ci_low,
        ci_high=ci_high,
        n=n,
        margin=rule.margin,
        verdict=finding,
    )
    return record, _sentence(record, candidate.role, what)


def _find(
    rule: _Rule,
    estimate: tuple[float, float, float],
    ours: MetricScores,
    theirs: MetricScores,
    config: GateConfig,
) -> tuple[Finding, str]:
    """What the evidence says of one rule, and in which words."""
    if len(ours.stats) < config.min_n:
        return "inconclusive", f"is undecided on fewer than {config.min_n} answers"
    if rule.kind == "non_inferiority":
        return _not_worse(*estimate, margin=rule.margin)
    finding, what = _better(*estimate, min_gain=rule.margin)
    num_differing = int((ours.stats != theirs.stats).any(axis=1).sum())
    needed = _fewest_differing(config.confidence)
    if finding == "passed" and num_differing < needed:
        return "inconclusive", f"is undecided: {num_differing} answers differ, {needed} needed"
    return finding, what


def _better(
    _difference: float, ci_low: float, ci_high: float, *, min_gain: float
) -> tuple[Finding, str]:
    if ci_high < -_ROUNDING:
        return "failed", "got worse"
    if ci_low > min_gain + _ROUNDING:
        return "passed", "improved"
    return "inconclusive", "is not shown to have improved"


def _not_worse(
    difference: float, ci_low: float, ci_high: float, *, margin: float
) -> tuple[Finding, str]:
    if difference < -margin - _ROUNDING:
        return "failed", "got worse by more than its margin"
    if ci_low < -margin - _ROUNDING:
        return "inconclusive", "is not shown to stay within its margin"
    return "passed", "stayed within its margin"


def _fewest_differing(confidence: float) -> int:
    """Answers that must differ for any evidence at this level: 6 at 95 %.

    If the models were equally good, d differing answers would all favour one of them with
    probability 2^(1 - d) (the sign test). With fewer, a bootstrap interval that excludes zero is an
    artefact of resampling so few rows.
    """
    return math.ceil(1 - math.log2(1 - confidence))


def _sentence(record: MetricDifference, candidate: Role, what: str) -> str:
    margin = f", margin {record.margin:.3f}" if record.margin else ""
    return (
        f"{record.metric} {what}: {candidate} {record.candidate_value:.3f}, "
        f"{record.baseline} {record.baseline_value:.3f}, difference {record.difference:+.3f} "
        f"[{record.ci_low:+.3f}, {record.ci_high:+.3f}], n={record.n}{margin}."
    )


def _judge_not_run(
    candidate: ContestantScores, baseline: ContestantScores, config: GateConfig
) -> str:
    causes = {c.role: c.judge for c in (candidate, baseline) if c.judge != "run"}
    alike = len(causes) == 2 and len(set(causes.values())) == 1
    why = candidate.judge if alike else "; ".join(f"{r}: {cause}" for r, cause in causes.items())
    role = "the gate requires it" if config.judge == "required" else "decided without it"
    return f"{JUDGE}: not run ({why}), {role}."


def _on_common_rows(
    candidate: ContestantScores, baseline: ContestantScores, metric: str
) -> tuple[MetricScores, MetricScores]:
    """Both sides' scores over the rows that both measured, in the candidate's order."""
    ours, theirs = _measured(candidate, metric), _measured(baseline, metric)
    our_rows, their_rows = (
        {row_id: i for i, row_id in enumerate(c.ids if s.ids is None else s.ids)}
        for s, c in ((ours, candidate), (theirs, baseline))
    )
    common = [row_id for row_id in our_rows if row_id in their_rows]
    return (
        replace(ours, stats=ours.stats[[our_rows[i] for i in common]], ids=tuple(common)),
        replace(theirs, stats=theirs.stats[[their_rows[i] for i in common]], ids=tuple(common)),
    )


def _measured(contestant: ContestantScores, metric: str) -> MetricScores:
    if metric not in contestant.scores:
        raise ConfigError(
            f"the gate needs the metric {metric!r}, which was not measured for the "
            f"{contestant.role}; available: {', '.join(sorted(contestant.scores))}"
        )
    return contestant.scores[metric]
