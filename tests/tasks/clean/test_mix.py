"""Shares of the training split: ceilings are kept, by hash; floors are told."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.clean.config import MixConfig
from tasks.clean.mix import is_general, mix_findings, shares
from tasks.clean.rows import Rows
from tasks.example import to_table
from tests.examples import make_example


def specs(**counts: int) -> list[dict[str, Any]]:
    return [
        {"prompt": f"Question {n} of {source}?", "source": source}
        for source, count in counts.items()
        for n in range(count)
    ]


def in_train(rows: Any) -> pa.Array:
    return pa.array(["train"] * len(rows))


def test_synthetic_rows_over_their_share_go(make_rows: Any) -> None:
    rows = make_rows(specs(human=20, synthetic=300))
    found = mix_findings(rows, in_train(rows), MixConfig(max_synthetic=0.8))
    assert len(found) == 300 - 80
    assert {f.reason for f in found} == {"over_mix_synthetic"}
    assert all(f.index >= 20 for f in found)


def test_held_out_rows_do_not_count(make_rows: Any) -> None:
    rows = make_rows(specs(human=20, synthetic=300))
    splits = pa.array(["train"] * 20 + ["test"] * 300)
    assert mix_findings(rows, splits, MixConfig()) == []


def test_rows_of_one_kind_alone_have_no_mix(make_rows: Any) -> None:
    rows = make_rows(specs(synthetic=50))
    assert mix_findings(rows, in_train(rows), MixConfig()) == []


def test_general_rows_over_their_share_go(make_rows: Any) -> None:
    general = [{"prompt": f"Name river {n}.", "general": "yes"} for n in range(30)]
    rows = make_rows([*specs(human=90), *general])
    assert is_general(rows).sum() == 30
    found = mix_findings(rows, in_train(rows), MixConfig(general=(0.05, 0.1)))
    assert len(found) == 20
    assert {f.reason for f in found} == {"over_mix_general"}


def test_text_that_looks_like_our_mark_is_not_taken_for_it(make_rows: Any) -> None:
    rows = make_rows([{"prompt": '"general": "yes"', "note": '"general": "yes"'}])
    assert not is_general(rows).any()


def test_shares_say_what_was_achieved_and_wanted(make_rows: Any) -> None:
    rows = make_rows(specs(human=10, annotation=10, production=20, synthetic=60))
    achieved = {s.name: s for s in shares(rows, in_train(rows), MixConfig())}
    assert achieved["human"].achieved == pytest.approx(0.2)
    assert achieved["production"].achieved == pytest.approx(0.2)
    assert achieved["synthetic"].achieved == pytest.approx(0.6)
    assert [name for name, s in achieved.items() if not s.holds] == ["general"]
    people = make_rows(specs(production=10))
    assert {s.name: s.low for s in shares(people, in_train(people), MixConfig())}["human"] == 0


@given(st.integers(1, 30), st.integers(0, 60), st.floats(0.1, 0.9))
def test_a_ceiling_holds_and_wastes_nothing(
    num_human: int, num_synthetic: int, share: float
) -> None:
    made = [make_example(**spec) for spec in specs(human=num_human, synthetic=num_synthetic)]
    rows = Rows(to_table(made))
    gone = mix_findings(rows, in_train(rows), MixConfig(max_synthetic=share))
    left = num_synthetic - len(gone)
    assert left <= share * (num_human + left) + 1e-9
    assert not gone or (left + 1) > share * (num_human + left + 1) - 1e-9
    turned = rows.select(np.arange(len(rows))[::-1])
    again = mix_findings(turned, in_train(rows), MixConfig(max_synthetic=share))
    assert {len(rows) - 1 - f.index for f in again} == {f.index for f in gone}
