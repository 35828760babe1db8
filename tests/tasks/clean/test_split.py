"""Splits by the hash of the group: nothing moves from one week to the next."""

from collections import Counter
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from tasks.clean.config import SplitConfig
from tasks.clean.split import eldest, split_of, splits_of

HOLDOUT = SplitConfig(production_holdout=0.2)
groups = st.text(st.characters(exclude_categories=["Cs"]))


@given(groups, st.floats(0.05, 0.45))
def test_a_larger_train_share_takes_no_row_out_of_train(group: str, share: float) -> None:
    small = SplitConfig(train=share, validation=0.5, test=0.5 - share)
    large = SplitConfig(train=share + 0.05, validation=0.45, test=0.5 - share)
    assert split_of(group, small) != "train" or split_of(group, large) == "train"


def test_the_shares_are_about_right() -> None:
    counts = Counter(split_of(f"customer-{n}", SplitConfig()) for n in range(10_000))
    assert abs(counts["train"] - 8000) < 160
    assert abs(counts["validation"] - 1000) < 120
    assert abs(counts["test"] - 1000) < 120


def test_only_production_groups_are_held_out_and_the_rest_stays_where_it_was() -> None:
    names = [f"customer-{n}" for n in range(5_000)]
    live = [split_of(name, HOLDOUT, is_production=True) for name in names]
    assert abs(live.count("holdout") - 1000) < 120
    for name, split in zip(names, live, strict=True):
        assert split in ("holdout", split_of(name, SplitConfig()))
        assert split_of(name, HOLDOUT) == split_of(name, SplitConfig())


def test_a_group_with_one_production_row_is_held_out_whole() -> None:
    names = [f"customer-{n}" for n in range(200)] * 2
    sources = ["human"] * 200 + ["production"] * 200
    splits = splits_of(pa.array(names), pa.array(sources), HOLDOUT).to_pylist()
    assert splits[:200] == splits[200:]
    assert "holdout" in splits


rows = st.lists(
    st.tuples(groups, st.sampled_from(["human", "production", "synthetic"])), max_size=30
)


@given(rows, rows)
def test_what_was_held_out_is_never_trained_on_later(
    now: list[tuple[str, str]], later: list[tuple[str, str]]
) -> None:
    def splits(read: list[tuple[str, str]]) -> dict[str, str]:
        names, sources = [g for g, _ in read], [s for _, s in read]
        found = splits_of(pa.array(names, pa.string()), pa.array(sources, pa.string()), HOLDOUT)
        return dict(zip(names, found.to_pylist(), strict=True))

    before, after = splits(now), splits([*later, *now])
    for group, split in before.items():
        # A group that gets its first production row may still be held out; nothing comes back.
        assert after[group] in (split, "holdout")


def test_the_eldest_of_a_cluster_is_dated_and_the_first() -> None:
    day = datetime(2026, 1, 1, tzinfo=UTC)
    created = pa.array([None, day + timedelta(2), day, None], pa.timestamp("us", tz="UTC"))
    cluster = np.array([0, 0, 0, 3])
    assert eldest(cluster, created, pa.array(["a", "b", "c", "d"])).tolist() == [2, 2, 2, 3]


@given(st.permutations(range(6)))
def test_undated_rows_settle_it_by_their_groups_whatever_their_order(order: list[int]) -> None:
    names = [f"group-{n}" for n in order]
    undated = pa.nulls(6, pa.timestamp("us", tz="UTC"))
    chosen = eldest(np.zeros(6, dtype=np.int64), undated, pa.array(names))
    assert len(set(chosen.tolist())) == 1
    alone = eldest(np.zeros(6, dtype=np.int64), undated, pa.array([f"group-{n}" for n in range(6)]))
    assert names[chosen[0]] == f"group-{alone[0]}"
