"""Token ids and labels: what is trained is what inference will ask for, and where it must stop."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import TemplateError
from tasks.example import Message
from tasks.format.render import IGNORED, Rendered, prompt_ids, render

MakeTokenizer = Callable[..., Any]
CHAT = [
    Message("system", "Be brief."),
    Message("user", "Where is it?"),
    Message("assistant", "On its way."),
    Message("user", "Since when?"),
    Message("assistant", "Since Monday: größer, 😀."),
]
TURN = "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
OPEN = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"


def trained(rendered: Rendered, tokenizer: Any) -> list[str]:
    """The texts of the stretches that the loss is taken of."""
    stretches: list[list[int]] = [[]]
    for label in rendered.labels:
        if label == IGNORED:
            stretches.append([])
        else:
            stretches[-1].append(label)
    return [tokenizer.decode(ids) for ids in stretches if ids]


def test_labels_are_the_answers_with_their_end_of_turn(tokenizer: Any) -> None:
    rendered = render(CHAT, tokenizer)
    assert trained(rendered, tokenizer) == [
        "On its way.<|im_end|>",
        "Since Monday: größer, 😀.<|im_end|>",
    ]
    assert rendered.num_trained == sum(label != IGNORED for label in rendered.labels)
    assert len(rendered.labels) == len(rendered.input_ids)
    assert all(
        label in (IGNORED, token)
        for label, token in zip(rendered.labels, rendered.input_ids, strict=True)
    )


def test_the_line_break_after_the_last_answer_is_not_trained(tokenizer: Any) -> None:
    rendered = render(CHAT, tokenizer)
    assert tokenizer.decode(rendered.input_ids).endswith("<|im_end|>\n")
    assert rendered.labels[-2:] == [tokenizer.eos_token_id, IGNORED]


def test_the_prompt_is_what_inference_sends(tokenizer: Any) -> None:
    rendered = render(CHAT, tokenizer)
    sent = tokenizer.apply_chat_template(
        [{"role": m.role, "content": m.content} for m in CHAT[:-1]],
        add_generation_prompt=True,
        return_dict=False,
    )
    assert prompt_ids(CHAT[:-1], tokenizer) == sent
    last = len(rendered.labels) - rendered.labels[::-1].index(tokenizer.encode(".")[0])
    start = next(i for i in range(last - 1, -1, -1) if rendered.labels[i] == IGNORED) + 1
    assert rendered.input_ids[:start] == sent


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=3))
def test_any_conversation(tokenizer: Any, pairs: list[tuple[str, str]]) -> None:
    messages = [
        Message(role, text)
        for pair in pairs
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]
    rendered = render(messages, tokenizer)
    assert trained(rendered, tokenizer) == [f"{answer}<|im_end|>" for _, answer in pairs]


def test_without_an_answer_nothing_is_trained(tokenizer: Any) -> None:
    assert render(CHAT[:2], tokenizer).num_trained == 0


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (None, "acme/tiny has no chat template"),
        (
            "{% for message in messages %}{% if not loop.last and message.role == 'assistant' %}"
            "{{ '<|im_start|>assistant\n(cut)<|im_end|>\n' }}{% else %}"
            + TURN
            + "{% endif %}{% endfor %}"
            + OPEN,
            r"differ at token \d+, 'On it' against '\(cut\)'",
        ),
        (
            "{% for message in messages %}" + TURN + "{% endfor %}"
            "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>' }}{% endif %}",
            r"differ at token \d+, '<thin' against 'On it'",
        ),
        (
            "{% for message in messages %}{{ '[' + message.role + ']' + message.content }}"
            "{% endfor %}{% if add_generation_prompt %}{{ '[assistant]' }}{% endif %}",
            r"without its end-of-turn token '<\|im_end\|>'.*'On its way\.'",
        ),
        (
            "{{ bos_token + bos_token }}{% for message in messages %}"
            + TURN
            + "{% endfor %}"
            + OPEN,
            "begins with two BOS tokens",
        ),
        (
            "{% if messages[0].role == 'system' %}{{ raise_exception('no system turns') }}"
            "{% endif %}",
            "cannot render the turns system, user, assistant.*no system turns",
        ),
        ("{% for %}", "cannot render"),
    ],
    ids=["missing", "history", "thinking", "endless", "doubled-bos", "refusing", "broken"],
)
def test_templates_that_cannot_be_trained_on(
    with_template: MakeTokenizer, template: str | None, words: str
) -> None:
    with pytest.raises(TemplateError, match=words):
        render(CHAT, with_template(template))


def test_the_default_base_model(smol: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smol)
    rendered = render(CHAT, tokenizer)
    assert trained(rendered, tokenizer) == [
        "On its way.<|im_end|>",
        "Since Monday: größer, 😀.<|im_end|>",
    ]
    assert rendered.labels[-1] == IGNORED
