"""A prompt's version stands for its text."""

from __future__ import annotations

from tasks.synthesize.prompts import WRITE_EXAMPLES, answer_text

# A changed text needs a new version: put both here.
KNOWN = {("write-examples", 1): "58e7fe2111354778fd96c75fbcc72b9d808acf9ac734aa512451c7db9c16648e"}


def test_a_changed_prompt_has_a_new_version() -> None:
    assert KNOWN[WRITE_EXAMPLES.name, WRITE_EXAMPLES.version] == WRITE_EXAMPLES.digest


def test_answers_have_the_order_of_the_schema() -> None:
    schema = {"properties": {"a": {}, "b": {}, "c": {}}}
    assert answer_text({"x": 1, "c": None, "a": "ä"}, schema) == '{"a": "ä", "c": null, "x": 1}'
    assert answer_text("plain", schema) == "plain"
