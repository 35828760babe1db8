"""Gibberish stands out by its letters; short and uniform texts do not."""

import random
import string

import pytest

from tasks.clean.config import GibberishConfig
from tasks.clean.gibberish import gibberish, surprises

SUBJECTS = ("The kettle", "My parcel", "Your invoice", "The router", "Our order")
VERBS = ("arrived late", "does not work", "was never sent", "is much too loud", "looks broken")
ENDS = ("since Monday.", "and I want my money back.", "although I paid.", "in the kitchen.")
SENTENCES = [f"{s} {v} {e}" for s in SUBJECTS for v in VERBS for e in ENDS]


def mashed(seed: int) -> str:
    rng = random.Random(seed)
    return " ".join("".join(rng.choices(string.ascii_lowercase, k=6)) for _ in range(8))


def test_random_letters_stand_out_and_sentences_do_not() -> None:
    mash = [mashed(seed) for seed in range(5)]
    found = gibberish([*SENTENCES, *mash], GibberishConfig())
    assert [i for i, _ in found] == list(range(100, 105))
    assert min(bits for _, bits in found) > max(surprises(SENTENCES))


def test_a_row_does_not_vouch_for_itself() -> None:
    text = mashed(1) * 20
    alone = surprises([*SENTENCES, text])[-1]
    assert alone > 2 * max(surprises(SENTENCES))


def test_several_copies_vouch_for_each_other() -> None:
    """Why duplicates go first: what is said often is not an outlier."""
    once = surprises([*SENTENCES, mashed(1)])[-1]
    twice = surprises([*SENTENCES, mashed(1), mashed(1)])[-1]
    assert twice < once / 2


@pytest.mark.parametrize(
    "texts",
    [
        [],
        [mashed(1)],
        [SENTENCES[0], mashed(1)],
        ["The same sentence again."] * 50,
        [*SENTENCES, "qx zzk"],
    ],
    ids=["none", "one", "two", "alike", "short"],
)
def test_where_there_is_too_little_evidence_nothing_goes(texts: list[str]) -> None:
    assert gibberish(texts, GibberishConfig()) == []


def test_switched_off() -> None:
    assert gibberish([*SENTENCES, mashed(1)], GibberishConfig(enabled=False)) == []
