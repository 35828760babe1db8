"""A record of an Argilla data set -> drafts of examples.

Formats: Argilla 2's ``dataset.records.to_json`` and ``to_list(flatten=False)`` (answers nested
under ``responses``), ``to_list(flatten=True)`` and its data sets on the hub (the columns
``QUESTION.responses``, ``QUESTION.responses.users``, ``QUESTION.responses.status``); the feedback
records of Argilla 1, as its API gives them (``responses`` a list with ``values``) and as it pushed
them to the hub (a column for each question). The prompt is a field, a chat field too; the answer a
question.

Only submitted responses count, and suggestions never do. Argilla 2's nested export leaves the
status of a response out: there every response counts unless the record itself is still pending, so
prefer the flattened form, which has it. No form notes when a response was given: the latest is the
one that stands last.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from tasks.ingest.annotations import Annotation, drafts, prompt_of
from tasks.ingest.config import SourceConfig
from tasks.ingest.draft import Made
from tasks.ingest.fields import FieldError, an_object, as_time, names, objects

# (user, status, question, value) of one response.
_Response = tuple[object, object, str, Any]
_SUFFIX = ".responses"


def argilla(values: dict[str, Any], source: SourceConfig) -> Iterator[Made]:
    """The examples of one record, by the source's rule for several annotators."""
    fields = an_object(values, "fields") if isinstance(values.get("fields"), dict) else values
    metadata = _metadata(values)
    task = {**values, **metadata, **fields}
    annotations = _annotations(_responses(values), values)
    if not annotations or all(a.skipped for a in annotations):
        yield from drafts([], task, annotations, source)
        return
    mapped = source.columns.user or source.columns.messages
    prompt = prompt_of(task if mapped else fields, source.columns)
    yield from drafts(prompt, task, annotations, source)


def _annotations(responses: list[_Response], record: Mapping[str, Any]) -> list[Annotation]:
    """The responses of each annotator together, in the order in which they stand."""
    by_user: dict[str, list[_Response]] = {}
    for response in responses:
        by_user.setdefault(str(response[0]), []).append(response)
    made = as_time(record.get("updated_at") or record.get("inserted_at"), "updated_at")
    return [
        Annotation(
            {question: value for _, _, question, value in given if value is not None},
            created_at=made,
            skipped=_skipped(given, record.get("status")),
            meta=names(record=record.get("id") or record.get("external_id")),
        )
        for given in by_user.values()
    ]


def _skipped(given: list[_Response], record_status: object) -> str | None:
    statuses = {status for _, status, _, _ in given if isinstance(status, str)}
    if not statuses:  # the form that leaves it out
        return "record_pending" if record_status == "pending" else None
    unfit = sorted(statuses - {"submitted"})
    if unfit:
        return f"response_{unfit[0]}" if unfit[0] in ("draft", "discarded") else "response_pending"
    return None if any(value is not None for *_, value in given) else "empty_annotation"


def _responses(values: dict[str, Any]) -> list[_Response]:
    nested = values.get("responses")
    if isinstance(nested, dict):  # Argilla 2
        return [r for question, given in nested.items() for r in _answers(question, given)]
    if isinstance(nested, list):  # Argilla 1, its API
        return [r for given in objects(nested, "responses") for r in _of_user(given)]
    flat = [name.removesuffix(_SUFFIX) for name in values if name.endswith(_SUFFIX)]
    if flat:
        return [r for question in flat for r in _flat(question, values)]
    pushed = [(name, value) for name, value in values.items() if _is_pushed(value)]
    return [r for question, given in pushed for r in _answers(question, given)]


def _answers(question: str, given: object) -> Iterator[_Response]:
    """A list of responses, or, as Arrow keeps the same, an object of lists."""
    if isinstance(given, dict):
        given = _transposed(given)
    for response in objects(given or [], question):
        yield response.get("user_id"), response.get("status"), question, response.get("value")


def _of_user(given: dict[str, Any]) -> Iterator[_Response]:
    answers = given.get("values") or {}
    if not isinstance(answers, dict):
        detail = f"expected answers by question, came {type(answers).__name__}"
        raise FieldError("responses.values", "wrong_type", detail)
    for question, answer in answers.items() or (("", None),):
        value = answer.get("value") if isinstance(answer, dict) else answer
        yield given.get("user_id"), given.get("status"), question, value


def _flat(question: str, values: dict[str, Any]) -> Iterator[_Response]:
    place = question + _SUFFIX
    given = _list(values.get(place), place)
    users = _list(values.get(f"{place}.users"), f"{place}.users") or [None] * len(given)
    statuses = _list(values.get(f"{place}.status"), f"{place}.status") or [None] * len(given)
    if not len(given) == len(users) == len(statuses):
        detail = "expected as many users and statuses as responses"
        raise FieldError(place, "wrong_type", detail)
    for value, user, status in zip(given, users, statuses, strict=True):
        yield user, status, question, value


def _list(value: object, place: str) -> list[Any]:
    if not isinstance(value, list | None):
        raise FieldError(place, "wrong_type", f"expected a list, came {type(value).__name__}")
    return value or []


def _is_pushed(value: object) -> bool:
    """Whether a column of a data set of Argilla 1 holds the responses to a question."""
    if isinstance(value, dict):
        return {"user_id", "value", "status"} <= set(value)
    return isinstance(value, list) and any(_is_pushed(v) for v in value if isinstance(v, dict))


def _transposed(columns: dict[str, Any]) -> list[dict[str, Any]]:
    lists = {key: value for key, value in columns.items() if isinstance(value, list)}
    if len({len(value) for value in lists.values()}) > 1 or not lists:
        return [columns]
    return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]


def _metadata(values: dict[str, Any]) -> dict[str, Any]:
    """An object; Argilla 1 pushed it as JSON text."""
    metadata = values.get("metadata")
    if isinstance(metadata, str):
        try:
            metadata = json.loads(metadata)
        except (ValueError, RecursionError):
            return {}
    return metadata if isinstance(metadata, dict) else {}
