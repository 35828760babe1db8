"""A decision as a person reads it: a reason for each rule, one sentence, and what would settle it.

A sentence holds the metrics' own figures and no more: whoever reads it can check it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tasks.artifacts import Role
from tasks.evidence import Baseline, MetricDifference, Outcome
from tasks.gate.rules import Unmeasured

NAMES: Mapping[Baseline, str] = {
    "base": "the base model",
    "base_few_shot": "the base model with examples in its prompt",
    "champion": "the champion",
    "candidate": "the candidate",
    "reference": "the reference model",
    "limit": "its limit",
}


def same_adapter(digest: str | None, serving: Role) -> str:
    return (
        f"The candidate is the {serving} itself ({(digest or 'no adapter')[:12]}): there is "
        "nothing to decide."
    )


def reason(d: MetricDifference) -> str:
    """What one rule found, with its figures."""
    margin = f", margin {d.margin:.3f}" if d.margin else ""
    where = " on the sealed rows" if d.rows == "sealed" else ""
    p = f", p={d.p_adjusted:.2g} ({d.test})" if d.p_adjusted is not None else ""
    return (
        f"{d.metric} {_found(d)}{where}: candidate {d.candidate_value:.3f}, {d.baseline} "
        f"{d.baseline_value:.3f}, difference {d.difference:+.3f} [{d.ci_low:+.3f}, "
        f"{d.ci_high:+.3f}] at {100 * d.confidence:g} %, n={d.n}{margin}{p}."
    )


def _found(d: MetricDifference) -> str:
    by_rule = {
        ("superiority", "passed"): "improved",
        ("superiority", "failed"): "got worse",
        ("superiority", "inconclusive"): "is not shown to have improved",
        ("non_inferiority", "passed"): "stayed within its margin",
        ("non_inferiority", "failed"): "got worse by more than its margin",
        ("non_inferiority", "inconclusive"): "is not shown to stay within its margin",
    }
    if d.baseline == "limit":
        kept = {
            "passed": "keeps its limit",
            "failed": "breaks its limit",
            "inconclusive": "is not shown to keep its limit",
        }
        if d.n >= d.min_n:
            return kept[d.verdict]
    if d.n < d.min_n:
        return f"is undecided on fewer than {d.min_n} answers"
    if d.rule == "superiority" and d.verdict == "inconclusive" and d.ci_low > d.margin:
        return "seems to have improved, but chance could have done it"
    return by_rule[d.rule, d.verdict]


def settling(d: MetricDifference) -> str:
    """What would settle an undecided rule."""
    where = " on the sealed rows" if d.rows == "sealed" else ""
    against = f"{d.metric} against {NAMES[d.baseline]}{where}"
    if d.detectable is None:
        return (
            f"{against}: all {d.n} answers score alike. Only answers that differ can decide: more "
            "golden rows, or harder ones."
        )
    if d.rule == "superiority":
        missed = f"a true gain below {d.detectable:.3f} would probably be missed"
    else:
        missed = f"only a true difference above {d.detectable:+.3f} would probably be shown"
    if d.n_needed is None:
        more = "no gain was seen, so more rows would not help: the model must get better"
        if d.rule == "non_inferiority":
            more = "the loss seen is at its margin, so more rows would not help"
    else:
        more = f"for the difference seen ({d.difference:+.3f}) about {d.n_needed:,} rows are needed"
    return f"{against}: with n={d.n} {missed}; {more}."


def unmeasured(claim: Unmeasured) -> str:
    """Why a rule has no figures, and what follows."""
    rule, causes = claim.rule, claim.causes
    reasons = list(dict.fromkeys(causes.values()))
    alike = len(causes) == len({"candidate", rule.against}) and len(reasons) == 1
    why = reasons[0] if alike else "; ".join(f"{role}: {cause}" for role, cause in causes.items())
    follows = "decided without it" if rule.optional else "its rule asks for it"
    return f"{rule.metric}: not measured ({why}), {follows}."


def needed(claim: Unmeasured) -> str:
    """What would settle a rule without figures."""
    return f"{claim.rule.metric}: let it be measured, or set optional: true in its rule."


def sentence(
    outcome: Outcome,
    differences: Sequence[MetricDifference],
    primary: str,
    reasons: Sequence[str],
) -> str:
    """The decision in one plain sentence."""
    if outcome == "promoted":
        better = [NAMES[d.baseline] for d in differences if d.rule == "superiority"]
        held = sum(d.rule == "non_inferiority" for d in differences)
        others = f", and {held} other comparisons stayed within their margins" if held else ""
        claim = f"is shown to be better than {_joined(better)}" if better else "is not worse"
        return f"The candidate {claim} on {primary}{others}."
    decisive = "failed" if outcome == "blocked" else "inconclusive"
    found = [d for d in differences if d.verdict == decisive]
    if not found:
        return f"The candidate is held back: {reasons[-1]}"
    claims = [_claim(d, decisive) for d in found]
    return f"The candidate {_joined(claims)}."


def confirmation(sentence: str, sealed: str, num_sealed: int, *, holds: bool) -> str:
    """The sentence of the open rows, and what the sealed ones say to it."""
    rows = f"{num_sealed:,} sealed rows"
    if holds:
        return f"{sentence} The {rows} confirm it."
    return f"On {rows} the gain is not confirmed: {sealed} On the open rows: {sentence}"


def _claim(d: MetricDifference, verdict: str) -> str:
    name = NAMES[d.baseline]
    if verdict == "failed":
        return f"is worse than {name} on {d.metric} ({d.difference:+.3f})"
    shown = "be better than" if d.rule == "superiority" else "be no worse than"
    return f"is not shown to {shown} {name} on {d.metric} ({d.difference:+.3f})"


def _joined(words: Sequence[str]) -> str:
    words = list(dict.fromkeys(words))
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
