"""A task of Scale AI -> drafts of examples.

Format: Scale's API reference, "Task object", "Text collection" and "Named entity recognition", and
the task of its Generative AI Data Engine (docs.genai.scale.com, "Task"), whose ``threads`` are
whole conversations. A task is an object per line or an array of them.

Defaults: the prompt is ``params.text``, else the one attachment of type text; ``instruction`` was
written for the annotators, map it as ``system`` if the model is to see it. The answers are
``response.annotations`` by field, else ``response`` itself; the lists that a text collection wraps
around a single value are taken off. Only completed tasks count, and none that a customer's review
rejected.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tasks.example import Message
from tasks.ingest.annotations import Annotation, drafts, local_text, prompt_of
from tasks.ingest.chat import chat_messages, with_system
from tasks.ingest.config import SourceConfig
from tasks.ingest.draft import Draft, Left, Made
from tasks.ingest.fields import (
    FieldError,
    an_object,
    as_time,
    column,
    exact,
    names,
    objects,
    optional_text,
    shown,
)
from tasks.ingest.tools import tools_of


def scale(values: dict[str, Any], source: SourceConfig) -> Iterator[Made]:
    """The examples of one task: one, or one for each thread."""
    if column(values, "status") != "completed":
        yield Left("not_completed")
    elif values.get("customer_review_status") == "rejected":
        yield Left("review_rejected")
    elif values.get("threads") == []:
        yield Left("empty_annotation")
    elif "threads" in values:
        yield from _threads(values, source)
    else:
        params = an_object(values, "params")
        task = {**params, **values}
        yield from drafts(_prompt(params, task, source), task, [_annotation(values)], source)


def _prompt(params: dict[str, Any], task: dict[str, Any], source: SourceConfig) -> list[Message]:
    columns = source.columns
    if columns.user is not None or columns.messages is not None:
        return prompt_of(task, columns)
    user = Message("user", _text(params))
    return with_system(optional_text(task, columns.system), [user], "params")


def _text(params: dict[str, Any]) -> str:
    if params.get("text") is not None:
        return local_text(params["text"], "params.text")
    attachments = objects(params.get("attachments") or [], "params.attachments")
    if len(attachments) != 1:
        detail = f"expected text or one attachment, came {len(attachments)}; name `columns.user`"
        raise FieldError("params.attachments", "ambiguous_prompt", detail)
    kind = attachments[0].get("type")
    if kind != "text":
        detail = f"expected an attachment of type text, came {shown(kind)}"
        raise FieldError("params.attachments[0]", "unsupported_content", detail)
    return local_text(attachments[0].get("content"), "params.attachments[0].content")


def _annotation(values: dict[str, Any]) -> Annotation:
    response = an_object(values, "response")
    given = response.get("annotations", response)
    answers = given if isinstance(given, dict) else {"annotations": given}
    plain = {name: _plain(value) for name, value in answers.items()}
    kept = {name: value for name, value in plain.items() if value not in (None, "", [], {})}
    return Annotation(
        kept,
        created_at=as_time(values.get("completed_at"), "completed_at"),
        skipped=None if kept else "empty_annotation",
        meta=names(task=values.get("task_id")),
    )


def _plain(value: Any) -> Any:
    """The value of a field: of its ``response``, without lists around a single one."""
    if isinstance(value, Mapping) and "response" in value:
        value = value["response"]
        while isinstance(value, list) and len(value) == 1:
            value = value[0]
    return value


def _threads(values: dict[str, Any], source: SourceConfig) -> Iterator[Made]:
    for index, thread in enumerate(objects(values["threads"], "threads")):
        place = f"threads[{index}]"
        turns = [
            _flat(message, f"{place}.turns[{i}]")
            for i, turn in enumerate(objects(thread.get("turns"), f"{place}.turns"))
            for message in objects(turn.get("messages"), f"{place}.turns[{i}].messages")
        ]
        system = optional_text(values, source.columns.system)
        columns = source.columns
        yield Draft(
            with_system(system, chat_messages(turns, place), place),
            label=optional_text(values, columns.label),
            group=optional_text(values, columns.group) or _task_group(values),
            created_at=as_time(values.get("completed_at"), "completed_at"),
            meta=names(task=values.get("task_id"), thread=thread.get("id")),
            tools=tools_of(values, columns.tools, None),
        )


def _task_group(values: dict[str, Any]) -> str | None:
    """The threads of a task are about one thing."""
    task = values.get("task_id")
    return exact(task, "task_id") if isinstance(task, str) and task else None


def _flat(message: dict[str, Any], place: str) -> dict[str, Any]:
    """Scale's message with its content's text as the content."""
    content = message.get("content")
    if not isinstance(content, dict):
        return message
    if content.get("attachments") or content.get("reference_texts"):
        detail = "expected a turn of text, came one with attachments or reference texts"
        raise FieldError(f"{place}.content", "unsupported_content", detail)
    return {**message, "content": content.get("text")}
