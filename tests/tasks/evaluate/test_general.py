"""What a model can do beside its task: what is asked, how it is measured, what forgetting does."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model

from tasks.artifacts import BaseModelRef, Contestant, ReferenceModel
from tasks.base_model import BaseModelConfig, load_model, load_tokenizer, pin
from tasks.evaluate.answering import score_general
from tasks.evaluate.config import DecodingConfig
from tasks.evaluate.general import (
    ACCURACY,
    LOSS,
    TEXT_LOSS,
    Item,
    collect,
    from_table,
    measure,
    shipped,
    to_table,
)
from tasks.example import GENERAL, Example, Message, normalise
from tasks.gate.config import GateConfig
from tasks.gate.decide import decide
from tasks.gate.rules import ContestantScores
from tasks.scores import MetricScores

DECODING = DecodingConfig(dtype="float32")
SAMPLE = Path(__file__).parents[3] / "deployments/sample/general.jsonl"
ITEMS = [
    Item("i", "instruction", "Name a fruit.", ("An apple.",)),
    Item("p", "passage", "", ("The river flows to the sea.",)),
    Item("q", "question", "What is frozen water called?", ("Ice", "Steam from a hot kettle")),
]


def general(name: str, prompt: str, answer: str = "An answer.") -> Example:
    turns = (Message("user", prompt), Message("assistant", answer))
    return Example(name, turns, "human", name, meta={GENERAL: "yes"})


def test_what_ships_is_sound() -> None:
    items = shipped()
    assert Counter(item.kind for item in items) == {
        "instruction": 40,
        "passage": 16,
        "question": 70,
    }
    assert len({item.id for item in items}) == len(items)
    for item in items:
        assert all(option.strip() for option in item.options)
        assert len(set(item.options)) == len(item.options) == (4 if item.kind == "question" else 1)


def test_the_sample_data_trains_on_none_of_it() -> None:
    prompts = {normalise(json.loads(line)["prompt"]) for line in SAMPLE.read_text().splitlines()}
    assert not prompts & {normalise(item.asked) for item in shipped()}


def test_rows_that_training_saw_are_left_out_and_counted() -> None:
    trained = [general("t", "name  A FRUIT."), general("u", "Something else")]
    suite, num_left_out = collect(ITEMS, [], trained, 10)
    assert [item.id for item in suite] == ["p", "q"]
    assert num_left_out == 1


def test_held_out_general_instructions_join_up_to_the_most() -> None:
    system = Message("system", "Be brief.")
    tools = Example(
        "t", general("t", "x").messages, "human", "t", meta={GENERAL: "yes"}, tools="[]"
    )
    long = Example("l", general("l", "x").messages * 2, "human", "l", meta={GENERAL: "yes"})
    task = Example("k", general("k", "x").messages, "human", "k")
    own = [general("c", "C?"), general("a", "A?"), general("b", "B?"), tools, long, task]
    own[0] = Example("c", (system, *own[0].messages), "human", "c", meta={GENERAL: "yes"})
    suite, _ = collect(ITEMS, own, [], 2)
    assert [(item.id, item.asked) for item in suite[3:]] == [("a", "A?"), ("b", "B?")]
    assert [item.id for item in collect(ITEMS, own, [], 99)[0][3:]] == ["a", "b", "c"]


def test_a_suite_is_stored_whole() -> None:
    assert from_table(to_table(shipped())) == shipped()


@pytest.fixture
def base(tiny_model: Path) -> BaseModelRef:
    return pin(BaseModelConfig(id=str(tiny_model)))


def loss_by_transformers(model: Any, context: list[int], text: list[int]) -> float:
    """Mean nats a token of the text, by the library's own loss."""
    ids = torch.tensor([[*context, *text]])
    labels = torch.tensor([[-100] * len(context) + text])
    with torch.inference_mode():
        return float(model(input_ids=ids, labels=labels).loss)


