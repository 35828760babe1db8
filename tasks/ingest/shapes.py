"""The shapes of rows without a tool of their own: columns, chat, pairs, Alpaca and ShareGPT.

Formats: OpenAI's fine-tuning files ("Supervised fine-tuning", ``messages`` with ``tools`` and
``weight``; ``parallel_tool_calls`` says how a request is answered, and is left aside); TRL's
"Dataset formats and types" (prompt and completion as texts or as lists of messages);
LLaMA-Factory's ``data/README.md`` (Alpaca with ``system`` and ``history``, ShareGPT).

Alpaca's instruction and input are joined by a blank line. The preamble of the original ("Below is
an instruction ...") stood in for the roles that a chat template has, and what a model is trained on
must be what it is sent in production; whoever sends the preamble maps ``user`` as a template.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tasks.example import Message
from tasks.ingest.chat import (
    chat_messages,
    refuse_functions,
    sharegpt_messages,
    weights,
    with_system,
)
from tasks.ingest.config import SourceConfig
from tasks.ingest.draft import Draft, Made
from tasks.ingest.fields import (
    FieldError,
    as_text,
    column,
    holds,
    is_template,
    optional_text,
    text,
    time,
)
from tasks.ingest.tools import tools_of


def columns(values: dict[str, Any], source: SourceConfig) -> Iterator[Made]:
    """As mapped: a column of chat messages, or a column or template each for the two turns."""
    mapping = source.columns
    if mapping.user is None or mapping.assistant is None:
        yield _conversation(values, source)
        return
    turns = [
        Message("user", text(values, mapping.user)),
        Message("assistant", text(values, mapping.assistant)),
    ]
    yield _draft(values, source, turns, mapping.user, tools=None)


def chat(values: dict[str, Any], source: SourceConfig) -> Iterator[Made]:
    """OpenAI's fine-tuning form, whose tools stand beside the messages."""
    refuse_functions(values)
    yield _conversation(values, source)


def prompt_completion(values: dict[str, Any], source: SourceConfig) -> Iterator[Made]:
    """Two texts, or two lists of messages, or one of each."""
    refuse_functions(values)
    user = source.columns.user or "prompt"
    asked = _side(values, user, "user")
    answered = _side(values, source.columns.assistant or "completion", "assistant")
    yield _draft(values, source, [*asked, *answered], user)


def alpaca(values: dict[str, Any], source: SourceConfig) -> Iterator[Made]:
    """Earlier turns, then the instruction with its input, then the output."""
    mapping = source.columns
    name = mapping.user or "instruction"
    question = text(values, name)
    given = None if is_template(name) else _where_there(values, mapping.input, "input")
    turns = [
        *_history(values, mapping.history or "history", mapping.history is not None),
        Message("user", f"{question}\n\n{given}" if given else question),
        Message("assistant", text(values, mapping.assistant or "output")),
    ]
    yield _draft(values, source, turns, name, "system")


def sharegpt(values: dict[str, Any], source: SourceConfig) -> Iterator[Made]:
    """Turns of ``from`` and ``value``."""
    refuse_functions(values)
    name = source.columns.messages or "conversations"
    turns = sharegpt_messages(column(values, name), name)
    yield _draft(values, source, turns, name, "system")


def _conversation(values: dict[str, Any], source: SourceConfig) -> Made:
    """A column of chat messages, unless its weights say that there is nothing to learn."""
    name = source.columns.messages or "messages"
    turns = column(values, name)
    messages = chat_messages(turns, name)
    return weights(turns, name) or _draft(values, source, messages, name)


def _draft(
    values: dict[str, Any],
    source: SourceConfig,
    messages: list[Message],
    field: str,
    system: str | None = None,
    tools: str | None = "tools",
) -> Draft:
    """``system``, ``tools``: the columns in which this shape has them, where there are such."""
    mapping = source.columns
    own = _where_there(values, mapping.system, system) if system else None
    turn = own if system else optional_text(values, mapping.system)
    return Draft(
        with_system(turn, messages, field),
        label=optional_text(values, mapping.label),
        group=optional_text(values, mapping.group),
        created_at=time(values, mapping.created_at),
        tools=tools_of(values, mapping.tools, tools),
    )


def _where_there(values: dict[str, Any], mapped: str | None, usual: str) -> str | None:
    """The mapped column, which must be there, else the usual one where the row has it."""
    if mapped is None and not holds(values, usual):
        return None
    return optional_text(values, mapped or usual)


def _side(values: dict[str, Any], name: str, role: str) -> list[Message]:
    if not is_template(name) and isinstance(value := column(values, name), list):
        return chat_messages(value, name)
    return [Message(role, text(values, name))]


def _history(values: dict[str, Any], name: str, mapped: bool) -> list[Message]:
    pairs = column(values, name) if mapped or holds(values, name) else None
    turns = []
    for index, pair in enumerate(_pairs(pairs, name)):
        for role, said in zip(("user", "assistant"), pair, strict=True):
            turns.append(Message(role, as_text(said, f"{name}[{index}]")))
    return turns


def _pairs(value: object, name: str) -> list[list[Any]]:
    if value in (None, ""):
        return []
    if not isinstance(value, list):
        detail = f"expected a list of pairs, came {type(value).__name__}"
        raise FieldError(name, "wrong_type", detail)
    for index, pair in enumerate(value):
        if not isinstance(pair, list) or len(pair) != 2:
            detail = "expected a question and an answer"
            raise FieldError(f"{name}[{index}]", "wrong_type", detail)
    return value
