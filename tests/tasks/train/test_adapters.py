"""What a training leaves: the same weights are the same bytes, and they load again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from tasks.artifacts import BaseModelRef
from tasks.base_model import BaseModelConfig, load_contestant, load_tokenizer, pin
from tasks.errors import TrainingError
from tasks.storage import digest_of, file_digest
from tasks.train.adapters import (
    MODEL_CONFIG,
    SETTINGS,
    WEIGHTS,
    save_adapter,
    save_full,
    weights_digest,
)
from tasks.train.config import TrainConfig
from tasks.train.model import prepare
from tests.base_models import ALL_LINEAR

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rslora": {"rslora": True},
    "dora": {"dora": True},
    "all-linear": {"target_modules": "all-linear"},
    "in another order": {"target_modules": ["v_proj", "o_proj", "k_proj", "q_proj"]},
}
IDS = torch.arange(100, 120)[None]


@pytest.fixture
def base(tiny_model: Path) -> BaseModelRef:
    return pin(BaseModelConfig(id=str(tiny_model)))


def trained(base: BaseModelRef, seed: int = 0, method: str = "lora", **lora: Any) -> Any:
    """A model whose trained weights are no longer what they started as."""
    config = TrainConfig.model_validate(
        {"method": method, "precision": "float32", "lora": {"r": 4, "dropout": 0.0, **lora}}
    )
    torch.manual_seed(seed)
    model = prepare(base, config, load_tokenizer(base))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.02 * torch.randn_like(parameter))
    return model.eval()


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(input_ids=IDS).logits
    return found


@pytest.mark.parametrize("lora", VARIANTS.values(), ids=VARIANTS)
def test_an_adapter_is_the_same_bytes_and_loads(
    base: BaseModelRef, tmp_path: Path, lora: dict[str, Any]
) -> None:
    digests = set()
    for name in ("a", "b"):
        model = trained(base, **lora)
        save_adapter(model, base, tmp_path / name)
        digests.add(weights_digest(tmp_path / name))
    assert len(digests) == 1
    assert {f.name for f in (tmp_path / "a").iterdir()} == {WEIGHTS, SETTINGS}
    loaded = load_contestant(base, tmp_path / "a", torch.float32)
    torch.testing.assert_close(logits(loaded), logits(model))
    assert not torch.allclose(logits(load_contestant(base, None, torch.float32)), logits(model))


def test_the_settings_name_the_model_and_are_sorted(base: BaseModelRef, tmp_path: Path) -> None:
    named = base.model_copy(update={"id": "acme/base", "revision": "abc"})
    save_adapter(trained(base, target_modules="all-linear"), named, tmp_path)
    settings = json.loads((tmp_path / SETTINGS).read_text())
    assert settings["target_modules"] == sorted(ALL_LINEAR)
    assert (settings["base_model_name_or_path"], settings["revision"]) == ("acme/base", "abc")
    assert base.id not in (tmp_path / SETTINGS).read_text()


def test_an_adapters_digest_is_of_its_two_files_alone(base: BaseModelRef, tmp_path: Path) -> None:
    save_adapter(trained(base), base, tmp_path)
    digest = weights_digest(tmp_path)
    assert digest == digest_of({n: file_digest(tmp_path / n) for n in (WEIGHTS, SETTINGS)})
    (tmp_path / "README.md").write_text("A card")
    (tmp_path / "log.json").write_text("{}")
    assert weights_digest(tmp_path) == digest
    save_adapter(trained(base, seed=1), base, tmp_path)
    assert weights_digest(tmp_path) != digest


def test_a_whole_model_is_the_same_bytes_and_loads(base: BaseModelRef, tmp_path: Path) -> None:
    digests = set()
    for name in ("a", "b"):
        model = trained(base, method="full")
        assert save_full(model, base, tmp_path / name) is torch.float32
        (tmp_path / name / "log.json").write_text(name)
        (tmp_path / name / "README.md").write_text(name)
        digests.add(weights_digest(tmp_path / name))
    assert len(digests) == 1
    torch.testing.assert_close(
        logits(load_contestant(base, tmp_path / "a", torch.float32)), logits(model)
    )
    texts = [f.read_text("utf-8") for f in (tmp_path / "a").glob("*.json")]
    assert not any(base.id in text for text in texts)
    kinds = {f.suffix for f in (tmp_path / "a").iterdir()}
    assert kinds <= {".safetensors", ".json", ".jinja", ".txt", ".md"}


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_every_file_that_serves_is_in_a_whole_models_digest(
    base: BaseModelRef, tmp_path: Path, name: str
) -> None:
    save_full(trained(base, method="full"), base, tmp_path)
    before = weights_digest(tmp_path)
    assert (tmp_path / "tokenizer.json").read_bytes() == Path(
        base.id, "tokenizer.json"
    ).read_bytes()
    body = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(body[:-1] + bytes([body[-1] ^ 1]))
    assert weights_digest(tmp_path) != before


def test_a_whole_model_is_kept_in_the_base_models_dtype(tiny_model: Path, tmp_path: Path) -> None:
    """Tied weights stay one tensor, and the config says what the weights are."""
    from transformers import AutoModelForCausalLM

    half = tmp_path / "half"
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16)
    model.config.tie_word_embeddings = True
    model.tie_weights()
    model.save_pretrained(half)
    for file in tiny_model.glob("*token*"):
        (half / file.name).write_bytes(file.read_bytes())
    base = pin(BaseModelConfig(id=str(half)))
    master = trained(base, method="full")
    assert save_full(master, base, tmp_path / "out") is torch.bfloat16
    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.bfloat16}  # noqa: SIM118
        assert "lm_head.weight" not in file.keys()  # noqa: SIM118
    assert json.loads((tmp_path / "out" / MODEL_CONFIG).read_text())["dtype"] == "bfloat16"
    loaded = load_contestant(base, tmp_path / "out", torch.float32)
    difference = (logits(loaded) - logits(master)).abs().max()
    assert 0 < difference < 0.1 * logits(master).abs().max()
    assert next(master.parameters()).dtype is torch.float32  # saving changed nothing


def test_weights_that_are_not_finite_are_not_saved(base: BaseModelRef, tmp_path: Path) -> None:
    model = trained(base, method="full")
    with torch.no_grad():
        model.model.norm.weight[3] = torch.inf
    with pytest.raises(TrainingError, match=r"model\.norm\.weight are not all finite"):
        save_full(model, base, tmp_path)


def test_a_folder_without_a_model_has_no_digest(tmp_path: Path) -> None:
    (tmp_path / MODEL_CONFIG).write_text("{}")
    with pytest.raises(TrainingError, match="holds no trained model"):
        weights_digest(tmp_path)
