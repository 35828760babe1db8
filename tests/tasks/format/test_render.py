"""Token ids and labels: what is trained is what inference will ask for, and where it must stop."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import TemplateError
from tasks.example import Message
from tasks.format.render import IGNORED, Refusal, Rendered, prompt_ids, render
from tasks.format.template import Conversation, Template
from tests.tasks.format.conftest import FAMILIES, family, make_template

CHAT = [
    Message("system", "Be brief."),
    Message("user", "Where is it?"),
    Message("assistant", "On its way."),
    Message("user", "Since when?"),
    Message("assistant", "Since Monday: größer, 😀."),
]
TURN = "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
OPEN = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"


def rows(messages: list[Message], template: Template, **options: Any) -> list[Rendered] | Refusal:
    [found] = render([Conversation.of(messages)], template, **options)
    return found


def row(messages: list[Message], template: Template) -> Rendered:
    found = rows(messages, template)
    assert not isinstance(found, Refusal), found
    [one] = found
    return one


def trained(rendered: Rendered, template: Template) -> list[str]:
    """The texts of the stretches that the loss is taken of."""
    stretches: list[list[int]] = [[]]
    for label in rendered.labels:
        if label == IGNORED:
            stretches.append([])
        else:
            stretches[-1].append(label)
    return [template.tokenizer.decode(ids) for ids in stretches if ids]


def test_labels_are_the_answers_with_their_end_of_turn(template: Template) -> None:
    rendered = row(CHAT, template)
    assert trained(rendered, template) == [
        "On its way.<|im_end|>",
        "Since Monday: größer, 😀.<|im_end|>",
    ]
    assert rendered.num_trained == sum(label != IGNORED for label in rendered.labels)
    assert len(rendered.labels) == len(rendered.input_ids)
    assert all(
        label in (IGNORED, token)
        for label, token in zip(rendered.labels, rendered.input_ids, strict=True)
    )


def test_the_line_break_after_the_last_answer_is_not_trained(template: Template) -> None:
    rendered = row(CHAT, template)
    assert template.tokenizer.decode(rendered.input_ids).endswith("<|im_end|>\n")
    assert rendered.labels[-2:] == [template.tokenizer.eos_token_id, IGNORED]


def test_the_prompt_is_what_inference_sends(template: Template) -> None:
    rendered = row(CHAT, template)
    sent = template.tokenizer.apply_chat_template(
        [{"role": m.role, "content": m.content} for m in CHAT[:-1]],
        add_generation_prompt=True,
        return_dict=False,
    )
    assert prompt_ids(CHAT[:-1], template.tokenizer) == sent
    last = len(rendered.labels) - 1
    while rendered.labels[last] == IGNORED:
        last -= 1
    start = next(i for i in range(last, -1, -1) if rendered.labels[i] == IGNORED) + 1
    assert rendered.input_ids[:start] == sent


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=3))
def test_any_conversation(template: Template, pairs: list[tuple[str, str]]) -> None:
    messages = [
        Message(role, text)
        for pair in pairs
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]
    rendered = row(messages, template)
    assert trained(rendered, template) == [f"{answer}<|im_end|>" for _, answer in pairs]


def test_without_an_answer_nothing_is_trained(template: Template) -> None:
    refused = rows(CHAT[:2], template)
    assert isinstance(refused, Refusal)
    assert refused.reason == "nothing_to_train"


def test_of_several_each_has_its_own(template: Template) -> None:
    found = render(
        [Conversation.of(CHAT[1:3]), Conversation.of(CHAT[:2]), Conversation.of(CHAT)], template
    )
    assert [isinstance(one, Refusal) for one in found] == [False, True, False]
    first, _, last = found
    assert not isinstance(first, Refusal)
    assert not isinstance(last, Refusal)
    assert trained(first[0], template) == ["On its way.<|im_end|>"]
    assert len(trained(last[0], template)) == 2


# ------------------------------------------------------------------------- templates that are wrong


@pytest.mark.parametrize(
    ("wrong", "reason", "words"),
    [
        (
            "{% for message in messages %}" + TURN + "{% endfor %}"
            "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>' }}{% endif %}",
            "prompt_differs",
            "differ at token",
        ),
        (
            "{% for message in messages %}{{ '[' + message.role + ']' + message.content }}"
            "{% endfor %}{% if add_generation_prompt %}{{ '[assistant]' }}{% endif %}",
            "end_not_trained",
            "without an end-of-turn token ('<|im_end|>')",
        ),
        (
            "{{ bos_token + bos_token }}{% for message in messages %}"
            + TURN
            + "{% endfor %}"
            + OPEN,
            "doubled_bos",
            "begins with two BOS tokens",
        ),
        (
            "{% for message in messages %}{% if message.role != 'system' %}"
            + TURN
            + "{% endif %}{% endfor %}"
            + OPEN,
            "dropped_turn",
            "leaves out the text of turn 1 (system), 'Be brief.'",
        ),
        (
            "{% for message in messages %}{% set message = "
            "{'role': message.role, 'content': message.content[:12]} %}"
            + TURN
            + "{% endfor %}"
            + OPEN,
            "dropped_turn",
            "(assistant), 'Since Monday",
        ),
    ],
    ids=["thinking", "endless", "doubled-bos", "no-system", "cut"],
)
def test_rows_that_a_template_spoils(wrong: str, reason: str, words: str) -> None:
    refused = rows(CHAT, make_template(wrong))
    assert isinstance(refused, Refusal)
    assert refused.reason == reason
    assert words in refused.detail


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (None, "acme/tiny has no chat template"),
        (
            "{% if messages[0].role == 'system' %}{{ raise_exception('no system turns') }}"
            "{% endif %}",
            "cannot render the turns system, user: no system turns.*task.system_prompt",
        ),
        ("{% for %}", "cannot render"),
    ],
    ids=["missing", "refusing", "broken"],
)
def test_templates_that_cannot_render(wrong: str | None, words: str) -> None:
    with pytest.raises(TemplateError, match=words):
        rows(CHAT, make_template(wrong))


RETELLING = (
    "{% for message in messages %}{% if not loop.last and message.role == 'assistant' %}"
    "{{ '<|im_start|>assistant\n' + message.content + ' (told)<|im_end|>\n' }}{% else %}"
    + TURN
    + "{% endif %}{% endfor %}"
    + OPEN
)


def test_where_history_is_told_otherwise_each_answer_is_a_row() -> None:
    template = make_template(RETELLING)
    found = rows(CHAT, template)
    assert not isinstance(found, Refusal)
    assert [trained(one, template) for one in found] == [
        ["On its way.<|im_end|>"],
        ["Since Monday: größer, 😀.<|im_end|>"],
    ]
    assert "On its way. (told)" in template.tokenizer.decode(found[1].input_ids)
    with pytest.raises(TemplateError, match=r"multi_turn is together.*answer 1 of 2 differently"):
        rows(CHAT, template, multi_turn="together")


def test_unrolled_by_choice(template: Template) -> None:
    found = rows(CHAT, template, multi_turn="unroll")
    assert not isinstance(found, Refusal)
    assert [trained(one, template) for one in found] == [
        ["On its way.<|im_end|>"],
        ["Since Monday: größer, 😀.<|im_end|>"],
    ]


# ---------------------------------------------------------------------------------- marks of TRL's


MARKED = (
    "{% for message in messages %}{% if message.role == 'assistant' %}"
    "{{ '<|im_start|>assistant\n' }}{% generation %}{{ message.content + '<|im_end|>' }}"
    "{% endgeneration %}{{ '\n' }}{% else %}" + TURN + "{% endif %}{% endfor %}" + OPEN
)


def test_own_marks_say_what_is_trained() -> None:
    template = make_template(MARKED)
    rendered = row(CHAT, template)
    assert rendered.mask_source == "own marks"
    assert trained(rendered, template) == [
        "On its way.<|im_end|>",
        "Since Monday: größer, 😀.<|im_end|>",
    ]


def test_marks_without_the_end_of_turn_are_refused() -> None:
    wrong = MARKED.replace(
        "{{ message.content + '<|im_end|>' }}{% endgeneration %}",
        "{{ message.content }}{% endgeneration %}{{ '<|im_end|>' }}",
    )
    refused = rows(CHAT, make_template(wrong))
    assert isinstance(refused, Refusal)
    assert refused.reason == "end_not_trained"
    assert "before the end-of-turn token" in refused.detail


@pytest.mark.parametrize(
    ("name", "source"),
    [("llama3", "TRL's marks"), ("gemma", "TRL's marks"), ("qwen2.5", "prefixes")],
)
def test_trl_s_marks_where_the_template_has_none(name: str, source: str) -> None:
    """For Qwen 2.5 they hold a line break that inference sends itself, so they are not believed."""
    template = family(name)
    rendered = row(CHAT[1:], template)
    assert rendered.mask_source == source
    [first, last] = trained(rendered, template)
    assert first.startswith("On its way.<")
    assert last.startswith("Since Monday: größer, 😀.<")


# --------------------------------------------------------------------------------- eight families


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_one_exchange_of_every_family(name: str) -> None:
    template = family(name)
    rendered = row(CHAT[1:3], template)
    [answer] = trained(rendered, template)
    ends = {template.tokenizer.decode([i]) for i in template.stop_ids}
    assert any(answer.endswith(f"On its way.{end}") for end in ends), answer
    bos = template.tokenizer.bos_token_id
    assert rendered.input_ids[:2].count(bos) <= 1
    start = rendered.labels.index(next(label for label in rendered.labels if label != IGNORED))
    assert rendered.input_ids[:start] == prompt_ids(CHAT[1:2], template.tokenizer)


@pytest.mark.parametrize("name", ["chatml", "llama3", "phi3", "qwen2.5", "qwen3"])
def test_a_system_turn_and_two_exchanges(name: str) -> None:
    template = family(name)
    found = rows(CHAT, template)
    assert not isinstance(found, Refusal), found
    answers = [text for one in found for text in trained(one, template)]
    assert len(answers) == 2
    assert "On its way." in answers[0]
    assert "Since Monday: größer, 😀." in answers[1]
    assert all("Be brief." in template.tokenizer.decode(one.input_ids) for one in found)


def test_a_family_without_a_system_role_says_so() -> None:
    with pytest.raises(TemplateError, match=r"system, user.*System role not supported.*Leave out"):
        rows(CHAT, family("gemma"))


def test_a_family_that_forgets_the_system_role_is_caught() -> None:
    refused = rows(CHAT, family("forgetful"))
    assert isinstance(refused, Refusal)
    assert refused.reason == "dropped_turn"


def test_mistral_forgets_the_system_turn_once_there_is_an_answer() -> None:
    """Trained on that, it would never have seen the prompt that inference sends."""
    refused = rows(CHAT, family("mistral"))
    assert isinstance(refused, Refusal)
    assert refused.reason == "prompt_differs"
    assert "'Be br' against 'Where'" in refused.detail
    found = rows(CHAT[1:], family("mistral"))
    assert not isinstance(found, Refusal), found
    assert len(trained(found[0], family("mistral"))) == 2


THOUGHT = [
    Message("user", "Where is it?"),
    Message("assistant", "<think>\nWhere could it be?\n</think>\n\nOn its way."),
    Message("user", "Since when?"),
    Message("assistant", "Since Monday."),
]


def test_qwen3_trains_the_thinking_of_an_answer_and_forgets_that_of_history() -> None:
    template = family("qwen3")
    found = rows(THOUGHT, template)
    assert not isinstance(found, Refusal), found
    assert len(found) == 2
    [first], [second] = (trained(one, template) for one in found)
    assert first.startswith("<think>\nWhere could it be?\n</think>")
    assert "Since Monday." in second
    assert "Where could it be?" not in template.tokenizer.decode(found[1].input_ids)


def test_the_default_base_model(smol: Any) -> None:
    from transformers import AutoTokenizer

    template = Template(AutoTokenizer.from_pretrained(smol))
    rendered = row(CHAT, template)
    assert trained(rendered, template) == [
        "On its way.<|im_end|>",
        "Since Monday: größer, 😀.<|im_end|>",
    ]
    assert rendered.labels[-1] == IGNORED
