"""A data row of a Labelbox export (NDJSON) -> drafts of examples.

Format: Labelbox's reference, "Export quick reference", "Export text annotations" and "Export
multimodal chat annotations" (export v2, which the streamed export keeps). Each data row holds its
labels by project. Questions are the classifications, by name or value: a radio gives one value, a
checklist a list, a text its content; nested ones stand beside them under their own name. Spans are
``objects``, for a template. A text that lies at a URL is not in the export, so its row is refused.

A label that was skipped is left out. Whether its review is done is a matter of the export: choose
the workflow status there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tasks.example import Message
from tasks.ingest.annotations import Annotation, drafts, local_text, prompt_of
from tasks.ingest.chat import with_system
from tasks.ingest.config import SourceConfig
from tasks.ingest.draft import Made
from tasks.ingest.fields import (
    FieldError,
    an_object,
    as_time,
    column,
    names,
    objects,
    optional_text,
)

_RADIOS = ("radio_answer", "conversational_radio_answer")
_CHECKLISTS = ("checklist_answers", "conversational_checklist_answers")
_ROW = "data_row.row_data"


def labelbox(values: dict[str, Any], source: SourceConfig) -> Iterator[Made]:
    """The examples of one data row, by the source's rule for several annotators."""
    row = an_object(values, "data_row")
    annotations = [
        _annotation(label, place, row)
        for project, content in an_object(values, "projects").items()
        for label, place in _labels(content, f"projects.{project}")
    ]
    if not annotations or all(a.skipped for a in annotations):
        yield from drafts([], values, annotations, source)
        return
    yield from drafts(_prompt(values, source), {**row, **values}, annotations, source)


def _prompt(values: dict[str, Any], source: SourceConfig) -> list[Message]:
    columns = source.columns
    if columns.user is not None or columns.messages is not None:
        return prompt_of(values, columns)
    user = Message("user", local_text(column(values, _ROW), _ROW))
    return with_system(optional_text(values, columns.system), [user], _ROW)


def _labels(project: object, place: str) -> Iterator[tuple[dict[str, Any], str]]:
    if not isinstance(project, dict):
        detail = f"expected an object with labels, came {type(project).__name__}"
        raise FieldError(place, "wrong_type", detail)
    for index, label in enumerate(objects(project.get("labels") or [], f"{place}.labels")):
        yield label, f"{place}.labels[{index}]"


def _annotation(label: dict[str, Any], place: str, row: dict[str, Any]) -> Annotation:
    given = label.get("annotations")
    if not isinstance(given, dict):
        detail = f"expected an object with classifications, came {type(given).__name__}"
        raise FieldError(f"{place}.annotations", "wrong_type", detail)
    typed: set[str] = set()
    answers = _answers(given.get("classifications"), f"{place}.classifications", typed)
    spans = objects(given.get("objects") or [], f"{place}.objects")
    return Annotation(
        {**answers, "objects": spans} if spans else answers,
        main=next(iter(answers)) if len(answers) == 1 else None,
        free_text=frozenset(typed),
        created_at=_made(label, place),
        skipped=_skipped(label, bool(answers or spans)),
        meta=names(data_row=row.get("id"), global_key=row.get("global_key"), label=label.get("id")),
    )


def _made(label: dict[str, Any], place: str) -> Any:
    details = label.get("label_details")
    if not isinstance(details, dict):
        return None
    return as_time(details.get("updated_at") or details.get("created_at"), f"{place}.updated_at")


def _skipped(label: dict[str, Any], answered: bool) -> str | None:
    performance = label.get("performance_details")
    if isinstance(performance, dict) and performance.get("skipped") is True:
        return "annotation_cancelled"
    return None if answered else "empty_annotation"


def _answers(classifications: object, place: str, typed: set[str]) -> dict[str, Any]:
    """The answers by question, those of nested questions after their parents'."""
    answers: dict[str, Any] = {}
    for index, given in enumerate(objects(classifications or [], place)):
        name, value, nested = _answer(given, f"{place}[{index}]", typed)
        answers.setdefault(name, value)
        for key, inner in nested.items():
            answers.setdefault(key, inner)
    return answers


def _answer(given: dict[str, Any], place: str, typed: set[str]) -> tuple[str, Any, dict[str, Any]]:
    name = given.get("name") or given.get("value")
    if not isinstance(name, str):
        raise FieldError(f"{place}.name", "missing_field", "expected the question's name")
    for key in _RADIOS:
        if isinstance(chosen := given.get(key), dict):
            return name, _value(chosen, place), _nested(chosen, place, typed)
    for key in _CHECKLISTS:
        if key in given:
            options = objects(given[key], f"{place}.{key}")
            inner = {k: v for o in options for k, v in _nested(o, place, typed).items()}
            return name, [_value(option, place) for option in options], inner
    if isinstance(answer := given.get("text_answer"), dict):
        typed.add(name)
        return name, answer.get("content"), {}
    detail = "expected a radio, checklist or text answer"
    raise FieldError(place, "unsupported_annotation", detail)


def _value(option: dict[str, Any], place: str) -> str:
    """The value that the ontology gives the option, else the name that annotators see."""
    value = option.get("value") or option.get("name")
    if not isinstance(value, str):
        raise FieldError(f"{place}.value", "missing_field", "expected the option's value")
    return value


def _nested(option: dict[str, Any], place: str, typed: set[str]) -> dict[str, Any]:
    return _answers(option.get("classifications"), f"{place}.classifications", typed)
