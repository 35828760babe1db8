"""Lengths that are out of all proportion, and those that only look so."""

import pyarrow as pa
import pytest

from tasks.clean.quality.lengths import length_outliers


def found(texts: list[str], limit: float = 8.0) -> list[int]:
    return [f.index for f in length_outliers(pa.array(texts, pa.large_string()), limit, "r")]


def test_the_far_too_long_and_the_far_too_short_stand_out() -> None:
    usual = ["word " * (80 + i % 40) for i in range(1000)]
    assert found([*usual, "word " * 5000, "w"]) == [1000, 1001]


def test_the_detail_names_the_figures() -> None:
    texts = pa.array([*["x" * 100] * 99, "x" * 9000], pa.large_string())
    (finding,) = length_outliers(texts, 8.0, "answer_length_outlier")
    assert (finding.index, finding.reason) == (99, "answer_length_outlier")
    assert finding.detail.startswith("9000 characters, the median is 100: +14.")
    assert finding.detail.endswith("at most 8 are allowed")


@pytest.mark.parametrize(
    "texts",
    [
        [],
        ["x"] * 48 + ["x" * 10_000],
        ["x" * 100] * 500,
        ["x" * 100] * 500 + ["x" * 300, "x" * 20],
        ["no"] * 500 + ["yes", "not applicable", "unable_to_verify_own_identity"],
        ['{"items": []}'] * 970 + ['{"items": [' + '"a thing", ' * 40 + '"b"]}'] * 30,
        ["word " * (2 ** (i % 9)) for i in range(500)],
        [f'{{"n": {10**i}}}' for i in range(20)] * 10,
        [*["short answer"] * 500, ""],
    ],
    ids=[
        "none",
        "few",
        "equal",
        "hardly unequal",
        "labels",
        "mostly empty lists",
        "all lengths",
        "fixed-size JSON",
        "empty",
    ],
)
def test_nothing_stands_out(texts: list[str]) -> None:
    assert found(texts) == []


def test_characters_count_and_not_bytes() -> None:
    assert found([*["x" * 100] * 100, "漢" * 100]) == []
