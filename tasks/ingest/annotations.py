"""Several people's answers to one task -> those that count, and why the others do not.

The same for every annotation tool: each answer is a set of values by question, and the source's
``columns`` say which question is the answer and which the label, by name or as a template over all
of them. An answer that a project has marked as its ground truth decides alone.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from tasks.example import Message, content_id
from tasks.ingest.chat import dialogue_messages, with_system
from tasks.ingest.config import ColumnMapping, SourceConfig
from tasks.ingest.draft import Draft, Left, Made
from tasks.ingest.fields import (
    FieldError,
    as_text,
    column,
    exact,
    holds,
    is_template,
    optional_text,
    shown,
    text,
    time,
)
from tasks.ingest.tools import tools_of

# Where a task keeps its prompt when the config does not say.
PROMPTS = ("messages", "prompt", "text")
_ADDRESS = re.compile(r"(https?|s3|gs|azure-blob)://\S+")


@dataclass(frozen=True, slots=True)
class Annotation:
    """What one person answered. ``skipped`` is the reason why it does not count, if it does not.

    ``main`` names the question that is the answer where the config names none, ``free_text`` the
    questions that were answered by typing. ``turns`` are messages that the annotator added to the
    conversation.
    """

    answers: Mapping[str, Any]
    main: str | None = None
    free_text: frozenset[str] = frozenset()
    label: str | None = None
    created_at: datetime | None = None
    ground_truth: bool = False
    skipped: str | None = None
    turns: tuple[Message, ...] = ()
    meta: Mapping[str, str] = field(default_factory=dict)


_Pair = tuple[Annotation, Draft]


def prompt_of(fields: Mapping[str, Any], columns: ColumnMapping) -> list[Message]:
    """The task's conversation up to the answer: of the mapped column, else of a usual name."""
    system = optional_text(fields, columns.system)
    if columns.messages is not None:
        turns = dialogue_messages(column(fields, columns.messages), columns.messages)
        return with_system(system, turns, columns.messages)
    if columns.user is not None:
        return with_system(system, [Message("user", text(fields, columns.user))], columns.user)
    found = [name for name in PROMPTS if holds(fields, name)]
    if len(found) != 1:
        detail = (
            f"expected one of {', '.join(PROMPTS)}, or `columns.user` or `columns.messages` to "
            f"name the prompt; came {', '.join(map(str, fields)) or 'nothing'}"
        )
        raise FieldError("user", "ambiguous_prompt", detail)
    value = column(fields, found[0])
    if isinstance(value, list):
        return with_system(system, dialogue_messages(value, found[0]), found[0])
    return with_system(system, [Message("user", local_text(value, found[0]))], found[0])


def local_text(value: object, name: str) -> str:
    """The text itself; raises FieldError for the address of a text that lies elsewhere."""
    content = as_text(value, name)
    if _ADDRESS.fullmatch(content.strip()):
        detail = (
            f"expected the text, came its address {shown(content)}; if the address is the prompt, "
            "name it in `columns.user`"
        )
        raise FieldError(name, "remote_content", detail)
    return content


def drafts(
    prompt: list[Message],
    task: Mapping[str, Any],
    annotations: list[Annotation],
    source: SourceConfig,
) -> Iterator[Made]:
    """The examples that a task's annotations make, and what is left out of it.

    The group is the prompt's unless a column names another: an answer that is corrected later must
    not move its prompt to the other side of the split.
    """
    if not annotations:
        yield Left("not_annotated")
    yield from (Left(a.skipped) for a in annotations if a.skipped is not None)
    given = [a for a in annotations if a.skipped is None]
    sure = [a for a in given if a.ground_truth]
    yield from [Left("not_ground_truth")] * (len(given) - len(sure) if sure else 0)
    yield from _chosen(
        [(a, _draft(prompt, task, a, source)) for a in sure or given], source.annotations
    )


def as_answer(values: list[Any]) -> Any:
    """One value as itself, several as the list that they are."""
    return values[0] if len(values) == 1 else values


def _chosen(pairs: list[_Pair], how: Literal["latest", "majority", "all"]) -> Iterator[Made]:
    if how == "all" or len(pairs) < 2:
        yield from (draft for _, draft in pairs)
        return
    agreed = _majority(pairs) if how == "majority" else pairs
    if not agreed:
        yield from [Left("annotators_disagree")] * len(pairs)
        return
    yield from [Left("outvoted")] * (len(pairs) - len(agreed))
    yield from [Left("confirmed" if how == "majority" else "superseded")] * (len(agreed) - 1)
    yield _latest(agreed)


def _majority(pairs: list[_Pair]) -> list[_Pair]:
    """Those who gave the answer that more than half of all gave; none where there is no such."""
    votes = Counter(_vote(draft) for _, draft in pairs)
    ((winner, num_votes),) = votes.most_common(1)
    if 2 * num_votes <= len(pairs):
        return []
    return [p for p in pairs if _vote(p[1]) == winner]


def _vote(draft: Draft) -> tuple[str | None, ...]:
    last = draft.messages[-1]
    return last.content, last.tool_calls, draft.label


def _latest(pairs: list[_Pair]) -> Draft:
    """The one made last; of those without a time the one that stands last."""
    moments = [a.created_at.timestamp() if a.created_at else float("-inf") for a, _ in pairs]
    return pairs[max(range(len(pairs)), key=lambda i: (moments[i], i))][1]


def _draft(
    prompt: list[Message], task: Mapping[str, Any], given: Annotation, source: SourceConfig
) -> Draft:
    columns = source.columns
    scope = {**task, **given.answers}
    messages = [*prompt, *given.turns]
    if columns.assistant is not None or not given.turns:
        if messages[-1:] and messages[-1].role == "assistant":
            detail = "expected a conversation that waits for an answer, came one with its answer"
            raise FieldError("messages", "already_answered", detail)
        messages.append(Message("assistant", _answer(given, scope, columns.assistant)))
    # Without a call a field of that name may be anything.
    usual = "tools" if any(m.tool_calls for m in messages) else None
    return Draft(
        messages,
        label=optional_text(scope, columns.label) if columns.label else _own_label(given),
        group=optional_text(scope, columns.group) or content_id(prompt),
        created_at=time(scope, columns.created_at) if columns.created_at else given.created_at,
        meta=given.meta,
        tools=tools_of(task, columns.tools, usual),
    )


def _own_label(given: Annotation) -> str | None:
    return None if given.label is None else exact(given.label, "label")


def _answer(given: Annotation, scope: Mapping[str, Any], mapped: str | None) -> str:
    if mapped is not None and is_template(mapped):
        return text(scope, mapped)
    only = next(iter(given.answers)) if len(given.answers) == 1 else None
    name = mapped or given.main or only
    if name is None:
        detail = (
            "expected one answered question, or `columns.assistant` to name the one that is the "
            f"answer; came {', '.join(given.answers) or 'none'}"
        )
        raise FieldError("assistant", "ambiguous_answer", detail)
    value = column(given.answers, name)
    if isinstance(value, list) and name in given.free_text:
        detail = f"expected one text, came {len(value)}; join them by a template over {name!r}"
        raise FieldError(name, "several_texts", detail)
    return as_text(value, name)
