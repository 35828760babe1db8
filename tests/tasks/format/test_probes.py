"""The conversations that servers are held against, with the trainer's own tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tasks.example import Example, Message
from tasks.format.probes import FILE, write_probes
from tasks.format.render import prompt_ids
from tasks.format.template import Template
from tests.tasks.format.conftest import family

CALL = '[{"id": "c1", "type": "function", "function": {"name": "find", "arguments": {"id": 7}}}]'


def example(number: int, *turns: Message, tools: str | None = None) -> Example:
    asked = turns or (Message("user", f"Where is {number}?"), Message("assistant", "There."))
    return Example(f"{number:02}{0:062}", asked, "human", str(number), tools=tools)


def written(
    folder: Path, template: Template, rows: list[Example], max_length: int = 4096
) -> dict[str, Any]:
    splits = ["validation"] * len(rows)
    count = write_probes(rows, splits, template, max_length, folder)
    lines = [json.loads(line) for line in (folder / FILE).read_text("utf-8").splitlines()]
    assert len(lines) == count
    return {line["name"]: line for line in lines}


@pytest.fixture
def chatml(smol: Path) -> Template:
    from transformers import AutoTokenizer

    return Template(AutoTokenizer.from_pretrained(smol))


def test_prompts_are_what_inference_sends_and_answers_end_with_the_turn(
    tmp_path: Path, chatml: Template
) -> None:
    found = written(tmp_path, chatml, [example(number) for number in range(20)])
    made = ["system turn", "several turns", "unicode", "whitespace", "long"]
    assert list(found)[:5] == made
    assert len(found) == 13  # eight rows of twenty
    for probe in found.values():
        turns = [Message(**turn) for turn in probe["turns"]]
        assert probe["prompt_ids"] == prompt_ids(turns, chatml.tokenizer)
        assert probe["answer_ids"][-1] in chatml.stop_ids
        assert chatml.stop_ids.isdisjoint(probe["answer_ids"][:-1])
    assert len(found["long"]["prompt_ids"]) > 500
    several = chatml.tokenizer.decode(found["several turns"]["prompt_ids"])
    assert "Good morning, how can I help?" in several


def test_the_rows_are_the_same_in_whatever_order_they_come(
    tmp_path: Path, chatml: Template
) -> None:
    rows = [example(number) for number in range(20)]
    assert written(tmp_path, chatml, rows) == written(tmp_path, chatml, rows[::-1])


def test_training_rows_and_what_is_too_long_are_left_out(tmp_path: Path, chatml: Template) -> None:
    count = write_probes([example(1)], ["train"], chatml, 200, tmp_path)
    assert count == 4
    assert "long" not in (tmp_path / FILE).read_text("utf-8")


def test_a_template_without_system_turns_is_not_asked_for_one(tmp_path: Path) -> None:
    found = written(tmp_path, family("gemma"), [])
    assert "system turn" not in found
    assert "several turns" in found
