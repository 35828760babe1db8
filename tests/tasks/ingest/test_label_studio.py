"""Label Studio's JSON and JSON_MIN exports, and the rules for several annotators of one task."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.artifacts import TaskConfig
from tasks.errors import ConfigError
from tasks.example import Example
from tasks.ingest.config import SourceConfig
from tasks.ingest.mapping import Excluded, to_examples
from tasks.ingest.rows import BadRow, Row

TASK = TaskConfig()


def made(
    values: dict[str, Any], annotations: str = "latest", **columns: str
) -> list[Example | BadRow | Excluded]:
    config = {"path": "x.json", "shape": "label_studio", "annotations": annotations}
    source = SourceConfig.model_validate({**config, "columns": columns})
    return to_examples(Row("x.json", 3, values, b"the row"), source, TASK)


def examples(values: dict[str, Any], *how: str, **columns: str) -> list[Example]:
    return [one for one in made(values, *how, **columns) if isinstance(one, Example)]


def reasons(values: dict[str, Any], *how: str, **columns: str) -> list[str]:
    """Why something of the row is left out."""
    return [one.reason for one in made(values, *how, **columns) if isinstance(one, Excluded)]


def refused(values: dict[str, Any], *how: str, **columns: str) -> tuple[str | None, str]:
    (one,) = made(values, *how, **columns)
    assert isinstance(one, BadRow), one
    return one.field, one.reason


def choice(*names: str, question: str = "intent") -> dict[str, Any]:
    return {
        "id": "Dx_aB91ISN",
        "type": "choices",
        "value": {"choices": list(names)},
        "origin": "manual",
        "to_name": "text",
        "from_name": question,
    }


def typed(*texts: str, question: str = "reply") -> dict[str, Any]:
    return {
        "id": "x1",
        "type": "textarea",
        "value": {"text": list(texts)},
        "origin": "manual",
        "to_name": "text",
        "from_name": question,
    }


def annotation(*results: dict[str, Any], day: int = 1, by: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "id": 100 * day + by,
        "completed_by": by,
        "result": list(results),
        "was_cancelled": False,
        "ground_truth": False,
        "created_at": f"2026-03-{day:02}T21:52:49.513742Z",
        "updated_at": f"2026-03-{day:02}T22:16:08.746926Z",
        "draft_created_at": None,
        "lead_time": 4.288,
        "prediction": {},
        "result_count": 0,
        "unique_id": "ab5d-11",
        "import_id": None,
        "last_action": None,
        "task": 1,
        "project": 83,
        "updated_by": by,
        "parent_prediction": None,
        "parent_annotation": None,
        "last_created_by": None,
        **more,
    }


def task(*annotations: dict[str, Any], **data: Any) -> dict[str, Any]:
    return {
        "id": 1,
        "annotations": list(annotations),
        "file_upload": "0a1b-tickets.json",
        "drafts": [],
        "predictions": [],
        "data": data or {"text": "Where is my card?", "customer": "c-7"},
        "meta": {},
        "created_at": "2026-03-01T21:52:49.513742Z",
        "updated_at": "2026-03-09T22:16:08.746926Z",
        "inner_id": 1,
        "total_annotations": len(annotations),
        "cancelled_annotations": 0,
        "total_predictions": 0,
        "comment_count": 0,
        "unresolved_comment_count": 0,
        "last_comment_updated_at": None,
        "project": 83,
        "updated_by": 1,
        "comment_authors": [],
    }


def test_a_choice_is_answer_and_label() -> None:
    (row,) = examples(task(annotation(choice("card_arrival"))))
    assert [(m.role, m.content) for m in row.messages] == [
        ("user", "Where is my card?"),
        ("assistant", "card_arrival"),
    ]
    assert (row.label, row.source) == ("card_arrival", "annotation")
    assert row.created_at is not None
    assert row.created_at.isoformat() == "2026-03-01T22:16:08.746926+00:00"
    assert row.meta == {"file": "x.json", "line": "3", "task": "1", "annotation": "101"}


def test_beside_a_choice_a_textarea_is_the_answer() -> None:
    (row,) = examples(task(annotation(choice("card_arrival"), typed("On its way."))))
    assert (row.answer, row.label) == ("On its way.", "card_arrival")


def test_several_choices_are_a_json_list() -> None:
    (row,) = examples(task(annotation(choice("affirm", "booking"))))
    assert (row.answer, row.label) == ('["affirm", "booking"]', None)


@pytest.mark.parametrize(
    ("kind", "value", "answer"),
    [
        ("number", {"number": 4}, "4"),
        ("rating", {"rating": 5}, "5"),
        ("datetime", {"datetime": "2026-01-02"}, "2026-01-02"),
        ("pairwise", {"selected": "left"}, "left"),
        ("taxonomy", {"taxonomy": [["Animal", "Dog"]]}, '["Animal", "Dog"]'),
        (
            "labels",
            {"start": 0, "end": 5, "text": "Where", "labels": ["ADV"]},
            '{"start": 0, "end": 5, "text": "Where", "labels": ["ADV"]}',
        ),
    ],
)
def test_other_controls(kind: str, value: dict[str, Any], answer: str) -> None:
    result = {"from_name": "q", "to_name": "text", "type": kind, "value": value}
    assert examples(task(annotation(result)))[0].answer == answer


def test_questions_and_data_by_name_and_template() -> None:
    given = task(
        annotation(
            choice("hot", question="mood"), typed("A.", question="one"), typed("B.", question="two")
        ),
        body="Hello",
        customer={"id": "c-7"},
    )
    (row,) = examples(given, user="body", assistant="two", label="mood", group="customer.id")
    assert (row.prompt, row.answer, row.label, row.group) == ("Hello", "B.", "hot", "c-7")
    template = '{"mood": {{ mood | tojson }}, "text": {{ one | tojson }}}'
    (row,) = examples(given, user="data.body", assistant=template)
    assert row.answer == '{"mood": "hot", "text": "A."}'


@pytest.mark.parametrize(
    ("given", "columns", "field", "reason"),
    [
        (
            task(annotation(choice("a"), choice("b", question="r"))),
            {},
            "assistant",
            "ambiguous_answer",
        ),
        (task(annotation(typed("a", "b"))), {}, "reply", "several_texts"),
        (task(annotation(choice("a"))), {"assistant": "reply"}, "reply", "missing_field"),
        (task(annotation(choice("a")), body="x"), {}, "user", "ambiguous_prompt"),
        (task(annotation(choice("a")), text="x", prompt="y"), {}, "user", "ambiguous_prompt"),
        (task(annotation(choice("a")), text="s3://b/a.txt"), {}, "text", "remote_content"),
        (task(annotation(typed("a\0"))), {}, "reply", "nul_character"),
        ({**task(annotation(choice("a"))), "data": "x"}, {}, "data", "wrong_type"),
        ({**task(), "annotations": 1}, {}, "annotations", "wrong_type"),
        ({"id": 1, "data": {"text": "x"}}, {}, "annotations", "missing_field"),
        (
            task(annotation({"from_name": "q", "type": "choices"})),
            {},
            "annotations[0].result[0].value",
            "wrong_type",
        ),
    ],
    ids=range(11),
)
def test_a_task_that_does_not_fit(
    given: dict[str, Any], columns: dict[str, str], field: str, reason: str
) -> None:
    assert refused(given, **columns) == (field, reason)


def test_an_address_may_be_the_prompt_where_the_config_says_so() -> None:
    (row,) = examples(task(annotation(choice("spam")), text="https://x.org/a"), user="text")
    assert row.prompt == "https://x.org/a"


@pytest.mark.parametrize(
    ("given", "left"),
    [
        (task(), ["not_annotated"]),
        (task(annotation(choice("a"), was_cancelled=True)), ["annotation_cancelled"]),
        (task(annotation()), ["empty_annotation"]),
        (task(annotation(choice())), ["empty_annotation"]),
        (task(annotation(choice("a"), reviews=[{"accepted": False}])), ["review_rejected"]),
        (task(annotation(was_cancelled=True), image="x.png"), ["annotation_cancelled"]),
        ({**task(), "predictions": [{"result": [choice("a")]}]}, ["not_annotated"]),
    ],
    ids=range(7),
)
def test_what_is_no_answer_is_left_out_and_says_why(given: dict[str, Any], left: list[str]) -> None:
    assert reasons(given) == left
    assert len(made(given)) == len(left)


def test_of_several_annotators_the_latest_counts() -> None:
    given = task(annotation(choice("b"), day=3, by=2), annotation(choice("a"), day=1))
    assert [row.answer for row in examples(given)] == ["b"]
    assert reasons(given) == ["superseded"]


def test_a_mapped_time_does_not_decide_which_is_the_latest() -> None:
    given = task(annotation(choice("b"), day=3, by=2), annotation(choice("a"), day=1))
    (row,) = examples({**given, "data": {"text": "x", "sent": "2020-01-01"}}, created_at="sent")
    assert row.answer == "b"


def test_a_majority_is_more_than_half() -> None:
    two_of_three = [annotation(choice(c), by=i, day=i) for i, c in enumerate("aba", start=1)]
    assert [row.answer for row in examples(task(*two_of_three), "majority")] == ["a"]
    assert reasons(task(*two_of_three), "majority") == ["outvoted", "confirmed"]
    split = task(annotation(choice("a")), annotation(choice("b"), by=2))
    assert examples(split, "majority") == []
    assert reasons(split, "majority") == ["annotators_disagree"] * 2


def test_all_annotations_of_a_task_are_one_group() -> None:
    given = task(annotation(choice("a")), annotation(choice("b"), by=2))
    rows = examples(given, "all")
    assert [row.answer for row in rows] == ["a", "b"]
    assert len({row.group for row in rows}) == 1
    assert len({row.id for row in rows}) == 2


def test_a_corrected_answer_stays_in_its_group() -> None:
    """Else next week its prompt could be on the other side of the split."""
    (before,) = examples(task(annotation(choice("a"))))
    (after,) = examples(task(annotation(choice("b"), day=9)))
    assert before.group == after.group


def test_the_ground_truth_decides_alone() -> None:
    given = task(annotation(choice("a"), ground_truth=True), annotation(choice("b"), day=5, by=2))
    for how in ("latest", "majority", "all"):
        assert [row.answer for row in examples(given, how)] == ["a"]
        assert reasons(given, how) == ["not_ground_truth"]


def test_a_cancelled_annotation_beside_a_good_one() -> None:
    given = task(annotation(choice("a")), annotation(day=2, by=2, was_cancelled=True))
    assert [row.answer for row in examples(given)] == ["a"]
    assert reasons(given) == ["annotation_cancelled"]


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.booleans()), max_size=6),
    st.sampled_from(["latest", "majority", "all"]),
)
def test_every_annotation_is_accounted_for(
    annotators: list[tuple[str, bool, bool]], how: str
) -> None:
    given = task(
        *(
            annotation(choice(said), by=i, was_cancelled=cancelled, ground_truth=true)
            for i, (said, cancelled, true) in enumerate(annotators)
        )
    )
    results = made(given, how)
    assert len(results) == max(1, len(annotators))
    assert not any(isinstance(one, BadRow) for one in results)
    if how != "all":
        assert sum(isinstance(one, Example) for one in results) <= 1


def test_chat_messages_in_the_data() -> None:
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Where?"}]
    (row,) = examples(task(annotation(typed("There.")), messages=turns))
    assert [m.role for m in row.messages] == ["system", "user", "assistant"]
    assert row.answer == "There."


def test_paragraphs_in_the_data() -> None:
    said = [{"author": "User", "text": "Hi"}, {"author": "bot", "text": "Hello"}]
    turns = [*said, {"author": "human", "text": "Where?"}]
    (row,) = examples(task(annotation(typed("There.")), dialogue=turns), messages="dialogue")
    assert [m.content for m in row.messages] == ["Hi", "Hello", "Where?", "There."]
    bad = task(annotation(typed("There.")), dialogue=[{"author": "Ann", "text": "Hi"}])
    assert refused(bad, messages="dialogue") == ("dialogue[0].author", "unknown_role")


def test_a_conversation_that_has_its_answer_takes_no_other() -> None:
    turns = [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "Here."}]
    given = task(annotation(typed("There.")), messages=turns)
    assert refused(given) == ("messages", "already_answered")


def test_messages_that_the_annotator_wrote() -> None:
    message = {
        "from_name": "chat",
        "to_name": "chat",
        "type": "chatmessage",
        "value": {"chatmessage": {"role": "assistant", "content": "There.", "createdAt": 1}},
    }
    given = task(annotation(message), messages=[{"role": "user", "content": "Where?"}])
    assert [m.content for m in examples(given)[0].messages] == ["Where?", "There."]


MINIMAL = {
    "text": "Where is my card?",
    "id": 1,
    "intent": "card_arrival",
    "annotator": 1,
    "annotation_id": 101,
    "created_at": "2026-03-09T22:16:08.728353Z",
    "updated_at": "2026-03-09T22:16:08.728378Z",
    "lead_time": 4.288,
}


def test_json_min() -> None:
    (row,) = examples(MINIMAL)
    assert (row.prompt, row.answer) == ("Where is my card?", "card_arrival")
    assert row.meta["annotation"] == "101"
    (several,) = examples({**MINIMAL, "intent": {"choices": ["a", "b"]}})
    assert several.answer == '["a", "b"]'


def test_json_min_with_more_columns_needs_a_mapping() -> None:
    given = {**MINIMAL, "customer": "c-7"}
    assert refused(given) == ("assistant", "ambiguous_answer")
    (row,) = examples(given, assistant="intent", label="intent", group="customer")
    assert (row.answer, row.label, row.group) == ("card_arrival", "card_arrival", "c-7")


def test_json_min_cannot_give_a_majority() -> None:
    with pytest.raises(ConfigError, match="Export the project as JSON"):
        made(MINIMAL, "majority")


def test_json_min_without_an_answer() -> None:
    given = {name: value for name, value in MINIMAL.items() if name != "intent"}
    assert reasons(given) == ["empty_annotation"]
