"""The config's rules for the contestants and metrics of this run, and what each rule compares."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from tasks.artifacts import Role, serving_role
from tasks.errors import ConfigError, DataError
from tasks.evidence import Baseline
from tasks.gate.config import JUDGE, OTHERS, PREFERENCE, PRIMARY, GateConfig, RuleConfig
from tasks.scores import MetricScores, Reducer

Kind = Literal["superiority", "non_inferiority"]


@dataclass(frozen=True, eq=False)
class ContestantScores:
    """One contestant's scores.

    ``ids`` are the golden rows in the order of the metrics' statistics; a metric that measured only
    some of them, as the judge may, carries its own ids, and is compared on the rows that both
    contestants have. ``unmeasured`` says of metrics that were not measured why.
    """

    role: Role
    adapter_digest: str | None
    scores: Mapping[str, MetricScores]
    ids: tuple[str, ...]
    unmeasured: Mapping[str, str] = field(default_factory=dict)


Contestants = Mapping[Role, ContestantScores]


@dataclass(frozen=True)
class Rule:
    """One claim of this run."""

    metric: str
    against: Baseline
    kind: Kind
    margin: float
    direction: Literal["higher", "lower"] | None
    min_n: int
    optional: bool = False
    limit: float | None = None


@dataclass(frozen=True)
class Unmeasured:
    """A claim without figures: why, by the side that lacks them."""

    rule: Rule
    causes: Mapping[Role, str]


def compared_with(rule: RuleConfig, contestants: Contestants) -> Baseline:
    """The contestant that a rule means, or its limit."""
    if rule.limit is not None:
        return "limit"
    return serving_role(contestants) if rule.against == "production" else rule.against


def rules_for(contestants: Contestants, config: GateConfig) -> tuple[list[Rule], list[Unmeasured]]:
    """Every claim to be decided, in the config's order, each once; and those that cannot be.

    A rule against the champion says nothing while there is none.

    Raises:
        ConfigError: a rule names a contestant that was not evaluated, or a metric that no
            contestant knows.
    """
    found = dict.fromkeys(
        rule for given in config.rules for rule in _expanded(given, contestants, config)
    )
    claims, unmeasured = [], []
    for rule in found:
        causes = _causes(rule, contestants)
        if causes:
            unmeasured.append(Unmeasured(rule, causes))
        else:
            claims.append(rule)
    return claims, unmeasured


def _expanded(given: RuleConfig, contestants: Contestants, config: GateConfig) -> Iterator[Rule]:
    against = compared_with(given, contestants)
    if against == "champion" and against not in contestants:
        return
    if against != "limit" and against not in contestants:
        raise ConfigError(
            f"gate.rules: {given.metric} is to be compared with {against}, which was not "
            f"evaluated; evaluated were: {', '.join(contestants)}. Evaluate it (see the section "
            "evaluate), or take the rule out."
        )
    for metric in _metrics(given, contestants, config):
        yield Rule(
            metric=metric,
            against=against,
            kind=given.kind,
            margin=given.margin,
            direction=given.direction,
            min_n=given.min_n or config.min_n,
            optional=given.optional,
            limit=given.limit,
        )


def _metrics(given: RuleConfig, contestants: Contestants, config: GateConfig) -> list[str]:
    if given.metric == PRIMARY:
        return [config.primary]
    if given.metric != OTHERS:
        return [given.metric]
    named = {rule.metric for rule in config.rules} | {config.primary, JUDGE, PREFERENCE}
    measured = contestants["candidate"].scores
    return [m for m in measured if m not in named and not _needs_own_rule(m)]


def _needs_own_rule(metric: str) -> bool:
    """What is too slow, too long, forgotten or unstable is for a rule of its own to say."""
    return metric.endswith("_ms") or metric.startswith(("num_", "general_", "unstable"))


def _causes(rule: Rule, contestants: Contestants) -> dict[Role, str]:
    """Why a rule's metric was not measured, for those of its two sides that lack it."""
    causes: dict[Role, str] = {}
    sides: list[Role] = ["candidate"]
    if rule.against != "limit":
        sides.append(rule.against)
    for role in sides:
        contestant = contestants[role]
        if rule.metric in contestant.scores:
            continue
        if rule.metric not in contestant.unmeasured:
            raise ConfigError(
                f"the gate needs the metric {rule.metric!r}, which was not measured for the "
                f"{role}; available: {', '.join(sorted(contestant.scores))}"
            )
        causes[role] = contestant.unmeasured[rule.metric]
    return causes


def check_same_rows(candidate: ContestantScores, other: ContestantScores) -> None:
    """Raise DataError where the two did not answer the same rows."""
    ours, theirs = set(candidate.ids), set(other.ids)
    if ours != theirs or len(candidate.ids) != len(other.ids):
        raise DataError(
            f"{candidate.role} and {other.role} must answer the same rows: "
            f"{len(candidate.ids)} and {len(other.ids)}, of which {len(ours & theirs)} in common"
        )


def beside_limit(candidate: ContestantScores, rule: Rule) -> tuple[MetricScores, MetricScores]:
    """The candidate's scores, and as many that all equal the rule's limit.

    Raises:
        ConfigError: the metric is no mean and no median of its answers' values.
    """
    ours = _measured(candidate, rule)
    if ours.stats.shape[1] != 1:
        raise ConfigError(
            f"gate.rules: {rule.metric} is no mean and no median of what each answer scores, and "
            "cannot be held against a limit. Compare it with a contestant."
        )
    limit = np.full_like(ours.stats, rule.limit)
    reducer: Reducer = "median" if ours.reducer == "median" else "mean"
    alike = replace(ours, reducer=reducer, bounds=ours.range)
    return alike, replace(alike, stats=limit)


def on_common_rows(
    candidate: ContestantScores, other: ContestantScores, rule: Rule
) -> tuple[MetricScores, MetricScores]:
    """Both sides' scores over the rows that both measured, in the candidate's order."""
    ours, theirs = _measured(candidate, rule), _measured(other, rule)
    our_rows, their_rows = (
        {row_id: i for i, row_id in enumerate(c.ids if s.ids is None else s.ids)}
        for s, c in ((ours, candidate), (theirs, other))
    )
    common = [row_id for row_id in our_rows if row_id in their_rows]
    return (
        replace(ours, stats=ours.stats[[our_rows[i] for i in common]], ids=tuple(common)),
        replace(theirs, stats=theirs.stats[[their_rows[i] for i in common]], ids=tuple(common)),
    )


def _measured(contestant: ContestantScores, rule: Rule) -> MetricScores:
    scores = contestant.scores[rule.metric]
    if rule.direction is None:
        return scores
    return replace(scores, higher_is_better=rule.direction == "higher")
