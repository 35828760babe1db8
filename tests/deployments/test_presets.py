"""Presets of the form: files over the weekly config."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployments.bootstrap import weekly_config
from deployments.presets import presets
from flows.config import load_config
from tasks.errors import ConfigError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RETUNE_PRESETS", str(tmp_path))
    return tmp_path


def test_those_that_come_along_change_what_they_say_and_nothing_else() -> None:
    weekly = load_config(weekly_config())
    found = {preset.name: preset for preset in presets(weekly_config())}
    assert found.keys() == {"retrain-quick", "retrain-qlora", "retrain-thorough"}
    for preset in found.values():
        same = preset.config.model_dump(exclude={"train", "gate"})
        assert same == weekly.model_dump(exclude={"train", "gate"})
        assert preset.config.train != weekly.train
        assert preset.description.endswith(".")
        assert "\n" not in preset.description
    quick, thorough = found["retrain-quick"].config, found["retrain-thorough"].config
    assert quick.gate.approval.mode == "always"
    assert quick.train.learning_rate == weekly.train.learning_rate
    assert [variant.lora.r for variant in thorough.train.variants()] == [8, 16, 32]
    assert found["retrain-qlora"].config.train.method == "qlora"


def test_one_may_stand_on_another(folder: Path) -> None:
    (folder / "slow.yaml").write_text("# Slow.\n# Very.\ntrain: {epochs: 9}\n")
    (folder / "slower.yaml").write_text("extends: slow.yaml\ntrain: {lora: {r: 64}}\n")
    slow, slower = presets(weekly_config())
    assert (slow.description, slow.config.train.epochs) == ("Slow. Very.", 9)
    assert (slower.config.train.epochs, slower.config.train.lora.r) == (9, 64)
    assert slower.description == "The preset of slower.yaml."


@pytest.mark.parametrize("name", ["manual.yaml", "weekly.yaml", "Big Model.yaml"])
def test_a_name_that_a_deployment_cannot_have_is_refused(folder: Path, name: str) -> None:
    (folder / name).write_text("train: {epochs: 9}")
    with pytest.raises(ConfigError, match=rf"{name}: expected a name .* Rename the file"):
        presets(weekly_config())


def test_a_wrong_value_names_the_file_and_the_field(folder: Path) -> None:
    (folder / "wrong.yaml").write_text("train: {epochs: -1}")
    with pytest.raises(ConfigError, match=r"wrong\.yaml:\n  train\.epochs: .*came -1"):
        presets(weekly_config())


def test_a_folder_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETUNE_PRESETS", "/nowhere/at-all")
    with pytest.raises(ConfigError, match="RETUNE_PRESETS=/nowhere/at-all: expected a folder"):
        presets(weekly_config())
