"""Proposals: spread over the strata, unlike each other, the same whatever the order of the rows."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from tasks.example import Example, Message, content_id
from tasks.golden.config import ProposalConfig
from tasks.golden.propose import Proposed, Stratum, allocate, propose

WORDS = [f"word{n}" for n in range(80)]


def embed(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """Bags of words as unit vectors: near when they share words."""
    vectors = np.zeros((len(texts), len(WORDS) + 1), dtype=np.float32)
    for at, text in enumerate(texts):
        for word in text.split():
            vectors[at, WORDS.index(word) if word in WORDS else -1] += 1
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def example(
    prompt: str, group: str | None = None, source: str = "human", answer: str = "yes"
) -> Example:
    turns = (Message("user", prompt), Message("assistant", answer))
    return Example(content_id(turns), turns, source, group or content_id(turns))


def some_rows(count: int, seed: int = 0) -> tuple[list[Example], list[str | None]]:
    rng = random.Random(seed)
    rows = [
        example(
            " ".join(rng.choices(WORDS, k=rng.randrange(2, 30))),
            source=rng.choice(("human", "production", "synthetic")),
        )
        for _ in range(count)
    ]
    return rows, [rng.choice(("rare", *["common"] * 9)) for _ in rows]


def prompts(proposed: Sequence[Proposed]) -> list[str]:
    return [p.example.prompt for p in proposed]


def test_strata_are_covered_and_rare_labels_more_than_by_share() -> None:
    rows, labels = some_rows(900)
    proposed = propose(rows, labels, ProposalConfig(num_rows=120, cosine=0.95), embed)
    assert len(proposed) == 120
    strata = Counter(p.stratum for p in proposed)
    assert len(strata) == 2 * 2 * 3  # label x allowed source x length
    rare = sum(n for stratum, n in strata.items() if stratum.label == "rare")
    assert 120 * 0.1 < rare < 120 * 0.5
    assert {stratum.source for stratum in strata} == {"human", "production"}


def test_no_two_rows_are_alike_or_of_one_group() -> None:
    rows, labels = some_rows(300)
    rows = [example(e.prompt, f"g{n % 100}", e.source) for n, e in enumerate(rows)]
    rows += [example(f"{e.prompt} {e.prompt}", source="human") for e in rows[:50]]
    config = ProposalConfig(num_rows=90, cosine=0.8, max_share=1)
    proposed = propose(rows, [*labels, *labels[:50]], config, embed)
    assert len({p.example.group for p in proposed}) == len(proposed) >= 60
    vectors = embed(prompts(proposed))
    assert (vectors @ vectors.T - 2 * np.eye(len(proposed))).max() < 0.8


def test_the_order_of_the_rows_does_not_matter() -> None:
    rows, labels = some_rows(200)
    config = ProposalConfig(num_rows=30)
    expected = prompts(propose(rows, labels, config, embed))
    for seed in range(3):
        order = random.Random(seed).sample(range(200), 200)
        shuffled = propose([rows[i] for i in order], [labels[i] for i in order], config, embed)
        assert prompts(shuffled) == expected


def test_the_typical_row_is_chosen_and_not_the_oddest() -> None:
    """Nine near word0 and one that nobody is like: of these, farthest-point would take the odd."""
    rows = [example(f"word0 word0 word0 word{n}") for n in range(1, 10)] + [example("word70 x y z")]
    config = ProposalConfig(num_rows=1, max_share=1, candidates_per_row=100)
    (chosen,) = propose(rows, [None] * 10, config, embed)
    assert "word0" in chosen.example.prompt


def test_rows_that_cannot_decide_are_left_out() -> None:
    last_user = (Message("user", "word7 word8"), Message("user", "word9"))
    rows = [
        example("word1", source="synthetic"),
        example("  "),
        example("word2", answer=" "),
        Example("i", last_user, "human", "i"),
        Example("j", (), "human", "j"),
        example("word3"),
        example("WORD3 ", group="other"),  # the same prompt once more
    ]
    proposed = propose(rows, [None] * 7, ProposalConfig(max_share=1), embed)
    assert [p.lower().strip() for p in prompts(proposed)] == ["word3"]


def test_most_rows_stay_for_training() -> None:
    rows, labels = some_rows(100)
    assert len(propose(rows, labels, ProposalConfig(num_rows=300), embed)) <= 20
    assert propose([], [], ProposalConfig(), embed) == []


sizes = st.dictionaries(
    st.text(max_size=2).map(lambda label: Stratum(label, "human", "short")), st.integers(1, 60)
)


@given(sizes, st.integers(0, 200))
def test_allocation(counts: dict[Stratum, int], wanted: int) -> None:
    quotas = allocate(counts, wanted)
    assert sum(quotas.values()) == min(wanted, sum(counts.values()))
    assert all(0 <= quotas[s] <= counts[s] for s in counts)
    for large in counts:
        for small in counts:
            if counts[large] > counts[small]:
                assert quotas[large] >= quotas[small]
