"""Review: nothing pending or silently changed gets through, and a made set is not written over."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tasks.errors import ConfigError, DataError, MissingFileError
from tasks.example import Example, Message
from tasks.golden.propose import Proposed, Stratum
from tasks.golden.review import (
    ReviewedRow,
    Turn,
    accepted,
    read_reviewed,
    rows_of,
    write_golden,
    write_proposal,
)

WHEN = datetime(2026, 11, 24, tzinfo=UTC)
HOSTILE = '</script><script>alert("x")</script> \u2028 & ü'


def rows() -> list[ReviewedRow]:
    proposed = [
        Proposed(
            Example(
                "raw",
                (
                    Message("system", "be brief"),
                    Message("user", question),
                    Message("assistant", "yes"),
                ),
                "human",
                f"g-{question}",
                WHEN,
                "label",
            ),
            Stratum("label", "human", "short"),
        )
        for question in ("one", "two", HOSTILE)
    ]
    return rows_of(proposed, "be brief")


def review(row: ReviewedRow, status: str, **changes: object) -> ReviewedRow:
    return ReviewedRow.model_validate({**row.model_dump(), "status": status, **changes})


def answered(text: str) -> dict[str, object]:
    turns = (Turn(role="user", content="one"), Turn(role="assistant", content=text))
    return {"messages": [turn.model_dump() for turn in turns]}


def test_a_proposal_comes_back_as_it_was_written(tmp_path: Path) -> None:
    file, page = write_proposal(rows(), tmp_path)
    assert read_reviewed(file) == rows()
    assert [turn.role for turn in rows()[0].messages] == ["user", "assistant"]
    text = page.read_text(encoding="utf-8")
    embedded = re.search(r'id="data">(.*?)</script>', text, re.DOTALL)
    assert embedded is not None
    assert [ReviewedRow.model_validate(row) for row in json.loads(embedded[1])] == rows()


def test_a_begun_review_is_not_written_over(tmp_path: Path) -> None:
    file, _ = write_proposal(rows(), tmp_path)
    write_proposal(rows(), tmp_path)  # nobody has begun
    file.write_text(review(rows()[0], "reject").model_dump_json(), encoding="utf-8")
    with pytest.raises(ConfigError, match="review has begun"):
        write_proposal(rows(), tmp_path)


def test_what_was_accepted_or_edited_is_kept() -> None:
    one, two, three = rows()
    given = [review(one, "edit", **answered("no")), review(two, "reject"), review(three, "accept")]
    kept = accepted(given, "file")
    assert [row.messages[-1].content for row in kept] == ["no", "yes"]


@pytest.mark.parametrize(
    ("status", "changes", "words"),
    [
        ("pending", {}, r"file: 1 of 3 rows are pending, the first is row 1"),
        ("accept", answered("no"), r"row 1 was changed but is marked accept.*edit"),
        ("edit", answered("  "), r"row 1: expected an assistant's answer"),
        ("edit", {"messages": [{"role": "assistant", "content": "yes"},
                               {"role": "user", "content": "one"}]}, "assistant's answer"),
        ("edit", {"messages": [{"role": "user", "content": "TWO"},
                               {"role": "assistant", "content": "yes"}]}, "stands at 1, 2"),
    ],
)  # fmt: skip
def test_a_review_that_is_not_done(status: str, changes: dict[str, object], words: str) -> None:
    one, two, three = rows()
    given = [review(one, status, **changes), review(two, "accept"), review(three, "accept")]
    with pytest.raises(DataError, match=words):
        accepted(given, "file")


def test_nothing_accepted() -> None:
    with pytest.raises(DataError, match="no row was accepted"):
        accepted([review(row, "reject") for row in rows()], "file")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", r"golden\.jsonl:2: row: .*JSON"),
        ('{"id": "x"}', r"golden\.jsonl:2: messages: Field required"),
        (rows()[0].model_dump_json().replace("pending", "ok"), r"golden\.jsonl:2: status: .*'ok'"),
    ],
)
def test_lines_that_cannot_be_read(tmp_path: Path, line: str, words: str) -> None:
    file = tmp_path / "golden.jsonl"
    file.write_text(f"{rows()[0].model_dump_json()}\n{line}\n", encoding="utf-8")
    with pytest.raises(DataError, match=words):
        read_reviewed(file)


def test_no_file_and_no_text(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="Propose rows first"):
        read_reviewed(tmp_path / "none.jsonl")
    (tmp_path / "bad.jsonl").write_bytes(b"\xff")
    with pytest.raises(DataError, match="UTF-8"):
        read_reviewed(tmp_path / "bad.jsonl")


def test_a_made_set_stays(tmp_path: Path) -> None:
    file = tmp_path / "made" / "golden-v1.jsonl"
    digest = write_golden(rows()[:2], file)
    assert write_golden(rows()[:2], file) == digest
    with pytest.raises(ConfigError, match="does not change"):
        write_golden(rows(), file)
    first = json.loads(file.read_text(encoding="utf-8").splitlines()[0])
    assert first["messages"][0] == {"role": "user", "content": "one"}
    assert (first["group"], first["label"]) == ("g-one", "label")
    assert datetime.fromisoformat(first["created_at"]) == WHEN
