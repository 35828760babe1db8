"""The doctor's verdict on templates that are well and on those that are not."""

from __future__ import annotations

import io
import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from tasks.format.config import FormatConfig
from tasks.format.doctor import examine, main
from tests.tasks.format.conftest import family


def states(name: str) -> dict[str, str]:
    return {f.kind: f.state for f in examine(family(name), FormatConfig())}


def test_a_template_that_knows_everything() -> None:
    assert set(states("qwen3").values()) == {"right"}


def test_a_template_without_system_role_and_tools() -> None:
    found = states("gemma")
    assert found["one question, one answer"] == "right"
    assert found["a system turn"] == "not supported"
    assert found["a call of a tool"] in ("wrong", "not supported")


def test_a_template_that_forgets_the_system_turn() -> None:
    findings = {f.kind: f for f in examine(family("forgetful"), FormatConfig())}
    assert findings["a system turn"].state == "wrong"
    assert "leaves out the text of turn 1 (system)" in findings["a system turn"].detail


@pytest.fixture
def config(tiny_model: Path, tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    values = {
        "base_model": {"id": str(tiny_model)},
        "task": {"system_prompt": "Name the topic."},
        "format": {"max_length": 128},
    }
    path.write_text(yaml.safe_dump(values))
    return path


def run(*arguments: object) -> tuple[int, str]:
    console = Console(file=io.StringIO(), width=300, force_terminal=True, color_system="standard")
    status = main([str(a) for a in arguments], console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return status, text


def test_the_verdict_and_the_row_in_colour(config: Path) -> None:
    status, said = run(config)
    assert status == 0, said
    assert "one question, one answer" in said
    assert "Name the topic." in re.sub(r"\x1b\[[0-9;]*m", "", said)
    green = [part.partition("\x1b[0m")[0] for part in said.split("\x1b[1;30;42m")[1:]]
    assert "".join(green) == "It is behind the old windmill.<|im_end|>"


def test_a_row_of_one_s_own(config: Path, tmp_path: Path) -> None:
    row = tmp_path / "row.json"
    turns = [{"role": "user", "content": "Hm?"}, {"role": "assistant", "content": "Ha!"}]
    row.write_text(json.dumps({"messages": turns}))
    status, said = run(config, row)
    assert status == 0
    assert "Ha!" in said.replace("\x1b[1;30;42m", "").replace("\x1b[0m", "")
    row.write_text('{"messages": "none"}')
    status, said = run(config, row)
    assert status == 1
    assert "row.json: expected" in said


def test_a_model_that_cannot_be_trained_ends_with_1(config: Path, tmp_path: Path) -> None:
    values = yaml.safe_load(config.read_text())
    broken = tmp_path / "broken"
    shutil.copytree(values["base_model"]["id"], broken)
    (broken / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>' }}{% endif %}"
    )
    values["base_model"]["id"] = str(broken)
    config.write_text(yaml.safe_dump(values))
    status, said = run(config)
    assert status == 1
    assert "cannot be trained on questions and answers" in said


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("format: {max_length: 100000}", "knows"),
        ("base_model: {id: nowhere/none}", "no config.json"),
        ("[1, 2]", "expected a mapping of sections"),
        ("format: {max_lenght: 1}", "expected a retrain config"),
    ],
)
def test_configs_that_it_cannot_use(
    config: Path, text: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    values = yaml.safe_load(config.read_text())
    changes = yaml.safe_load(text)
    merged = {**values, **changes} if isinstance(changes, dict) else changes
    config.write_text(yaml.safe_dump(merged))
    status, said = run(config)
    assert status == 1
    assert words in said


def test_without_a_config_it_says_how() -> None:
    status, said = run()
    assert status == 2
    assert "usage" in said
