"""Answers that go round in circles, and data that repeats itself by nature."""

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.clean.quality.repetition import repeated_shares, repetition

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
CIRCLES = {
    "sentence": "I am happy to help you. " * 12,
    "without end": "The kettle is red. It is on the table and the " + "table and the " * 40,
    "lines": "I am happy to help you with that.\n" * 12,
    "numbered lines": "\n".join(f"{i}. I am happy to help you with that." for i in range(12)),
    "paragraph": "\n\n".join(["Open the lid, fill in water and press the red button at once."] * 8),
    "json": json.dumps({"n": 1, "summary": "The customer wants a refund now. " * 10}),
    "chinese": "我很高兴为您服务。" * 12,
    "upper and lower case": "I am HAPPY to help. i am happy to help! " * 10,
}
DATA = {
    "prose": "The kettle that you ordered on Monday left our warehouse today. It should arrive "
    "within two working days; if it does not, write to us and we send another one at once.",
    "short": "yes yes yes yes yes yes yes yes yes yes",
    "refrain": "We tried to deliver your parcel on Monday. We tried to deliver your parcel on "
    "Friday. Please pick it up at the shop in the station before the end of next week.",
    "json list": json.dumps(
        [{"name": d, "unit": "pcs", "state": "in stock", "tax": "full rate"} for d in DAYS * 3]
    ),
    "json array": json.dumps([0] * 200),
    "json of words": json.dumps(["yes", "no"] * 50),
    "table": "| Day | Hours | Note |\n|---|---|---|\n"
    + "\n".join(f"| {d} | from nine to five | closed on public holidays |" for d in DAYS),
    "csv": "day,open,closed\n"
    + "\n".join(f"{i},{d},yes,no,yes,no" for i, d in enumerate(DAYS * 5)),
    "statements": "\n".join(f"MOVE IT ON to ({i}, '{d}');" for i, d in enumerate(DAYS)),
    "figures": "0.1 0.2 0.3 " * 50,
    "chinese": "您好，您订购的水壶今天已经从仓库发出，预计两个工作日内送达；如果没有收到，请写信给"
    "我们，我们会立即补发一个新的水壶给您，并承担全部运费。",
}


def texts(values: list[str]) -> pa.Array:
    return pa.array(values, pa.large_string())


@pytest.mark.parametrize("answer", CIRCLES.values(), ids=CIRCLES)
def test_circles_are_found(answer: str) -> None:
    (finding,) = repetition(texts(["Yes.", answer]), 0.5)
    assert (finding.index, finding.reason) == (1, "repeated_ngrams")
    assert finding.detail.endswith("at most 50% are allowed")


@pytest.mark.parametrize("answer", DATA.values(), ids=DATA)
def test_data_and_prose_stay(answer: str) -> None:
    assert repetition(texts([answer]), 0.5) == []


def test_all_at_once_give_the_same_as_each_alone() -> None:
    answers = [*CIRCLES.values(), *DATA.values()]
    found = [f.index for f in repetition(texts(answers), 0.5)]
    assert found == list(range(len(CIRCLES)))


def test_a_share_of_one_allows_all() -> None:
    assert repetition(texts(list(CIRCLES.values())), 1.0) == []


def share_by_definition(text: str) -> float:
    parts = ("".join(c for c in part if c.isalnum()).lower() for part in text.split())
    words = [part for part in parts if any(c.isalpha() for c in part)]
    if len(words) < 20:
        return 0.0
    seen: set[tuple[str, ...]] = set()
    covered: set[int] = set()
    for i in range(len(words) - 3):
        gram = tuple(words[i : i + 4])
        if gram in seen:
            covered |= set(range(i, i + 4))
        seen.add(gram)
    return len(covered) / len(words)


_WORD = st.sampled_from(["a", "bb", "c1", "22", "d,", "e-f", "G", "é", "\n", "\u00a0", "—"])


@settings(deadline=None)
@given(st.lists(st.lists(_WORD, max_size=60), max_size=4))
def test_the_kernel_equals_the_definition(values: list[list[str]]) -> None:
    answers = [" ".join(words) for words in values]
    expected = [share_by_definition(answer) for answer in answers]
    np.testing.assert_allclose(repeated_shares(texts(answers)), expected, rtol=1e-12)
