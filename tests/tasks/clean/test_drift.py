"""Drift: silent on samples of the same data, loud on a real shift, and blind to who wrote what."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.clean.drift import Drift, Profile, compare, drift, profile, read_previous, write_latest
from tasks.clean.rows import Rows
from tasks.example import Example, Message, to_table
from tasks.objects import LocalStore

TOPICS = {
    "billing": "charged twice invoice refund card payment amount wrong statement fee",
    "delivery": "parcel late driver address courier box tracking arrived neighbour shipped",
    "defect": "broken screen noise leaks battery charge crack warranty repair button",
}
COMMON = [f"w{n}" for n in range(300)]


def example(prompt: str, label: str | None = None, source: str = "human") -> Example:
    turns = (Message("user", prompt), Message("assistant", label or "ok"))
    return Example("i", turns, source, "g", label=label)


def rows(
    seed: int,
    count: int,
    topics: Sequence[str] = ("billing", "delivery"),
    sources: Sequence[str] = ("human", "production"),
    words: int = 14,
) -> Rows:
    rng = random.Random(seed)
    made = []
    for _ in range(count):
        topic = rng.choice(topics)
        said = rng.choices(COMMON, k=rng.randrange(3, words)) + rng.choices(
            TOPICS[topic].split(), k=5
        )
        made.append(example(" ".join(said), topic, rng.choice(sources)))
    return Rows(to_table(made))


def verdicts(found: Drift) -> dict[str, str]:
    return {shift.name: shift.verdict for shift in found.shifts}


NONE = dict.fromkeys(("prompt_length", "answer_length", "source", "label", "vocabulary"), "none")


def test_without_a_snapshot_before_there_is_no_drift() -> None:
    found = drift(rows(0, 50), None)
    assert (found.num_before, found.num_now, found.shifts, found.verdict) == (None, 50, (), "none")


@pytest.mark.parametrize("sizes", [(1, 1), (60, 60), (60, 2000), (2000, 2000), (0, 60), (60, 0)])
def test_two_samples_of_the_same_data(sizes: tuple[int, int]) -> None:
    """At most one figure of a hundred may call chance a shift; here none of these does."""
    before, now = (profile(rows(seed, size)) for seed, size in enumerate(sizes, start=1))
    found = compare(before, now)
    assert found.verdict == "none"
    assert set(verdicts(found).values()) <= {"none"}


def test_chance_is_rarely_called_a_shift() -> None:
    profiles = [profile(rows(seed, 60)) for seed in range(30)]
    found: Counter[str] = Counter()
    for before, now in zip(profiles[::2], profiles[1::2], strict=True):
        found.update(shift.verdict for shift in compare(before, now).shifts)
    assert found["none"] >= 0.96 * found.total()


@pytest.mark.parametrize(
    ("name", "now"),
    [
        ("source", rows(2, 500, sources=("human", "synthetic"))),
        ("label", rows(2, 500, topics=("billing", "defect"))),
        ("vocabulary", rows(2, 500, topics=("defect",), words=4)),
        ("prompt_length", rows(2, 500, words=90)),
        ("answer_length", Rows(to_table([example("a b", "x" * 400)] * 500))),
    ],
)
def test_a_real_shift_is_strong(name: str, now: Rows) -> None:
    found = drift(now, profile(rows(1, 500)))
    assert verdicts(found)[name] == "strong"
    assert found.verdict == "strong"


def test_a_moderate_shift_says_what_moved() -> None:
    before = rows(1, 2000, sources=("human", "production"))
    now = rows(2, 2000, sources=("human", "production", "production", "production"))
    shift = next(s for s in drift(now, profile(before)).shifts if s.name == "source")
    assert shift.verdict == "strong"  # 50 -> 25 %: PSI 0.27
    assert 0.2 < shift.value < 0.35
    slight = rows(3, 2000, sources=("human",) * 2 + ("production",) * 3)
    shift = next(s for s in drift(slight, profile(before)).shifts if s.name == "source")
    assert (shift.verdict, shift.value < 0.1) == ("none", True)
    between = rows(4, 2000, sources=("human", "production", "production"))
    shift = next(s for s in drift(between, profile(before)).shifts if s.name == "source")
    assert shift.verdict == "moderate"
    assert "production 5" in shift.detail


def test_the_stability_index_of_a_known_table() -> None:
    """Half and half against a quarter and three quarters: 0.5 ln 3 x 0.5 = 0.2747."""
    made = {
        share: profile(
            Rows(to_table([example("a", source="hub" if n % 4 < share else "human")
                           for n in range(4000)]))
        )
        for share in (2, 1)
    }  # fmt: skip
    shift = next(s for s in compare(made[2], made[1]).shifts if s.name == "source")
    assert shift.value == pytest.approx(0.2747, abs=1e-3)


def test_a_profile_holds_no_text_and_no_rare_value() -> None:
    made = [example(f"I am Henrik Sharma of row {n}", "common") for n in range(4)]
    made += [example("thanks a lot", "common") for _ in range(9)]
    made += [example("x", label) for label in ("Henrik Sharma", "two", "two")]
    text = profile(Rows(to_table(made))).model_dump_json()
    assert "Sharma" not in text
    assert "henrik" not in text.lower()
    found = Profile.model_validate_json(text)
    assert found.labels == {"common": 13, "(other)": 3}
    assert all(count == 0 or count >= 5 for count in found.vocabulary[:-1])
    assert sum(found.prompt_lengths) == found.num_rows == 16


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(max_size=40), max_size=12), st.randoms())
def test_the_order_of_rows_does_not_matter(texts: list[str], rng: random.Random) -> None:
    made = [example(text, text[:1]) for text in texts]
    before = profile(Rows(to_table(made)))
    rng.shuffle(made)
    now = profile(Rows(to_table(made)))
    assert now == before
    assert compare(before, now).verdict == "none"
    assert Profile.model_validate(json.loads(before.model_dump_json())) == before


def test_the_last_profile_of_another_snapshot(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    first, second = profile(rows(1, 40)), profile(rows(2, 50))
    assert read_previous(store, "bot") is None
    write_latest(store, "bot", first, "d1")
    assert read_previous(store, "bot", "d1") is None
    assert read_previous(store, "bot", "d2") == first
    for _ in range(2):  # the same run again compares with the same snapshot
        write_latest(store, "bot", second, "d2")
        assert read_previous(store, "bot", "d2") == first
        assert read_previous(store, "bot") == second
    assert read_previous(store, "other") is None


@pytest.mark.parametrize("body", [b"not json", b"[]", b'[{"data_digest": "a", "profile": {}}]'])
def test_a_pointer_of_another_form_is_left_out(tmp_path: Path, body: bytes) -> None:
    store = LocalStore(tmp_path)
    store.put_bytes("clean/bot/latest-profiles.json", body)
    assert read_previous(store, "bot", "d") is None
    write_latest(store, "bot", profile(rows(1, 10)), "d")
    assert read_previous(store, "bot") is not None