def test_the_losses_are_those_of_transformers(base: BaseModelRef) -> None:
    model, tokenizer = load_model(base, torch.float32).eval(), load_tokenizer(base)
    scores = measure(model, tokenizer, ITEMS)
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Name a fruit."}], add_generation_prompt=True, tokenize=True
    )["input_ids"]
    answer = tokenizer("An apple.")["input_ids"]
    passage = tokenizer("The river flows to the sea.")["input_ids"]
    assert scores[LOSS].value == pytest.approx(loss_by_transformers(model, asked, answer), abs=1e-5)
    assert scores[TEXT_LOSS].value == pytest.approx(
        loss_by_transformers(model, [], passage), abs=1e-5
    )
    assert [s.ids for s in scores.values()] == [("i",), ("p",), ("q",)]


def test_models_without_weights_here_are_unmeasured(base: BaseModelRef, tmp_path: Path) -> None:
    reference = Contestant(
        role="reference",
        base_model=None,
        reference=ReferenceModel(api="openai", model="m"),
    )
    candidate = Contestant(role="candidate", base_model=base, adapter_digest="a" * 64)
    (tmp_path / "hosted.json").write_text(
        json.dumps(
            {
                "model_id": "ft:m",
                "job_id": "j",
                "base_model": "m",
                "base_url": None,
                "trained_tokens": None,
                "cost_usd": None,
            }
        )
    )
    for contestant, folder in ((reference, None), (candidate, tmp_path)):
        scores, why = score_general(ITEMS, contestant, folder, DECODING)
        assert (scores, why) == (
            {},
            "a model behind an API does not say how likely it finds a text",
        )
    assert score_general([], candidate, None, DECODING) == (
        {},
        "switched off in evaluate.general.enabled",
    )


@pytest.mark.slow
def test_a_candidate_that_forgets_is_blocked_for_that_reason(smol: Path) -> None:
    """The real model, trained for a few steps to say one thing whatever it is asked."""
    base = pin(BaseModelConfig(id=str(smol)))
    model, tokenizer = load_model(base, torch.float32).eval(), load_tokenizer(base)
    items = shipped()
    before = measure(model, tokenizer, items)
    assert before[ACCURACY].value > 0.5  # chance is a quarter: the questions do measure something

    adapted = get_peft_model(model, LoraConfig(r=8, target_modules=["q_proj", "v_proj"]))
    texts = [f"{word} refund refund refund refund refund" for word in ("Order", "My", "Please")]
    batch = tokenizer(texts, return_tensors="pt", padding=True)
    optimiser = torch.optim.AdamW(adapted.parameters(), lr=5e-3)
    for _ in range(12):
        optimiser.zero_grad()
        adapted(**batch, labels=batch["input_ids"]).loss.backward()
        optimiser.step()
    after = measure(adapted.eval(), tokenizer, items)
    adapted.eval()

    verdict = decide(
        {
            "base": scores("base", None, before, right=10),
            "base_few_shot": scores("base_few_shot", None, before, right=20),
            "candidate": scores("candidate", "c" * 64, after, right=150),
        },
        GateConfig(),
    )
    assert verdict.outcome == "blocked"
    failed = [d for d in verdict.differences if d.verdict == "failed"]
    assert {d.metric for d in failed} <= {LOSS, TEXT_LOSS}
    assert LOSS in {d.metric for d in failed}
    assert "is worse than the base model on general_loss" in verdict.sentence


def scores(
    role: Any, digest: str | None, beside: dict[str, MetricScores], *, right: int
) -> ContestantScores:
    """A contestant that answers ``right`` of 200 golden rows, and does ``beside`` them."""
    ids = tuple(f"row-{i}" for i in range(200))
    values = (np.arange(200) < right).astype(float)[:, None]
    primary = MetricScores("exact_match", "proportion", True, values, ids)
    others = tuple(row for metric in beside.values() for row in metric.ids or ())
    return ContestantScores(
        role,
        digest,
        {"exact_match": primary, **beside},
        ids + others,
        {"judge": "not configured"},
    )
