"""What was generated before: found again, by the same model alone, and kept through a kill."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tasks.artifacts import BaseModelRef
from tasks.base_model import BaseModelConfig, pin
from tasks.errors import StorageError
from tasks.evaluate import engines
from tasks.evaluate.config import DecodingConfig
from tasks.evaluate.generate import generate
from tasks.evaluate.known import Generated, KnownAnswers, prompt_digest
from tasks.example import Example, Message
from tasks.objects import LocalStore

DECODING = DecodingConfig(max_new_tokens=5, batch_size=2, dtype="float32", latency_samples=0)


def row(number: int, text: str | None = None) -> Example:
    turns = (Message("user", text or f"question {number}"), Message("assistant", "yes"))
    return Example(str(number), turns, "human", str(number))


@pytest.fixture
def base(tiny_model: Path) -> BaseModelRef:
    return pin(BaseModelConfig(id=str(tiny_model)))


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many prompts each call of the engine is given."""
    calls: list[int] = []
    plain = engines.TransformersEngine.continue_all

    def counted(
        self: engines.TransformersEngine, prompts: Sequence[Sequence[int]], done: engines.Done
    ) -> None:
        calls.append(len(prompts))
        plain(self, prompts, done)

    monkeypatch.setattr(engines.TransformersEngine, "continue_all", counted)
    return calls


def test_a_golden_set_that_grows_costs_its_new_rows(
    base: BaseModelRef, store: LocalStore, asked: list[int]
) -> None:
    rows = [row(i) for i in range(5)]
    first, _ = generate(rows[:3], base, None, DECODING, KnownAnswers(store, "m"))
    both, _ = generate(rows, base, None, DECODING, KnownAnswers(store, "m"))
    assert asked == [3, 2]
    assert both[:3] == first
    anew, _ = generate(rows, base, None, DECODING, KnownAnswers(store, "other"))
    assert anew == both


def test_what_is_known_loads_no_model(
    base: BaseModelRef, store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed = DECODING.model_copy(update={"latency_samples": 2})
    first, speed = generate([row(i) for i in range(3)], base, None, timed, KnownAnswers(store, "m"))
    assert speed is not None
    assert sum(a.latency_ms is not None for a in first) == 2

    def refuse(*_: object) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(engines, "load", refuse)
    again, speed = generate([row(i) for i in range(3)], base, None, timed, KnownAnswers(store, "m"))
    assert again == first
    assert speed is None
    with pytest.raises(AssertionError, match="was loaded"):
        generate([row(9)], base, None, timed, KnownAnswers(store, "m"))


def test_a_prompt_that_stands_twice_is_generated_once(
    base: BaseModelRef, store: LocalStore, asked: list[int]
) -> None:
    rows = [row(1, "the same"), row(2, "the same"), row(3)]
    answers, _ = generate(rows, base, None, DECODING, KnownAnswers(store, "m"))
    assert asked == [2]
    assert answers[0].answer == answers[1].answer
    assert [a.id for a in answers] == ["1", "2", "3"]


def test_a_killed_run_goes_on_where_it_was(
    base: BaseModelRef, store: LocalStore, asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [row(i) for i in range(6)]
    plain, count = KnownAnswers.add, 0

    def add(self: KnownAnswers, batch: dict[str, Generated]) -> None:
        nonlocal count
        count += 1
        if count > 2:
            raise KeyboardInterrupt
        plain(self, batch)

    with monkeypatch.context() as patched:
        patched.setattr(KnownAnswers, "add", add)
        with pytest.raises(KeyboardInterrupt):
            generate(rows, base, None, DECODING, KnownAnswers(store, "m"))
    answers, _ = generate(rows, base, None, DECODING, KnownAnswers(store, "m"))
    assert asked == [6, 2]
    whole, _ = generate(rows, base, None, DECODING, KnownAnswers(store, "other"))
    assert answers == whole


def test_the_time_of_an_answer_is_not_lost_to_one_without(store: LocalStore) -> None:
    known, prompt = KnownAnswers(store, "m"), prompt_digest([1, 2])
    known.add({prompt: Generated(ids=[3], latency_ms=7.5)})
    known.add({prompt: Generated(ids=[3]), prompt_digest([4]): Generated(ids=[5])})
    assert known.read()[prompt].latency_ms == 7.5
    assert len(known.read()) == 2


def test_something_else_in_its_place_is_named(store: LocalStore) -> None:
    known = KnownAnswers(store, "m")
    known.add({"d": Generated(ids=[3])})
    (key,) = store.keys_under("generated/")
    store.put_bytes(key, b"[1, 2]")
    with pytest.raises(StorageError, match=rf"{key} holds no generated answers"):
        known.read()
