"""The judge beside people: agreement, biases, and what the gate makes of it."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deployments import calibrate as command
from tasks.anthropic_client import make_client
from tasks.errors import DataError, MissingFileError
from tasks.evaluate.calibration import (
    RatedRow,
    calibrate,
    last_calibration,
    read_rated,
    store_calibration,
)
from tasks.evaluate.config import JudgeConfig
from tasks.objects import Store, open_store
from tests.messages_api import Reply, StubApi, error, grade, tool_use

CONFIG = JudgeConfig(max_retries=1)


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("RETUNE_STORE", str(tmp_path / "store"))
    return open_store()


def rated(number: int = 20) -> list[RatedRow]:
    """Two answers to each prompt, the better first; the grade stands in the answer."""
    return [
        RatedRow(
            prompt=f"p{i // 2}", reference="r", answer=f"worth {score} {'x' * i}", rating=score
        )
        for i, score in enumerate(((5, 2, 4, 1) * number)[:number])
    ]


def judge_by(api: StubApi, rule: Callable[[str], int]) -> None:
    """The server grades by ``rule``, and prefers what it grades higher, else the first."""

    def answer(request: dict[str, Any]) -> Reply:
        text = request["messages"][0]["content"]
        blocks = dict(re.findall(r"<(answer\w*)>\n(.*)\n</", text))
        if "answer" in blocks:
            return grade(rule(blocks["answer"]))
        first, second = rule(blocks["answer_1"]), rule(blocks["answer_2"])
        better = "answer_1" if first >= second else "answer_2"
        return tool_use("record_preference", {"better": better, "reason": ""})

    api.answer = answer


def worth(answer: str) -> int:
    return int(answer.split()[1])


def calibrated(api: StubApi, rows: list[RatedRow]) -> Any:
    with make_client({"ANTHROPIC_BASE_URL": api.url}, CONFIG.max_retries) as client:
        return calibrate(rows, CONFIG, client, open_store())


def test_a_judge_that_grades_as_people_do(api: StubApi) -> None:
    judge_by(api, worth)
    found = calibrated(api, rated())
    assert (found.spearman, found.agreement, found.within_one) == (pytest.approx(1), 1, 1)
    assert (found.mean_difference, found.length_bias, found.num_rows) == (0, 0, 20)
    assert (found.num_pairs, found.pairs_agreement, found.num_contradicted) == (10, 1.0, 0)
    assert "Spearman 1.00 [1.00, 1.00]" in found.as_text()


def test_a_judge_that_likes_length_is_found_out(api: StubApi) -> None:
    judge_by(api, lambda answer: min(5, 1 + len(answer) // 6))
    found = calibrated(api, rated())
    assert found.length_bias > 0.5
    assert abs(found.spearman) < 0.5
    assert found.spearman_low < found.spearman < found.spearman_high


def test_a_judge_that_goes_by_place_is_found_out(api: StubApi) -> None:
    judge_by(api, lambda _: 3)
    found = calibrated(api, rated())
    assert (found.spearman, found.num_contradicted, found.num_first) == (0.0, 10, 10)
    assert found.pairs_agreement == 0.5


def test_without_pairs_the_bias_by_place_is_unknown(api: StubApi) -> None:
    judge_by(api, worth)
    rows = [row.model_copy(update={"prompt": str(i)}) for i, row in enumerate(rated())]
    found = calibrated(api, rows)
    assert found.pairs_agreement is None
    assert "bias by place is unknown" in found.as_text()


def test_a_judge_that_fails_is_not_calibrated(api: StubApi) -> None:
    api.answer = lambda _: error(400)
    with pytest.raises(DataError, match="could not be calibrated: failed"):
        calibrated(api, rated())


def test_the_last_calibration_is_that_of_this_very_judge(api: StubApi, store: Store) -> None:
    judge_by(api, worth)
    assert last_calibration(store, CONFIG) is None
    first = calibrated(api, rated(10))
    second = calibrated(api, rated(14))
    for found in (first, second):
        store_calibration(store, found)
    assert last_calibration(store, CONFIG) == second
    assert last_calibration(store, CONFIG.model_copy(update={"criteria": "other"})) is None


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_rows_are_read(kind: str, tmp_path: Path) -> None:
    file = tmp_path / f"ratings.{kind}"
    # A separator of lines, to Unicode, inside a text; a CSV field may hold a line's end as well.
    wanted = [
        row.model_copy(update={"answer": f"{row.answer}\u2028{i}\n"})
        for i, row in enumerate(rated())
    ]
    rows = [row.model_dump() | {"note": "more"} for row in wanted]
    if kind == "csv":
        with file.open("w", newline="", encoding="utf-8") as out:
            writer = csv.DictWriter(out, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    else:
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        file.write_text("".join(lines), encoding="utf-8")
    assert read_rated(file) == wanted


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("prompt,reference,answer,rating\np,r,a,6\n", r"ratings.csv, row 2, field rating: .*'6'"),
        ("prompt,reference,answer\np,r,a\n", r"row 2, field rating: .*required"),
        ("prompt,reference,answer,rating\n", "0 rated answers; at least 10"),
    ],
)
def test_what_is_no_rating_is_told_by_row_and_field(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "ratings.csv").write_text(text)
    with pytest.raises(DataError, match=told):
        read_rated(tmp_path / "ratings.csv")


def test_lines_that_are_no_json_are_told(tmp_path: Path) -> None:
    (tmp_path / "ratings.jsonl").write_text('{"prompt": "p"\n')
    with pytest.raises(DataError, match=r"ratings\.jsonl, row 1: expected JSON"):
        read_rated(tmp_path / "ratings.jsonl")
    with pytest.raises(MissingFileError, match=r"none\.csv: expected rated answers"):
        read_rated(tmp_path / "none.csv")


def test_the_command_prints_and_keeps_it(
    api: StubApi,
    tmp_path: Path,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    judge_by(api, worth)
    monkeypatch.setattr(command.environment, "apply", lambda: None)
    monkeypatch.setenv("ANTHROPIC_BASE_URL", api.url)
    file = tmp_path / "ratings.jsonl"
    file.write_text("".join(row.model_dump_json() + "\n" for row in rated()))
    assert command.main([str(file)]) == 0
    assert "claude-haiku-4-5 beside people on 20 answers (0 failed)" in capsys.readouterr().out
    kept = last_calibration(store, JudgeConfig())
    assert kept is not None
    assert kept.spearman == pytest.approx(1)
    assert command.main([str(tmp_path / "none.csv")]) == 1
    assert "found no file" in capsys.readouterr().err
    assert command.main([]) == 2
