"""One conversation -> token ids and labels, by the base model's own chat template.

The labels are the ids of the assistant's turns, each up to and with its end-of-turn token, and
-100 elsewhere. The ids before an answer are exactly those that inference sends: a row for which
they are not is an error of the template, not of the row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jinja2

from tasks.errors import TemplateError
from tasks.example import Message

IGNORED = -100  # torch.nn.CrossEntropyLoss's ignore_index, which Transformers shares


@dataclass(frozen=True, slots=True)
class Rendered:
    """Token ids of a conversation, and of which the loss is taken (``IGNORED`` elsewhere)."""

    input_ids: list[int]
    labels: list[int]

    @property
    def num_trained(self) -> int:
        """Tokens that the loss is taken of."""
        return sum(label != IGNORED for label in self.labels)


def render(messages: Sequence[Message], tokenizer: Any) -> Rendered:
    """The whole conversation with labels on every assistant turn.

    Raises TemplateError when the template is missing, when a prompt is not a prefix of the
    conversation, when an answer lacks the end-of-turn token, or when BOS is doubled.
    """
    input_ids = _ids(messages, tokenizer)
    labels = [IGNORED] * len(input_ids)
    for turn, message in enumerate(messages):
        if message.role == "assistant":
            start, end = _answer_span(messages[: turn + 1], input_ids, tokenizer)
            labels[start:end] = input_ids[start:end]
    _check_bos(input_ids, tokenizer)
    return Rendered(input_ids, labels)


def prompt_ids(messages: Sequence[Message], tokenizer: Any) -> list[int]:
    """What inference sends for these messages: the template with the assistant's header open."""
    return _ids(messages, tokenizer, add_generation_prompt=True)


def _answer_span(
    messages: Sequence[Message], input_ids: list[int], tokenizer: Any
) -> tuple[int, int]:
    """Where the last of ``messages`` stands in ``input_ids``, with its end-of-turn token."""
    prompt = prompt_ids(messages[:-1], tokenizer)
    _check_prefix(prompt, input_ids, tokenizer)
    upto = _ids(messages, tokenizer)
    _check_prefix(upto, input_ids, tokenizer)
    answer = upto[len(prompt) :]
    if tokenizer.eos_token_id not in answer:
        raise TemplateError(
            f"The chat template of {tokenizer.name_or_path} ends an answer without its "
            f"end-of-turn token {tokenizer.eos_token!r}: the model would never learn to stop. "
            f"The answer rendered as {tokenizer.decode(answer)!r}."
        )
    # What the template puts behind the end of the turn (ChatML: a line break) is never generated.
    length = len(answer) - answer[::-1].index(tokenizer.eos_token_id)
    return len(prompt), len(prompt) + length


def _ids(
    messages: Sequence[Message], tokenizer: Any, *, add_generation_prompt: bool = False
) -> list[int]:
    if not tokenizer.chat_template:
        raise TemplateError(
            f"{tokenizer.name_or_path} has no chat template. Take an instruct model, or save the "
            "template that it is to be served with as chat_template.jinja in its folder."
        )
    try:
        ids: list[int] = tokenizer.apply_chat_template(
            [{"role": m.role, "content": m.content} for m in messages],
            add_generation_prompt=add_generation_prompt,
            tokenize=True,
            return_dict=False,
        )
    except jinja2.TemplateError as error:  # broken, or it refuses a role
        roles = ", ".join(m.role for m in messages)
        raise TemplateError(
            f"The chat template of {tokenizer.name_or_path} cannot render the turns {roles}: "
            f"{error}. Leave out what it refuses (a system turn comes from task.system_prompt), or "
            "mend chat_template.jinja."
        ) from error
    return ids


def _check_prefix(prefix: list[int], whole: list[int], tokenizer: Any) -> None:
    if whole[: len(prefix)] == prefix:
        return
    at = next(i for i, (a, b) in enumerate(zip(prefix, [*whole, None], strict=False)) if a != b)
    sent, trained = (tokenizer.decode(ids[at : at + 5]) for ids in (prefix, whole))
    raise TemplateError(
        f"The chat template of {tokenizer.name_or_path} renders a prompt that is not the beginning "
        f"of the conversation: they differ at token {at}, {sent!r} against {trained!r}. "
        "Training on it would teach something else than what inference sends."
    )


def _check_bos(input_ids: list[int], tokenizer: Any) -> None:
    bos = tokenizer.bos_token_id
    # ChatML models name their turn opener as BOS; it stands before every turn, never twice in line.
    if bos is not None and input_ids[:2] == [bos, bos]:
        raise TemplateError(
            f"The chat template of {tokenizer.name_or_path} begins with two BOS tokens "
            f"({tokenizer.bos_token!r}): one comes from the template, one from the tokenizer. "
            "Remove the one in the template or set add_bos_token to false."
        )
