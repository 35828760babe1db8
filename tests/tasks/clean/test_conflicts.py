"""Near-identical prompts: who is a duplicate, who contradicts whom, and who stays."""

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.artifacts import TaskConfig
from tasks.clean.config import ConflictConfig
from tasks.clean.conflicts import Cluster, Resolved, clusters_of, resolve

LABELS = TaskConfig(kind="classification")
TICKETS = TaskConfig(kind="structured")
TEXTS = TaskConfig(kind="generation")
ASK = "Where is my parcel? I have waited for two weeks now."


def settle(
    rows: list[tuple[str, str]],
    task: TaskConfig = LABELS,
    similarities: list[float] | None = None,
    ranks: list[int] | None = None,
    **config: Any,
) -> Resolved:
    """Resolve one cluster of all rows, the first being the kept one."""
    near = similarities or [1.0] * len(rows)
    return resolve(
        [Cluster(tuple(range(len(rows))), tuple(near))],
        pa.array([prompt for prompt, _ in rows], pa.large_string()),
        pa.array([answer for _, answer in rows], pa.large_string()),
        pa.array([f"id-{i}" for i in range(len(rows))]),
        np.array(ranks or [0] * len(rows)),
        ConflictConfig(**config),
        task,
    )


def fates(resolved: Resolved) -> dict[int, str]:
    return {f.index: f.reason for f in resolved.findings}


def test_rows_that_agree_are_duplicates_of_the_best() -> None:
    resolved = settle([(ASK, "delivery"), (ASK + " !", "Delivery "), (ASK + "?", "delivery")])
    assert fates(resolved) == {1: "near_duplicate", 2: "near_duplicate"}
    assert resolved.conflicts == []
    assert "id-0" in resolved.findings[0].detail


def test_majority_keeps_the_answer_of_most_rows() -> None:
    rows = [(ASK, "billing"), (ASK, "delivery"), (ASK, "delivery")]
    resolved = settle(rows, policy="majority")
    assert fates(resolved) == {0: "conflict", 2: "near_duplicate"}
    assert resolved.conflicts[0].stays == 1
    assert resolved.conflicts[0].rows == (0, 1)


def test_of_a_tie_none_stays() -> None:
    resolved = settle([(ASK, "billing"), (ASK, "delivery")], policy="majority")
    assert fates(resolved) == {0: "conflict", 1: "conflict"}
    assert resolved.conflicts[0].stays is None
    assert all("none of which stays" in f.detail for f in resolved.findings)


def test_the_best_source_stays() -> None:
    rows = [(ASK, "billing"), (ASK, "delivery"), (ASK, "delivery")]
    resolved = settle(rows, policy="source_rank", ranks=[0, 2, 2])
    assert resolved.conflicts[0].stays == 0
    assert fates(resolved) == {1: "conflict", 2: "near_duplicate"}
    tied = settle(rows, policy="source_rank", ranks=[1, 1, 2])
    assert tied.conflicts[0].stays is None


@pytest.mark.parametrize(("policy", "gone"), [("drop", {0, 1}), ("keep", set())])
def test_all_or_none_go(policy: str, gone: set[int]) -> None:
    resolved = settle([(ASK, "billing"), (ASK, "delivery")], policy=policy)
    assert fates(resolved).keys() == gone
    assert len(resolved.conflicts) == 1  # for review in either case


def test_prompts_that_only_resemble_each_other_may_differ_in_their_answers() -> None:
    resolved = settle([(ASK, "billing"), (ASK, "delivery")], similarities=[1.0, 0.82])
    assert fates(resolved) == {}
    assert resolved.conflicts == []


def ticket(**fields: object) -> str:
    return json.dumps(fields)


def test_a_difference_that_the_prompts_explain_is_none() -> None:
    first = ("Where is order A-10001?", ticket(category="delivery", order_id="A-10001"))
    second = ("Where is order A-20002?", ticket(category="delivery", order_id="A-20002"))
    assert fates(settle([first, second], TICKETS)) == {}
    third = ("Where is order A-20002?", ticket(category="billing", order_id="A-20002"))
    assert fates(settle([second, third], TICKETS)) == {0: "conflict", 1: "conflict"}


