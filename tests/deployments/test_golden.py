"""``make golden`` from proposal to locked set, on files of its own."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import yaml

from deployments.golden import main, print_log
from flows.config import RetrainConfig, load_config
from tasks.artifacts import BaseModelRef, Contestant, GoldenSet, TaskConfig
from tasks.golden.review import read_reviewed
from tasks.ingest.config import GoldenConfig
from tasks.ingest.snapshot import read_golden
from tasks.looks import log_look
from tasks.objects import open_store

THINGS = ["kettle", "lamp", "router", "tablet", "watch", "headset", "charger", "vacuum"]
FAULTS = ["leaks", "is too loud", "was never delivered", "costs more than it should"]
IN_GOLDEN = "Where can I download the invoice of my last order?"


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def own_environment() -> Iterator[None]:
    """The command lays the stack's settings over its process, which is the tests' here."""
    with patch.dict(os.environ):
        yield


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RETUNE_LOCAL", str(tmp_path / "local"))
    monkeypatch.setenv("RETUNE_STORE", "s3://bucket")
    rows = [
        {"q": f"My {thing} {fault}, please help", "a": fault.split()[-1]}
        for thing in THINGS
        for fault in FAULTS
    ]
    rows += [{"q": f"{IN_GOLDEN} Thanks", "a": "invoice"}, {"q": "no answer", "a": ""}]
    values = {
        "name": "bot",
        "task": {"kind": "classification", "system_prompt": "Name the fault."},
        "ingest": {
            "sources": [
                {
                    "path": str(write(tmp_path / "rows.jsonl", rows)),
                    "columns": {"user": "q", "assistant": "a"},
                }
            ]
        },
        "golden": {
            "name": "faults",
            "source": {
                "path": str(tmp_path / "golden.jsonl"),
                "columns": {"user": "q", "assistant": "a"},
            },
        },
        "clean": {"pii": {"enabled": False}},
    }
    RetrainConfig.model_validate(values)
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def reviewed(folder: Path, status: str = "accept") -> Path:
    rows = read_reviewed(folder / "golden_proposal.jsonl")
    done = [row.model_copy(update={"status": status}).model_dump_json() for row in rows]
    file = folder / "golden_reviewed.jsonl"
    file.write_text("\n".join(done), encoding="utf-8")
    return file


def test_from_proposal_to_set(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "review"
    assert run("propose", config, "--rows", 6, "--folder", folder) == 0
    assert (folder / "golden_review.html").is_file()
    proposed = read_reviewed(folder / "golden_proposal.jsonl")
    assert len(proposed) == 6
    assert all(row.status == "pending" for row in proposed)
    assert all([turn.role for turn in row.messages] == ["user", "assistant"] for row in proposed)

    reviewed(folder, "pending")
    capsys.readouterr()
    assert run("lock", config, "--folder", folder) == 1
    assert "6 of 6 rows are pending" in capsys.readouterr().err

    reviewed(folder)
    assert run("lock", config, "--folder", folder) == 0
    printed = capsys.readouterr().out
    golden = GoldenConfig.model_validate(
        yaml.safe_load(printed[printed.index("golden:") :])["golden"]
    )
    assert (golden.version, golden.reason, golden.name) == (1, None, "faults")
    examples = read_golden(golden, TaskConfig(kind="classification"))
    assert sorted(e.prompt for e in examples) == sorted(r.messages[0].content for r in proposed)


def test_no_reviewer_sees_what_cleaning_would_throw_away(config: Path, tmp_path: Path) -> None:
    refusals = [
        {
            "q": f"How heavy is the {thing} of the neighbour?",
            "a": "As an AI language model, I cannot weigh it.",
        }
        for thing in THINGS
        for _ in range(4)
    ]
    rows = (tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    write(tmp_path / "rows.jsonl", [*map(json.loads, rows), *refusals])
    values = yaml.safe_load(config.read_text(encoding="utf-8"))
    general = write(
        tmp_path / "general.jsonl", [{"q": f"Name river {n}", "a": "x"} for n in range(40)]
    )
    columns = values["ingest"]["sources"][0]["columns"]
    values["ingest"]["sources"].append({"path": str(general), "columns": columns, "general": True})
    config.write_text(yaml.safe_dump(values), encoding="utf-8")
    assert run("propose", config, "--rows", 6, "--folder", tmp_path) == 0
    answers = {r.messages[-1].content for r in read_reviewed(tmp_path / "golden_proposal.jsonl")}
    assert answers <= {fault.split()[-1] for fault in FAULTS} | {"invoice"}


def test_a_set_that_is_there_needs_a_new_version_and_a_reason(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "golden.jsonl", [{"q": IN_GOLDEN, "a": "invoice"}])
    folder = tmp_path / "review"
    assert run("propose", config, "--rows", 5, "--folder", folder) == 0
    proposed = read_reviewed(folder / "golden_proposal.jsonl")
    assert not any("invoice" in row.messages[0].content for row in proposed)
    reviewed(folder)
    capsys.readouterr()
    assert run("lock", config, "--folder", folder) == 1
    assert "Version 2 of golden set 'faults' needs a reason" in capsys.readouterr().err
    assert run("lock", config, "--folder", folder, "--reason", "users ask other things") == 0
    printed = capsys.readouterr().out
    values = yaml.safe_load(printed[printed.index("golden:") :])["golden"]
    assert (values["version"], values["reason"]) == (2, "users ask other things")
    assert (folder / "faults-v2.jsonl").is_file()


def test_the_log_names_every_look(
    config: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    store = str(tmp_path / "store")
    monkeypatch.setenv("RETUNE_STORE", store)
    golden = GoldenSet(
        uri="u", digest="d", model="bot", name="faults", version=1, rows_digest="r" * 64
    )
    candidate = Contestant(
        role="candidate", base_model=BaseModelRef(id="b", digest="b" * 64), adapter_digest="a" * 64
    )
    for flow_run in ("run-1", "run-2"):
        log_look(open_store(store), golden, candidate, flow_run)
    print_log(load_config(config))
    printed = capsys.readouterr().out
    assert "faults version 1: 2 looks by 1 models" in printed
    assert "candidate     aaaaaaaaaaaa  run run-2" in printed


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["propose", "none.yaml"], "no such configuration"),
        (["lock", "{config}"], "Propose rows first"),
        (["propose", "{config}", "--rows", "0"], "num_rows"),
    ],
)
def test_what_cannot_be_done_is_said(
    config: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*(a.format(config=config) for a in arguments)) == 1
    assert words in capsys.readouterr().err
