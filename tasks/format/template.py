"""The base model's own chat template: conversations -> texts -> token ids.

Rendered in batches, since that is most of the stage's time; the ids are those of
``apply_chat_template(..., tokenize=True)``, which tokenises the same text the same way.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import jinja2

from tasks.errors import ConfigError, TemplateError
from tasks.example import Example, Message


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns in OpenAI's chat form, and the JSON text of the functions that may be called."""

    turns: list[dict[str, Any]]
    tools: str | None = None

    @classmethod
    def of(cls, messages: Iterable[Message], tools: str | None = None) -> Conversation:
        return cls([message.as_chat() for message in messages], tools)

    @classmethod
    def of_example(cls, example: Example) -> Conversation:
        return cls.of(example.messages, example.tools)

    @property
    def answers(self) -> list[int]:
        """Where the assistant's turns stand."""
        return [i for i, turn in enumerate(self.turns) if turn["role"] == "assistant"]

    def first(self, count: int) -> Conversation:
        """The conversation as it was after ``count`` turns."""
        return Conversation(self.turns[:count], self.tools)


class Template:
    """A tokenizer with its chat template, and the tokens at which inference stops."""

    def __init__(self, tokenizer: Any, stop_ids: Iterable[int] = ()) -> None:
        """``stop_ids``: those of the generation config, beside the tokenizer's end-of-turn token.

        Raises TemplateError without a template.
        """
        if not tokenizer.chat_template:
            raise TemplateError(
                f"{tokenizer.name_or_path} has no chat template. Take an instruct model, or save "
                "the template that it is to be served with as chat_template.jinja in its folder."
            )
        self.tokenizer = tokenizer
        self.name = str(tokenizer.name_or_path)
        ends = {tokenizer.eos_token_id, *stop_ids} - {None}
        self.stop_ids: frozenset[int] = frozenset(ends)

    def texts(self, conversations: Sequence[Conversation], *, prompt: bool = False) -> list[str]:
        """The conversations rendered; as ``prompt``, with the assistant's header open.

        Raises TemplateError naming the roles of the first conversation that it refuses.
        """
        texts: list[str] = []
        for tools, group in groupby(conversations, key=lambda c: c.tools):
            turns = [c.turns for c in group]
            try:
                texts += self._apply(turns, tools, prompt)
            except (jinja2.TemplateError, TypeError) as error:
                raise self._refusal(turns, tools, prompt, error) from error
        return texts

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The token ids of rendered texts."""
        ids: list[list[int]] = self.encoded(texts)["input_ids"] if texts else []
        return ids

    def encoded(self, texts: Sequence[str]) -> Any:
        """The tokenizer's ``BatchEncoding`` of rendered texts, which hold their own BOS."""
        return self.tokenizer(
            list(texts),
            add_special_tokens=False,
            padding=False,
            truncation=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )

    def source(self, tools: str | None) -> str:
        """The template's own text, which can be another one for conversations with tools."""
        text: str = self.tokenizer.get_chat_template(None, tools)
        return text

    @cached_property
    def reserved(self) -> re.Pattern[str]:
        """Tokens that structure a conversation, and therefore have no place in its content.

        Special tokens, stop tokens, and those that the template itself puts before an answer:
        DeepSeek's turn openers are not marked special. Tokens inside answers, such as ``<think>``,
        may be written by anyone.
        """
        added = self.tokenizer.added_tokens_decoder
        opening = self.ids(self.texts([Conversation.of([Message("user", "a")])], prompt=True))[0]
        ids = {i for i, token in added.items() if token.special or i in opening}
        ids |= {*self.tokenizer.all_special_ids, *self.stop_ids}
        texts = {t for t in self.tokenizer.convert_ids_to_tokens(sorted(ids)) if t}
        longest_first = sorted(texts, key=lambda text: (-len(text), text))
        return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    @property
    def begins_turns(self) -> bool:
        """Whether BOS opens every turn, as ChatML models have it."""
        bos = self.tokenizer.bos_token_id
        two = [Message("user", "a"), Message("assistant", "b")]
        return bos is not None and self.ids(self.texts([Conversation.of(two)]))[0].count(bos) > 1

    @property
    def stops(self) -> str:
        """The stop tokens as a list to read."""
        return ", ".join(repr(self.tokenizer.decode([i])) for i in sorted(self.stop_ids))

    def _apply(
        self, conversations: list[list[dict[str, Any]]], tools: str | None, prompt: bool
    ) -> list[str]:
        texts: list[str] = self.tokenizer.apply_chat_template(
            conversations,
            tools=None if tools is None else json.loads(tools),
            add_generation_prompt=prompt,
            tokenize=False,
        )
        return texts

    def _refusal(
        self,
        conversations: list[list[dict[str, Any]]],
        tools: str | None,
        prompt: bool,
        error: Exception,
    ) -> TemplateError:
        """The error of the first of ``conversations`` that cannot be rendered by itself."""
        culprit = conversations[0]
        for turns in conversations:
            try:
                self._apply([turns], tools, prompt)
            except (jinja2.TemplateError, TypeError) as found:
                culprit, error = turns, found
                break
        roles = ", ".join(turn["role"] for turn in culprit) or "(none)"
        calls = any("tool_calls" in turn or turn["role"] == "tool" for turn in culprit)
        what = " with tool calls" if calls else ""
        return TemplateError(
            f"The chat template of {self.name} cannot render the turns {roles}{what}: {error}. "
            "Leave out what it refuses (a system turn comes from task.system_prompt), or mend "
            "chat_template.jinja."
        )


def check_max_length(folder: Path, max_length: int) -> None:
    """Refuse rows longer than the positions that the model in ``folder`` knows.

    Beyond them a model reads positions that it never learned. Raises ConfigError.
    """
    config = json.loads((folder / "config.json").read_text())
    positions = (config.get("text_config") or config).get("max_position_embeddings")
    if positions is not None and max_length > positions:
        raise ConfigError(
            f"format.max_length is {max_length}, but the model in {folder.name} knows "
            f"{positions} positions (max_position_embeddings). Set it to {positions} or below."
        )
