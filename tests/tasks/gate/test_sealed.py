"""What the sealed rows say to a decision to promote."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.evidence import GateDecision
from tasks.gate.decide import Verdict, decide
from tasks.gate.sealed import held_against, on_sealed_rows
from tests.tasks.gate.contestants import BETTER, contestant, held, metric, right, settings

CONFIG = settings(held("length", 0.1), BETTER | {"against": "base_few_shot"}, min_n=10)


def verdict(ours: int, theirs: int, n: int, *, sealed: bool) -> Verdict:
    config = CONFIG.on_sealed if sealed else CONFIG
    assert config is not None
    length = metric("length", np.ones(n))
    contestants = {
        "candidate": contestant(right(ours, n), length),
        "base": contestant(right(theirs, n), length, digest=None),
        "base_few_shot": contestant(right(theirs, n), length, digest=None),
    }
    return decide(contestants, config)  # type: ignore[arg-type]


def decision(on_open: Verdict) -> GateDecision:
    return GateDecision(
        uri="u",
        digest="d",
        outcome=on_open.outcome,
        sentence=on_open.sentence,
        reasons=[*on_open.reasons, "What is no rule's."],
        differences=on_open.differences,
        baseline="base",
        baseline_adapter_digest=None,
        adapter_digest="c" * 64,
    )


def confirmed(ours: int, theirs: int, n: int = 40) -> GateDecision:
    on_open = decision(verdict(150, 100, 200, sealed=False))
    assert on_open.promotes
    on_sealed = on_sealed_rows(verdict(ours, theirs, n, sealed=True))
    return on_open.model_copy(update=held_against(on_open, on_sealed, n))


def test_only_gains_are_asked_for_once_more() -> None:
    rules = CONFIG.on_sealed
    assert rules is not None
    assert {(r.metric, r.kind) for r in rules.rules} == {("primary", "superiority")}
    assert rules.confidence == CONFIG.sealed_confidence


def test_without_a_claim_of_a_gain_nothing_is_opened() -> None:
    assert CONFIG.model_copy(update={"rules": CONFIG.rules[1:2]}).on_sealed is None


def test_a_gain_on_the_sealed_rows_confirms_the_promotion() -> None:
    found = confirmed(30, 20)
    assert found.promotes
    assert found.sentence.endswith("The 40 sealed rows confirm it.")
    assert found.settling == []
    assert [d.rows for d in found.differences] == ["open"] * 3 + ["sealed"] * 2


def test_a_gain_that_the_sealed_rows_do_not_show_is_not_promoted() -> None:
    found = confirmed(20, 20)
    assert found.outcome == "inconclusive"
    assert found.sentence.startswith(
        "On 40 sealed rows the gain is not confirmed: The candidate is not shown to be better"
    )
    assert any("on the sealed rows: all 40 answers score alike" in text for text in found.settling)


def test_a_loss_on_the_sealed_rows_blocks() -> None:
    found = confirmed(10, 20)
    assert found.outcome == "blocked"
    assert "is worse than the base model" in found.sentence


def test_reasons_stand_in_the_order_of_the_differences_and_what_is_no_rules_last() -> None:
    found = confirmed(30, 20)
    for difference, reason in zip(found.differences, found.reasons, strict=False):
        assert reason.startswith(difference.metric)
        assert ("on the sealed rows" in reason) == (difference.rows == "sealed")
    assert found.reasons[-1] == "What is no rule's."
    assert len(found.reasons) == len(found.differences) + 1


def test_too_few_sealed_rows_confirm_nothing() -> None:
    found = confirmed(9, 0, n=9)
    assert found.outcome == "inconclusive"
    assert "fewer than 10 answers" in " ".join(found.reasons)


@pytest.mark.parametrize("num_tries", [1, 20])
def test_sealed_rows_stop_most_candidates_that_only_chance_favours(num_tries: int) -> None:
    """The best of many equally good models, chosen by the open rows, as weeks of tries choose it.

    One try in 40 passes the open rows by chance; of twenty the best does far more often, and the
    sealed rows, by which nobody chose, let at most one in five of these through.
    """
    rng = np.random.default_rng(5)
    rules = settings(min_n=10)
    sealed_rules = rules.on_sealed
    assert sealed_rules is not None
    passed_open = passed_both = 0
    for _ in range(300):
        serving = (rng.random(260) < 0.7).astype(float)
        tries = (rng.random((num_tries, 260)) < 0.7).astype(float)
        best = tries[np.argmax(tries[:, :200].mean(axis=1))]
        outcomes = []
        for rows, config in ((slice(0, 200), rules), (slice(200, 260), sealed_rules)):
            ours, theirs = (
                metric("exact_match", answers[rows], reducer="proportion")
                for answers in (best, serving)
            )
            contestants = {
                "candidate": contestant(ours),
                "base": contestant(theirs, digest=None),
            }
            outcomes.append(decide(contestants, config).outcome)  # type: ignore[arg-type]
        passed_open += outcomes[0] == "promoted"
        passed_both += outcomes == ["promoted", "promoted"]
    if num_tries == 1:
        assert passed_open <= 0.05 * 300
    else:
        assert passed_open >= 0.15 * 300
    assert passed_both <= max(0.25 * passed_open, 0.02 * 300)
