"""Who is kept of rows that say the same."""

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from tasks.clean.config import DuplicateConfig, SplitConfig
from tasks.clean.duplicates import best_first, cluster_bars, exact_duplicates, with_eldest_split
from tasks.clean.rows import Rows
from tasks.clean.split import splits_of
from tasks.example import to_table
from tests.examples import make_example

RANK = DuplicateConfig().source_rank
EARLY, LATE = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 6, 1, tzinfo=UTC)


def test_source_counts_first_then_completeness_then_age(make_rows: Any) -> None:
    rows = make_rows(
        [
            {"prompt": "a", "source": "synthetic", "answer": "the longest answer of them all"},
            {"prompt": "b", "source": "human", "answer": "short", "created_at": EARLY},
            {"prompt": "c", "source": "human", "answer": "a longer one", "created_at": LATE},
            {"prompt": "d", "source": "human", "answer": "a longer oné"[:12]},
            {"prompt": "e", "source": "production", "created_at": EARLY},
        ]
    )
    assert best_first(rows, RANK).tolist() == [3, 2, 1, 4, 0]
    assert best_first(rows, ("synthetic", "production"))[0] == 0


texts = st.lists(st.sampled_from(["A cat", "a  cat", "a dog", "the end"]), min_size=1, max_size=12)


@given(texts, st.randoms())
def test_exact_duplicates_keep_the_same_row_whatever_the_order(texts: list[str], rng: Any) -> None:
    made = [
        make_example(t, line=n, source=rng.choice(["human", "synthetic"]))
        for n, t in enumerate(texts)
    ]

    def kept(rows: Rows) -> set[str]:
        of = exact_duplicates(rows, best_first(rows, RANK))
        assert (of[of] == of).all()
        return {rows.place(int(i)) for i in np.unique(of)}

    rows = Rows(to_table(made))
    first = kept(rows)
    assert len(first) == len({e.id for e in made})
    assert kept(rows.select(np.array(rng.sample(range(len(made)), len(made))))) == first


def test_no_rows_have_no_duplicates() -> None:
    rows = Rows(to_table([]))
    assert len(exact_duplicates(rows, best_first(rows, RANK))) == 0


def test_what_is_kept_goes_where_the_eldest_copy_is() -> None:
    config = SplitConfig()
    groups = {
        splits_of(pa.array([f"g{n}"]), pa.array(["human"]), config)[0].as_py(): f"g{n}"
        for n in range(200)
    }
    old = make_example("a", group=groups["test"], created_at=EARLY, source="production")
    new = make_example("a", group=groups["train"], created_at=LATE, source="human")
    table = to_table([new, old])
    splits = splits_of(table.column("group").chunk(0), table.column("source").chunk(0), config)
    rows = Rows(table.append_column("split", splits))
    of = exact_duplicates(rows, best_first(rows, RANK))
    assert of.tolist() == [0, 0]  # the human row is kept ...
    assert with_eldest_split(rows, of).column("split").to_pylist() == ["test", "test"]


def test_clusters_are_counted_by_size() -> None:
    assert cluster_bars(np.array([1, 2, 2, 4, 20, 21])) == {
        "2 alike": 2,
        "3 to 5 alike": 1,
        "6 to 20 alike": 1,
        "more than 20 alike": 1,
    }
