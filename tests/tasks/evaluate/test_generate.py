"""Greedy answers: the same in any batch, in the rows' order, with what they cost."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tasks.artifacts import BaseModelRef, TaskConfig
from tasks.base_model import BaseModelConfig, load_model, load_tokenizer, pin
from tasks.evaluate.config import DecodingConfig, EvaluateConfig
from tasks.evaluate.generate import generate
from tasks.evaluate.known import KnownAnswers
from tasks.evaluate.scoring import LATENCY, score, summarise
from tasks.example import Example, Message
from tasks.generation import continue_greedily
from tasks.objects import LocalStore, open_store
from tasks.train.finetune import save_adapter

PROMPTS = ["one", "two words", "a prompt of quite a few more words than the others", "four"]
EXAMPLES = [
    Example(str(i), (Message("user", p), Message("assistant", "yes")), "human", str(i))
    for i, p in enumerate(PROMPTS)
]
DECODING = DecodingConfig(max_new_tokens=5, batch_size=2, dtype="float32", latency_samples=0)


@pytest.fixture
def base(tiny_model: Path) -> BaseModelRef:
    return pin(BaseModelConfig(id=str(tiny_model)))


@pytest.fixture
def new(tmp_path: Path) -> Callable[[], KnownAnswers]:
    """Answers of which none is known yet, each time others."""
    store, numbers = LocalStore(tmp_path / "known"), itertools.count()
    return lambda: KnownAnswers(store, next(numbers))


def test_answers_do_not_depend_on_the_batch(
    base: BaseModelRef, new: Callable[[], KnownAnswers]
) -> None:
    taken = []
    for batch_size in (1, 2, 4):
        config = DECODING.model_copy(update={"batch_size": batch_size})
        answers, _ = generate(EXAMPLES, base, None, config, new())
        taken.append([(a.id, a.prompt, a.answer, a.num_tokens) for a in answers])
    assert taken[0] == taken[1] == taken[2]
    assert [prompt for _, prompt, _, _ in taken[0]] == PROMPTS


def test_the_prompt_is_the_templates_own(
    base: BaseModelRef, new: Callable[[], KnownAnswers]
) -> None:
    """What `generate` continues is what transformers continues for the same messages."""
    tokenizer, model = load_tokenizer(base), load_model(base, torch.float32)
    messages = [{"role": "user", "content": PROMPTS[0]}]
    ids = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    expected = model.generate(**ids, max_new_tokens=5, do_sample=False)[
        0, ids["input_ids"].shape[1] :
    ]
    answers, _ = generate(EXAMPLES[:1], base, None, DECODING, new())
    assert answers[0].answer == tokenizer.decode(expected, skip_special_tokens=True)


def test_an_adapter_changes_the_answers(
    base: BaseModelRef, tmp_path: Path, new: Callable[[], KnownAnswers]
) -> None:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    settings = LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    save_adapter(get_peft_model(load_model(base, torch.float32), settings), base, tmp_path)
    plain, _ = generate(EXAMPLES, base, None, DECODING, new())
    adapted, _ = generate(EXAMPLES, base, tmp_path, DECODING, new())
    assert [a.answer for a in plain] != [a.answer for a in adapted]


def test_length_and_latency_are_told(
    base: BaseModelRef,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    new: Callable[[], KnownAnswers],
) -> None:
    monkeypatch.setenv("RETUNE_STORE", str(tmp_path / "store"))
    config = DECODING.model_copy(update={"latency_samples": 2})
    answers, tokens_per_second = generate(EXAMPLES, base, None, config, new())
    assert tokens_per_second is not None
    assert tokens_per_second > 0
    assert all(a.truncated == (a.num_tokens == 5) for a in answers)
    timed = [a for a in answers if a.latency_ms is not None]
    assert len(timed) == 2
    scores, unmeasured, usd = score(
        answers, EvaluateConfig(decoding=config), TaskConfig(kind="generation"), open_store()
    )
    assert scores[LATENCY].ids == tuple(a.id for a in timed)
    metrics = summarise(scores, EvaluateConfig(resamples=100))
    assert metrics[LATENCY].n == 2
    assert metrics["exact_match"].n == 4
    assert unmeasured == {"judge": "neither ANTHROPIC_API_KEY nor ANTHROPIC_BASE_URL is set"}
    assert usd == 0


def test_what_prompts_begin_with_is_computed_once(
    base: BaseModelRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same answers, with less computed: no prompt's beginning goes through the model twice."""
    model, tokenizer = load_model(base, torch.float32).eval(), load_tokenizer(base)
    system = "You name the intent of what the customer writes, in one word and nothing else."
    prompts = [
        tokenizer.apply_chat_template(
            [{"role": "system", "content": system}, {"role": "user", "content": text}],
            add_generation_prompt=True,
            return_dict=False,
        )
        for text in PROMPTS
    ]
    computed: list[int] = []
    model.register_forward_pre_hook(
        lambda _, args, kwargs: computed.append(kwargs.get("input_ids", args and args[0]).numel()),
        with_kwargs=True,
    )
    stops = {tokenizer.eos_token_id}
    alone = [continue_greedily(model, tokenizer, [p], stops, 5)[0] for p in prompts]
    computed.clear()
    assert continue_greedily(model, tokenizer, prompts, stops, 5) == alone
    shared = next(i for i in range(99) if len({tuple(p[: i + 1]) for p in prompts}) > 1)
    assert shared > 8
    assert computed[0] == shared
    assert computed[1] == len(prompts) * (max(map(len, prompts)) - shared)
