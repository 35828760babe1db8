"""A base model is what its files hold, wherever they lie."""

import shutil
from pathlib import Path

import pytest

from tasks import base_model
from tasks.artifacts import BaseModelRef
from tasks.base_model import (
    BaseModelConfig,
    folder_digest,
    load_contestant,
    load_tokenizer,
    locate,
    native_dtype,
    pin,
)
from tasks.errors import ArtifactMissingError, ConfigError, MissingFileError


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


def test_a_whole_model_stands_alone(tiny_model: Path) -> None:
    """Its base model is not asked for: it need not be there."""
    import torch

    absent = BaseModelRef(id="acme/none", digest="0" * 64)
    model = load_contestant(absent, tiny_model, torch.bfloat16)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    with pytest.raises(MissingFileError, match="acme/none"):
        load_contestant(absent, None, torch.bfloat16)


def test_an_adapter_comes_on_its_base_model(tiny_model: Path, tmp_path: Path) -> None:
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model

    base = pin(BaseModelConfig(id=str(tiny_model)))
    settings = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    adapted = get_peft_model(load_contestant(base, None, torch.float32), settings)
    adapted.save_pretrained(tmp_path / "adapter")
    loaded = load_contestant(base, tmp_path / "adapter", torch.float32)
    assert isinstance(loaded, PeftModel)
    ids = torch.arange(50, 60)[None]
    with torch.no_grad():
        torch.testing.assert_close(loaded(input_ids=ids).logits, adapted(input_ids=ids).logits)


def test_a_folder_with_no_model_names_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "log.json").write_text("{}")
    with pytest.raises(ArtifactMissingError, match=r"adapter_config\.json.*found \['.*log\.json'"):
        load_contestant(BaseModelRef(id="acme/tiny", digest="0" * 64), tmp_path, None)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"avx2", "avx512f"}, "float32"),
        ({"avx2", "avx512_bf16"}, "bfloat16"),
        ({"amx_bf16"}, "bfloat16"),
        ({"asimd", "bf16"}, "bfloat16"),
        (set(), "float32"),
    ],
)
def test_the_precision_that_the_processor_computes_in(
    flags: set[str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(base_model, "_cpu_flags", lambda: frozenset(flags))
    assert native_dtype() == expected


@pytest.mark.parametrize(("has_units", "expected"), [(True, "bfloat16"), (False, "float32")])
def test_a_gpu_without_bfloat16_units_computes_in_float32(
    has_units: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation: has_units)
    assert native_dtype() == expected
