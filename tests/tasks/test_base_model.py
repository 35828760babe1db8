"""A base model is what its files hold, wherever they lie."""

import shutil
from pathlib import Path

import pytest

from tasks.artifacts import BaseModelRef
from tasks.base_model import BaseModelConfig, folder_digest, load_tokenizer, locate, pin
from tasks.errors import ConfigError, MissingFileError


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("RETUNE_MODELS", str(tmp_path / "models"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "models" / "acme--tiny"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(bytes(64))
    (folder / "README.md").write_text("Hello")
    return folder


def changed(model: Path, name: str) -> Path:
    """A copy of the model in another place with one other byte in a file."""
    copy = model.with_name(f"changed-{name}")
    shutil.copytree(model, copy)
    body = (copy / name).read_bytes()
    (copy / name).write_bytes(body[:-1] + bytes([body[-1] ^ 1]))
    return copy


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_another_byte_is_another_model(model: Path, name: str) -> None:
    assert folder_digest(changed(model, name)) != folder_digest(model)


def test_the_name_of_the_folder_and_the_readme_are_not_the_model(model: Path) -> None:
    assert folder_digest(changed(model, "README.md")) == folder_digest(model)
    by_name = pin(BaseModelConfig(id="acme/tiny"))
    by_path = pin(BaseModelConfig(id=str(model.rename(model.with_name("elsewhere")))))
    assert by_name.digest == by_path.digest


def test_a_file_under_another_name_is_another_model(model: Path) -> None:
    before = folder_digest(model)
    (model / "tokenizer.json").rename(model / "vocab.json")
    assert folder_digest(model) != before


def test_the_cache_key_is_the_files_alone(model: Path) -> None:
    by_name = BaseModelConfig(id="acme/tiny", license="apache-2.0")
    assert by_name.fingerprint() == BaseModelConfig(id=str(model)).fingerprint()


def test_pickled_weights_are_refused(model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    with pytest.raises(ConfigError, match=r"expected \*\.safetensors, found none"):
        pin(BaseModelConfig(id="acme/tiny"))


def test_a_missing_model_names_the_places(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError) as caught:
        locate("acme/none")
    assert str(tmp_path / "models" / "acme--none") in str(caught.value)
    assert "HF_HUB_OFFLINE" in str(caught.value)


def test_a_model_changed_under_its_name_is_refused(model: Path) -> None:
    ref = pin(BaseModelConfig(id="acme/tiny"))
    (model / "model.safetensors").write_bytes(bytes(65))
    with pytest.raises(ConfigError, match="changed under its name"):
        load_tokenizer(ref)


def test_a_model_in_place_of_another_is_refused(model: Path) -> None:
    stale = BaseModelRef(id=str(model), digest="0" * 64)
    with pytest.raises(ConfigError, match="expected 000000000000"):
        load_tokenizer(stale)
