from __future__ import annotations

from pathlib import Path

import pytest

from deployments.prepare_model import main, prepare

ID = "HuggingFaceTB/SmolLM2-135M-Instruct"


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in {
        "RETUNE_LOCAL": tmp_path,
        "RETUNE_MODELS": tmp_path / "models",
        "HF_HUB_OFFLINE": "1",
    }.items():
        monkeypatch.setenv(name, str(value))
    return tmp_path / "models"


def test_a_model_that_does_not_come_with_the_installation_is_refused(
    models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--id", "someone/else"]) == 1
    assert "Set HF_HUB_OFFLINE=0" in capsys.readouterr().err
    assert list(models.iterdir()) == []


def test_a_prepared_model_is_left_alone(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = models / "HuggingFaceTB--SmolLM2-135M-Instruct"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    assert prepare(ID) == folder
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_the_packaged_model_becomes_a_plain_folder(models: Path) -> None:
    from transformers import AutoTokenizer

    folder = prepare(ID)
    names = {file.name for file in folder.iterdir()}
    assert names >= {"config.json", "model.safetensors", "chat_template.jinja", "LICENSE"}
    assert [place.name for place in models.iterdir()] == [folder.name]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|im_start|>", "<|im_end|>")
    assert tokenizer.model_max_length == 8192
    assert tokenizer.tokenize("a  12") == ["a", "ĠĠ", "1", "2"]
