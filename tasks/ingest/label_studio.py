"""A task of Label Studio's JSON export, or a row of its JSON_MIN export -> drafts of examples.

Format: Label Studio's guide, "Label Studio Task Format" and "Export annotations", and the converter
in label-studio-sdk, which writes JSON_MIN. The prompt is a column of the task's ``data``, chat
messages and Paragraphs too; questions go by the ``name`` of their tag (``from_name`` in a result).
Without a mapping a TextArea is the answer and a Choices the label; a Choices alone is both. Several
choices make a JSON list. ``predictions`` are a model's and never count.

JSON_MIN has a row for each annotation and does not tell answers from data, so that no majority can
be taken of it, the latest is not known, and a task with further data needs a mapping: export JSON
where several people annotate.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tasks.errors import ConfigError
from tasks.example import Message
from tasks.ingest.annotations import PROMPTS, Annotation, as_answer, drafts, prompt_of
from tasks.ingest.chat import chat_message
from tasks.ingest.config import SourceConfig
from tasks.ingest.draft import Made
from tasks.ingest.fields import FieldError, an_object, as_time, names, objects

# Where a result of a kind keeps what the annotator gave; other kinds are kept whole.
_VALUES = {
    "choices": "choices",
    "textarea": "text",
    "taxonomy": "taxonomy",
    "number": "number",
    "rating": "rating",
    "datetime": "datetime",
    "pairwise": "selected",
}
_MINIMAL = frozenset(
    {"id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time", "agreement"}
)


def label_studio(values: dict[str, Any], source: SourceConfig) -> Iterator[Made]:
    """The examples of one task, by the source's rule for several annotators."""
    key = "annotations" if "annotations" in values else "completions"  # before version 1.0
    if key not in values:
        yield from _minimal(values, source)
        return
    data = an_object(values, "data")
    fields = {**values, **data}
    annotations = [
        _annotation(given, values, f"{key}[{i}]")
        for i, given in enumerate(objects(values[key], key))
    ]
    if not annotations or all(a.skipped for a in annotations):
        yield from drafts([], fields, annotations, source)  # no prompt is needed to count them
        return
    yield from drafts(
        prompt_of(_scope(fields, data, source), source.columns), fields, annotations, source
    )


def _scope(fields: dict[str, Any], data: dict[str, Any], source: SourceConfig) -> dict[str, Any]:
    """All of the task for what is mapped, its data alone for what is looked for."""
    mapped = source.columns.user or source.columns.messages
    return fields if mapped else data


def _annotation(given: dict[str, Any], task: dict[str, Any], field: str) -> Annotation:
    made = as_time(given.get("updated_at") or given.get("created_at"), f"{field}.updated_at")
    results = objects(given.get("result") or [], f"{field}.result")
    turns = [r for r in results if r.get("type") == "chatmessage"]
    answers, kinds = _answers(results, f"{field}.result")
    typed = [name for name in answers if kinds[name] == "textarea"]
    chosen = [name for name in answers if kinds[name] == "choices"]
    label = answers[chosen[0]] if len(chosen) == 1 else None
    return Annotation(
        answers,
        main=typed[0] if len(typed) == 1 else None,
        free_text=frozenset(typed),
        label=label if isinstance(label, str) else None,
        created_at=made,
        ground_truth=given.get("ground_truth") is True,
        skipped=_skipped(given, bool(answers or turns)),
        turns=tuple(_said(turn, f"{field}.result") for turn in turns),
        meta=names(task=task.get("id"), annotation=given.get("id")),
    )


def _skipped(given: dict[str, Any], answered: bool) -> str | None:
    if given.get("was_cancelled") or given.get("skipped"):
        return "annotation_cancelled"
    reviews = given.get("reviews")
    last = reviews[-1] if isinstance(reviews, list) and reviews else None
    if isinstance(last, dict) and last.get("accepted") is False:
        return "review_rejected"
    return None if answered else "empty_annotation"


def _answers(results: list[dict[str, Any]], field: str) -> tuple[dict[str, Any], dict[str, str]]:
    """What was given to each question, and the kind of each."""
    given: dict[str, list[Any]] = {}
    kinds: dict[str, str] = {}
    for index, result in enumerate(results):
        name, kind = result.get("from_name"), str(result.get("type"))
        if not isinstance(name, str) or kind == "chatmessage":
            continue  # a relation between regions answers no question, nor does a message
        value = an_object(
            {f"{field}[{index}].value": result.get("value")}, f"{field}[{index}].value"
        )
        kept = value.get(_VALUES[kind]) if kind in _VALUES else value
        kinds[name] = kind
        given.setdefault(name, []).extend(kept if isinstance(kept, list) else [kept])
    return {name: as_answer(parts) for name, parts in given.items() if parts}, kinds


def _said(result: dict[str, Any], field: str) -> Message:
    """A message that the annotator wrote into the Chat tag."""
    value = result.get("value")
    turn = value.get("chatmessage") if isinstance(value, dict) else None
    return chat_message(turn, f"{field}.chatmessage")


def _minimal(values: dict[str, Any], source: SourceConfig) -> Iterator[Made]:
    if "annotation_id" not in values:
        detail = "expected a task with annotations, or a row of JSON_MIN with annotation_id"
        raise FieldError("annotations", "missing_field", detail)
    if source.annotations == "majority":
        raise ConfigError(
            "annotations: majority needs all answers to a task at once, and an export as JSON_MIN "
            "has a row for each. Export the project as JSON."
        )
    columns = source.columns
    others = {k: v for k, v in values.items() if k not in _MINIMAL}
    asked = {columns.system, columns.messages or columns.user}
    if columns.messages is columns.user is None:
        asked |= set(PROMPTS)
    given = {name: _plain(value) for name, value in others.items() if name not in asked}
    answers = {name: value for name, value in given.items() if value not in (None, "", [])}
    annotation = Annotation(
        answers,
        created_at=as_time(values.get("updated_at") or values.get("created_at"), "updated_at"),
        skipped=None if answers else "empty_annotation",
        meta=names(task=values.get("id"), annotation=values["annotation_id"]),
    )
    yield from drafts(prompt_of(others, columns), values, [annotation], source)


def _plain(value: object) -> object:
    """JSON_MIN keeps one choice as a text and several as ``{"choices": [...]}``."""
    if isinstance(value, dict) and len(value) == 1:
        ((key, inner),) = value.items()
        return inner if key in _VALUES.values() else value
    return value
