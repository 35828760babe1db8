"""The review queue is a file that Label Studio imports, without personal data."""

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from tasks.clean.config import PiiConfig
from tasks.clean.conflicts import Conflict
from tasks.clean.labels import LabelIssue, LossOutlier
from tasks.clean.review import (
    INTERFACE,
    conflict_items,
    label_items,
    loss_items,
    redacted,
    write_review,
)

NO_PII = PiiConfig(enabled=False)


def test_both_sides_of_a_conflict_are_shown_with_both_answers(make_rows: Any) -> None:
    rows = make_rows([("Where is it?", "billing"), ("Where is it?", "delivery")])
    items = conflict_items(rows, [Conflict((0, 1), 1.0, stays=0)], dropped={1})
    assert [(i.answer, i.other, i.dropped) for i in items] == [
        ("billing", "delivery", False),
        ("delivery", "billing", True),
    ]
    assert items[0].place == "rows.csv:1"
    assert "rows.csv:2" in items[0].reason


def test_the_file_is_a_list_of_tasks_that_the_interface_shows(
    make_rows: Any, tmp_path: Path
) -> None:
    rows = make_rows([("Is it <b>blue</b>?", "no"), ("What?", "so")])
    issue = LabelIssue(0, "answer", "no", "yes", 0.02, 0.97)
    items = [
        *label_items(rows, [issue], dropped=()),
        *loss_items(rows, [LossOutlier(1, 9.1, 4.0)]),
    ]
    write_review(redacted(items, NO_PII), tmp_path)
    first, second = json.loads((tmp_path / "review.json").read_text(encoding="utf-8"))
    assert first["data"]["prompt"] == "Is it <b>blue</b>?"
    assert first["data"]["id"] == rows.column("id")[0].as_py()
    (proposal,) = first["predictions"][0]["result"]
    assert proposal["value"] == {"text": ["yes"]}
    assert first["predictions"][0]["score"] == 0.97
    assert second["predictions"] == []
    view = ElementTree.fromstring((tmp_path / "review.xml").read_text(encoding="utf-8"))
    shown = {name for tag in view.iter() for name in tag.get("value", "").split("$")[1:]}
    assert {name.strip(": ") for name in shown} <= first["data"].keys()
    names = {tag.get("name") for tag in view.iter()}
    assert {proposal["from_name"], proposal["to_name"]} <= names


def test_reviewers_see_no_personal_data(make_rows: Any) -> None:
    rows = make_rows([("Write to anna.berg@example.com", "a@example.org"), ("Who?", "x")])
    items = conflict_items(rows, [Conflict((0, 1), 1.0, stays=None)], dropped={0, 1})
    safe = json.dumps([str(item) for item in redacted(items, PiiConfig())])
    assert "example.com" not in safe
    assert "example.org" not in safe
    assert "<EMAIL_ADDRESS" in safe


def test_the_interface_is_well_formed() -> None:
    assert ElementTree.fromstring(INTERFACE).tag == "View"