def test_the_same_things_in_another_order_agree() -> None:
    rows = [
        (ASK, json.dumps({"intents": ["deny", "pay"], "slots": {"n": [1, {"b": 1, "a": 2}]}})),
        (ASK, json.dumps({"intents": ["pay", "deny"], "slots": {"n": [{"a": 2, "b": 1}, 1]}})),
        (ASK, json.dumps({"intents": ["pay", "pay", "deny"], "slots": {"n": []}})),
    ]
    assert fates(settle(rows, TICKETS, policy="drop")) == {
        0: "conflict",
        1: "near_duplicate",
        2: "conflict",
    }


def test_a_label_is_never_explained_by_the_prompt() -> None:
    rows = [("Is it a refund or a transfer?", "refund"), ("Is it a transfer?", "transfer")]
    assert set(fates(settle(rows, LABELS)).values()) == {"conflict"}


def test_a_label_of_many_words_is_still_a_label() -> None:
    rows = [(ASK, "card payment has a wrong rate"), (ASK, "cash withdrawal has a wrong rate")]
    assert set(fates(settle(rows, LABELS)).values()) == {"conflict"}


def test_a_summary_may_be_worded_differently() -> None:
    rows = [
        (ASK, ticket(category="delivery", summary="Parcel has not arrived after two weeks")),
        (ASK, ticket(category="delivery", summary="Customer waits for a parcel since long")),
    ]
    assert fates(settle(rows, TICKETS)) == {1: "near_duplicate"}


def test_free_text_agrees_when_it_shares_enough_words() -> None:
    rows = [
        (ASK, "We are sorry, the parcel will arrive tomorrow before noon."),
        (ASK, "Sorry! The parcel will arrive tomorrow before noon."),
        (ASK, "Please return the item and you get your money back."),
    ]
    resolved = settle(rows, TEXTS, agreement=0.6, policy="drop")
    assert fates(resolved) == {0: "conflict", 1: "near_duplicate", 2: "conflict"}


@pytest.mark.parametrize("answer", ["[1, 2]", "{not json", "", '"text"', "[" * 5000])
def test_an_answer_that_is_no_object_is_compared_as_text(answer: str) -> None:
    assert fates(settle([(ASK, answer), (ASK, answer)], TICKETS)) == {1: "near_duplicate"}


@given(st.lists(st.sampled_from(["a", "b", "c"]), min_size=2, max_size=9), st.randoms())
def test_every_row_is_kept_duplicate_or_in_conflict(answers: list[str], rng: Any) -> None:
    policy = rng.choice(["drop", "majority", "source_rank", "keep"])
    ranks = [rng.randrange(3) for _ in answers]
    resolved = settle([(ASK, a) for a in answers], LABELS, ranks=ranks, policy=policy)
    gone = [f.index for f in resolved.findings]
    assert len(gone) == len(set(gone))
    kept = {answers[i] for i in set(range(len(answers))) - set(gone)}
    if policy == "keep":
        assert kept == set(answers)
    else:
        assert len(kept) <= 1
    assert bool(resolved.conflicts) == (len(set(answers)) > 1)


def test_clusters_stand_in_order_with_the_kept_row_first() -> None:
    kept_of = np.array([2, 1, 2, 3, 1, 2])
    similarity = np.array([0.9, 1.0, 1.0, 1.0, 0.85, 0.95])
    order = np.array([2, 5, 0, 1, 3, 4])
    assert clusters_of(kept_of, similarity, order) == [
        Cluster((2, 5, 0), (1.0, 0.95, 0.9)),
        Cluster((1, 4), (1.0, 0.85)),
    ]
    assert clusters_of(np.arange(3), np.ones(3), np.arange(3)) == []
    none = np.array([], dtype=np.int64)
    assert clusters_of(none, np.array([]), none) == []
