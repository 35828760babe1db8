"""Solved examples before a question: which, in what order, and what the model is given of them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoConfig

from tasks.artifacts import Adapter, BaseModelRef, Contestant, ShotSet
from tasks.base_model import BaseModelConfig, pin
from tasks.embeddings import EmbeddingConfig, Vectors, embed
from tasks.evaluate.config import DecodingConfig
from tasks.evaluate.generate import generate
from tasks.evaluate.known import KnownAnswers
from tasks.evaluate.shots import choose, usable, with_examples
from tasks.example import GENERAL, Example, Message
from tasks.objects import LocalStore

DECODING = DecodingConfig(max_new_tokens=5, dtype="float32", latency_samples=0)


def example(
    name: str, prompt: str, answer: str = "yes", *, system: str | None = None, **more: str
) -> Example:
    turns = [Message("user", prompt), Message("assistant", answer)]
    if system:
        turns.insert(0, Message("system", system))
    return Example(name, tuple(turns), "human", name, **more)  # type: ignore[arg-type]


def by_letters(texts: Sequence[str]) -> Vectors:
    """A stand-in for the model: how often each letter occurs, as a unit vector."""
    counts = np.array([[text.count(c) for c in "abcdefgh"] for text in texts], dtype=np.float32)
    return counts / np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1e-9)


def test_the_most_alike_stand_last() -> None:
    pool = [example("far", "hhh"), example("near", "aab"), example("same", "ab")]
    (shots,) = choose([example("q", "ab")], pool, 2, by_letters)
    assert shots.id == "q"
    assert [e.id for e in shots.examples] == ["near", "same"]


def test_meaning_decides_with_the_real_model() -> None:
    pool = [
        example("card", "My bank card was stolen yesterday."),
        example("weather", "It will rain in the mountains tomorrow."),
        example("cake", "Add two eggs to the flour and stir."),
    ]
    asked = [example("q", "Somebody took my debit card, please block it.")]
    (shots,) = choose(asked, pool, 1, lambda texts: embed(texts, EmbeddingConfig()))
    assert [e.id for e in shots.examples] == ["card"]


def test_only_rows_with_the_questions_tools_are_shown() -> None:
    pool = [example("with", "ab", tools="[1]"), example("without", "h")]
    plain, tooled = choose(
        [example("q", "ab"), example("t", "ab", tools="[1]")], pool, 2, by_letters
    )
    assert [e.id for e in plain.examples] == ["without"]
    assert [e.id for e in tooled.examples] == ["with"]


def test_without_a_pool_or_a_wish_there_are_none() -> None:
    asked = [example("q", "ab")]
    assert choose(asked, [], 4, by_letters)[0].examples == ()
    assert choose(asked, [example("a", "ab")], 0, by_letters)[0].examples == ()


def test_the_pool_is_the_tasks_own_rows_and_the_same_every_week() -> None:
    rows = [example(str(i), "ab") for i in range(9)]
    general = Example("0a", rows[0].messages, "hub", "g", meta={GENERAL: "yes"})
    assert usable([general, *rows], 100) == rows
    assert [e.id for e in usable(rows[::-1], 3)] == ["0", "1", "2"]


def test_examples_stand_between_the_system_turn_and_the_question() -> None:
    question = example("q", "Q", system="S")
    asked = with_examples(question, [example("a", "A", "1", system="S"), example("b", "B", "2")])
    turns = [(m.role, m.content) for m in asked.messages]
    assert turns == [
        ("system", "S"),
        ("user", "A"),
        ("assistant", "1"),
        ("user", "B"),
        ("assistant", "2"),
        ("user", "Q"),
        ("assistant", "yes"),
    ]
    assert with_examples(question, []) == question


@pytest.fixture
def base(tiny_model: Path) -> BaseModelRef:
    return pin(BaseModelConfig(id=str(tiny_model)))


@pytest.fixture
def known(tmp_path: Path) -> KnownAnswers:
    return KnownAnswers(LocalStore(tmp_path / "known"), "model")


def test_the_model_is_given_them_and_the_row_stays_itself(
    base: BaseModelRef, known: KnownAnswers
) -> None:
    question = example("q", "what is this")
    shots = [example("a", "something else entirely", "no")]
    alone, _ = generate([question], base, None, DECODING, known)
    shown, _ = generate([question], base, None, DECODING, known, {"q": shots})
    merged, _ = generate([with_examples(question, shots)], base, None, DECODING, known)
    assert shown[0].answer == merged[0].answer
    assert shown[0].answer != alone[0].answer
    assert (shown[0].id, shown[0].prompt, shown[0].reference) == ("q", "what is this", "yes")


def test_what_the_context_has_no_room_for_is_left_out_and_told(
    base: BaseModelRef, caplog: pytest.LogCaptureFixture, known: KnownAnswers
) -> None:
    limit = AutoConfig.from_pretrained(base.id).max_position_embeddings
    long = example("long", "word " * limit)
    near = example("near", "short one", "no")
    question = example("q", "what is this")
    with caplog.at_level(logging.WARNING):
        shown, _ = generate([question], base, None, DECODING, known, {"q": [long, near]})
    wanted, _ = generate([question], base, None, DECODING, known, {"q": [near]})
    assert shown[0].answer == wanted[0].answer
    assert "q: 1 of 2 examples left out" in caplog.text


def test_a_prompt_of_examples_makes_a_contestant_of_its_own(base: BaseModelRef) -> None:
    adapter = Adapter(
        uri="u",
        digest="d",
        base_model=base,
        adapter_digest="c",
        training_run_id="r",
        num_steps=1,
        best_step=1,
        train_loss=1.0,
        validation_loss=1.0,
        tokens_per_second=1.0,
        seconds=1.0,
    )

    def roles(num_examples: int) -> dict[str, Contestant]:
        shots = ShotSet(uri="s", digest="shots", num_examples=num_examples)
        return {c.role: c for c in Contestant.of(base, shots, None, adapter)}

    assert set(roles(0)) == {"base", "candidate"}
    found = roles(4)
    assert list(found) == ["base", "base_few_shot", "candidate"]
    assert found["base"].fingerprint() != found["base_few_shot"].fingerprint()
    assert found["base"].fingerprint() == roles(0)["base"].fingerprint()
