"""Conversations -> token ids and labels, by the base model's own chat template.

The labels are the ids of the assistant's turns, each up to and with its end-of-turn token, and
-100 elsewhere. What stands before an answer is exactly what inference sends: the template with the
assistant's header open over the turns before. Where a template shows history differently from how
it was said (Qwen3 drops earlier thinking), each answer gets a row of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from tasks.errors import TemplateError
from tasks.example import Message
from tasks.format.complete import left_out
from tasks.format.config import Reason
from tasks.format.marks import MaskSource, Span, marked, mask_source
from tasks.format.template import Conversation, Template

IGNORED = -100  # torch.nn.CrossEntropyLoss's ignore_index, which Transformers shares
MultiTurn = Literal["auto", "together", "unroll"]


class Refusal(NamedTuple):
    """Why a row cannot be trained on."""

    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class Rendered:
    """Token ids of a conversation, and of which the loss is taken (``IGNORED`` elsewhere)."""

    input_ids: list[int]
    labels: list[int]
    mask_source: MaskSource = "prefixes"

    @property
    def num_trained(self) -> int:
        """Tokens that the loss is taken of."""
        return sum(label != IGNORED for label in self.labels)


@dataclass(frozen=True, slots=True)
class _Turn:
    """A conversation up to one answer: the text, its encoding, and where the answer stands."""

    conversation: Conversation
    text: str
    encoding: Any
    ids: list[int]
    span: Span | Refusal


def prompt_ids(messages: Sequence[Message], tokenizer: Any, tools: str | None = None) -> list[int]:
    """What inference sends for these messages: the template with the assistant's header open."""
    template = Template(tokenizer)
    return template.ids(template.texts([Conversation.of(messages, tools)], prompt=True))[0]


def render(
    conversations: Sequence[Conversation], template: Template, multi_turn: MultiTurn = "auto"
) -> list[list[Rendered] | Refusal]:
    """The training rows of each conversation, which ends with an answer, or why it has none.

    One row where all its answers can be trained together, else one for each. Raises TemplateError
    when the template cannot render a conversation, or not ``together`` as asked.
    """
    turns = _turns(conversations, template)
    return [
        _rows([next(turns) for _ in conversation.answers], template, multi_turn)
        for conversation in conversations
    ]


def _turns(conversations: Sequence[Conversation], template: Template) -> Iterator[_Turn]:
    """Every answer of every conversation, rendered and tokenised in one batch."""
    asked = [c.first(i) for c in conversations for i in c.answers]
    answered = [c.first(i + 1) for c in conversations for i in c.answers]
    if not answered:
        return
    prompts = template.ids(template.texts(asked, prompt=True))
    texts = template.texts(answered)
    encoded = template.encoded(texts)
    rows = zip(answered, texts, prompts, encoded["input_ids"], encoded.encodings, strict=True)
    for conversation, text, prompt, ids, encoding in rows:
        yield _Turn(conversation, text, encoding, ids, _span(prompt, ids, template))


def _rows(
    turns: list[_Turn], template: Template, multi_turn: MultiTurn
) -> list[Rendered] | Refusal:
    if not turns:
        return Refusal("nothing_to_train", "expected a turn of the assistant's, came none")
    for turn in turns:
        if isinstance(turn.span, Refusal):
            return turn.span
    spans = [turn.span for turn in turns if not isinstance(turn.span, Refusal)]
    for turn in turns:
        if missing := left_out(turn.conversation, turn.text):
            return Refusal("dropped_turn", f"the template leaves out {missing}")
    odd = _first_retold(turns, spans)
    if odd is not None and multi_turn == "together":
        raise TemplateError(
            f"format.multi_turn is together, but the chat template of {template.name} shows answer "
            f"{odd + 1} of {len(turns)} differently once the conversation goes on. Set it to auto "
            "or unroll: then each answer is a row of its own."
        )
    if odd is None and (multi_turn != "unroll" or len(turns) == 1):
        found = [_labelled(turns[-1], spans, template)]
    else:
        found = [_labelled(t, [s], template) for t, s in zip(turns, spans, strict=True)]
    rows = []
    for row in found:
        if isinstance(row, Refusal):
            return row
        rows.append(row)
    return rows


def _span(prompt: list[int], ids: list[int], template: Template) -> Span | Refusal:
    """Where the answer stands: behind the prompt, up to and with its end-of-turn token."""
    if ids[: len(prompt)] != prompt:
        return _difference(prompt, ids, template)
    # What the template puts behind the end of the turn (ChatML: a line break) is never generated.
    for end in range(len(prompt), len(ids)):
        if ids[end] in template.stop_ids:
            return len(prompt), end + 1
    return Refusal(
        "end_not_trained",
        f"the template ends an answer without an end-of-turn token ({template.stops}): the model "
        f"would never learn to stop; rendered {template.tokenizer.decode(ids[len(prompt) :])!r}",
    )


def _difference(prompt: list[int], ids: list[int], template: Template) -> Refusal:
    at = next(i for i, (a, b) in enumerate(zip(prompt, [*ids, None], strict=False)) if a != b)
    sent, trained = (template.tokenizer.decode(part[at : at + 5]) for part in (prompt, ids))
    return Refusal(
        "prompt_differs",
        f"what inference sends and what would be trained differ at token {at}, {sent!r} against "
        f"{trained!r}",
    )


def _first_retold(turns: list[_Turn], spans: list[Span]) -> int | None:
    """The first answer that the whole conversation does not hold as it was given, if any."""
    whole = turns[-1].ids
    for number, (turn, (_, end)) in enumerate(zip(turns, spans, strict=True)):
        if turn.ids[:end] != whole[:end]:
            return number
    return None


def _labelled(turn: _Turn, spans: list[Span], template: Template) -> Rendered | Refusal:
    bos = template.tokenizer.bos_token_id
    # ChatML models name their turn opener as BOS; it stands before every turn, never twice in line.
    if bos is not None and turn.ids[:2] == [bos, bos]:
        return Refusal(
            "doubled_bos",
            f"begins with two BOS tokens ({template.tokenizer.bos_token!r}): one comes from the "
            "template, one from the tokenizer",
        )
    source = mask_source(template, turn.conversation.tools)
    chosen = spans
    if source != "prefixes":
        marks = marked(turn.conversation, turn.text, turn.encoding, template)
        agreed = _agreed(marks, spans)
        if source == "TRL's marks" and agreed != spans:
            source = "prefixes"
        elif isinstance(agreed, Refusal):
            return agreed
        else:
            chosen = agreed
    labels = [IGNORED] * len(turn.ids)
    for start, end in chosen:
        labels[start:end] = turn.ids[start:end]
    if not chosen:
        return Refusal("nothing_to_train", "the template's generation marks hold no answer")
    return Rendered(turn.ids, labels, source)


def _agreed(marks: list[Span], spans: list[Span]) -> list[Span] | Refusal:
    """The answers inside marks; those that the marks leave out are not to be trained.

    Marks may go on behind the end of the turn, but must begin with the answer and hold its end.
    """
    kept = []
    for start, end in spans:
        over = [mark for mark in marks if mark[0] < end and start < mark[1]]
        if over and over[0][0] != start:
            return Refusal(
                "prompt_differs",
                f"the template's generation mark begins at token {over[0][0]}, the answer at "
                f"{start}",
            )
        if over and over[-1][1] < end:
            return Refusal(
                "end_not_trained",
                f"the template's generation mark ends at token {over[-1][1]}, before the "
                f"end-of-turn token at {end - 1}",
            )
        if over:
            kept.append((start, end))
    return kept
