"""What is trained, in which precision, and what is refused before anything is loaded."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tasks.artifacts import BaseModelRef
from tasks.base_model import BaseModelConfig, load_tokenizer, pin
from tasks.errors import ConfigError, DataError
from tasks.train.config import LoraSettings, TrainConfig
from tasks.train.model import count_parameters, keep_float32, load_quantised, prepare
from tasks.train.refusals import check_engine, check_method, check_token_ids, check_vocabulary

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj")
NUM_PARAMETERS = 2 * 49152 * 64 + 2 * (4 * 64 * 64 + 3 * 64 * 128 + 2 * 64) + 64  # of tiny_model


@pytest.fixture
def base(tiny_model: Path) -> BaseModelRef:
    return pin(BaseModelConfig(id=str(tiny_model)))


@pytest.fixture
def tied(tiny_model: Path, tmp_path: Path) -> BaseModelRef:
    """The tiny model with one tensor for embeddings and head."""
    from transformers import AutoModelForCausalLM

    folder = tmp_path / "tied"
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    model.config.tie_word_embeddings = True
    model.tie_weights()
    model.save_pretrained(folder)
    for file in tiny_model.glob("*token*"):
        shutil.copy(file, folder)
    return pin(BaseModelConfig(id=str(folder)))


def config(**changes: Any) -> TrainConfig:
    lora = changes.pop("lora", {})
    return TrainConfig.model_validate({"lora": {"r": 4, "dropout": 0.0, **lora}, **changes})


def prepared(base: BaseModelRef, settings: TrainConfig) -> Any:
    return prepare(base, settings, load_tokenizer(base))


def a_batch(model: Any) -> dict[str, torch.Tensor]:
    ids = torch.arange(100, 112, device=model.device)[None]
    return {"input_ids": ids, "labels": ids}


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
@pytest.mark.parametrize("lora", [{}, {"rslora": True}, {"dora": True}])
def test_an_adapter_is_float32_on_a_base_of_any_precision(
    base: BaseModelRef, precision: str, lora: dict[str, Any]
) -> None:
    model = prepared(base, config(precision=precision, lora=lora))
    dtypes = {p.requires_grad: p.dtype for p in model.parameters()}
    assert dtypes == {True: torch.float32, False: getattr(torch, precision)}
    a_layer = 2 * 4 * 64 + (64 if lora.get("dora") else 0)
    assert count_parameters(model)[0] == 2 * 4 * a_layer
    scale = model.base_model.model.model.layers[0].self_attn.q_proj.scaling["default"]
    assert scale == pytest.approx(32 / 2 if lora.get("rslora") else 32 / 4)


def test_all_linear_leaves_out_the_head(base: BaseModelRef) -> None:
    model = prepared(base, config(lora={"target_modules": "all-linear"}))
    adapted = {
        n.split(".lora_A")[0].rpartition(".")[2]
        for n, _ in model.named_parameters()
        if ".lora_A" in n
    }
    assert adapted == {*PROJECTIONS, "gate_proj", "up_proj", "down_proj"}


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_full_trains_every_weight_in_float32(base: BaseModelRef, precision: str) -> None:
    model = prepared(base, config(method="full", precision=precision))
    assert {(p.requires_grad, p.dtype) for p in model.parameters()} == {(True, torch.float32)}
    assert count_parameters(model) == (NUM_PARAMETERS, NUM_PARAMETERS)
    assert model.get_input_embeddings().weight.requires_grad


def test_a_small_step_moves_a_master_weight_and_not_a_bfloat16_one() -> None:
    """Why full fine-tuning keeps float32: AdamW moves by about the learning rate."""
    moved = {}
    for dtype in (torch.float32, torch.bfloat16):
        weight = torch.nn.Parameter(torch.full((8,), 0.02, dtype=dtype))
        optimiser = torch.optim.AdamW([weight], lr=1e-5, weight_decay=0.0)
        before = weight.detach().clone()
        for _ in range(20):
            weight.grad = torch.ones_like(weight)
            optimiser.step()
        moved[dtype] = bool((weight.detach() != before).all())
    assert moved == {torch.float32: True, torch.bfloat16: False}


def test_tied_weights_train_and_count_once(tied: BaseModelRef) -> None:
    model = prepared(tied, config(method="full"))
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    once = NUM_PARAMETERS - 49152 * 64
    assert count_parameters(model) == (once, once)


def test_4_bit_weights_count_as_weights(base: BaseModelRef) -> None:
    model = prepared(base, config(method="qlora", precision="float32"))
    adapter = 2 * 4 * 2 * 4 * 64
    assert count_parameters(model) == (adapter, NUM_PARAMETERS + adapter)
    assert count_parameters(model) == model.get_nb_trainable_parameters()
    kinds = {type(p).__name__ for p in model.parameters()}
    assert kinds == {"Parameter", "Params4bit"}


def test_a_validation_does_not_cut_the_gradient_of_4_bit_layers(base: BaseModelRef) -> None:
    """bitsandbytes repacks a CPU's layers without gradients, into a form that passes none back."""
    model = load_quantised(base, torch.float32, torch.float32)

    def gradient() -> torch.Tensor:
        embedded = (
            model.get_input_embeddings()(a_batch(model)["input_ids"]).detach().requires_grad_()
        )
        model.train()(inputs_embeds=embedded, labels=a_batch(model)["labels"]).loss.backward()
        assert embedded.grad is not None
        return embedded.grad

    before = gradient()
    with torch.no_grad():
        model.eval()(**a_batch(model))
    torch.testing.assert_close(gradient(), before)


def test_qlora_learns(base: BaseModelRef) -> None:
    torch.manual_seed(0)
    model = prepared(base, config(method="qlora", precision="float32")).train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1e-2)
    losses = []
    for _ in range(8):
        loss = model(**a_batch(model)).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_trls_cast_of_a_4_bit_models_adapter_is_undone(base: BaseModelRef, tmp_path: Path) -> None:
    from datasets import Dataset
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    model = prepared(base, config(method="qlora"))
    rows = Dataset.from_dict({"input_ids": [[5, 6, 7]], "labels": [[5, 6, 7]]})
    args = SFTConfig(
        output_dir=str(tmp_path),
        use_cpu=True,
        report_to="none",
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    SFTTrainer(model=model, args=args, train_dataset=rows, processing_class=load_tokenizer(base))
    trained = [p for p in model.parameters() if p.requires_grad]
    assert {p.dtype for p in trained} == {torch.bfloat16}
    keep_float32(model)
    assert {p.dtype for p in trained} == {torch.float32}


def test_a_tokenizer_larger_than_the_embedding_is_refused(base: BaseModelRef) -> None:
    tokenizer = load_tokenizer(base)
    tokenizer.add_tokens(["<new>"])
    with pytest.raises(ConfigError, match=r"49153 tokens, the model's embedding 49152 rows"):
        prepare(base, config(), tokenizer)


def test_an_embedding_padded_to_more_rows_is_fine(base: BaseModelRef) -> None:
    check_vocabulary(prepared(base, config()), tokenizer=range(49000))


@pytest.mark.parametrize("bad", [49152, -1])
def test_ids_without_an_embedding_are_refused(bad: int) -> None:
    check_token_ids([[0, 49151], []], 49152, "train")
    with pytest.raises(DataError, match=rf"train row 1: token id {bad}, .* 0 to 49151.*format"):
        check_token_ids([[0], [5, bad]], 49152, "train")


def test_padding_with_the_end_of_turn_leaves_the_end_trained(base: BaseModelRef) -> None:
    """Labels are the data's own, never derived from the pad token."""
    from tasks.train.batches import IGNORED, pad

    tokenizer = load_tokenizer(base)
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == 2
    rows = [
        {"input_ids": [9, 8, 7, 2], "labels": [IGNORED, 8, 7, 2]},
        {"input_ids": [9, 2], "labels": [IGNORED, 2]},
    ]
    labels = pad(rows, tokenizer.pad_token_id)["labels"]
    assert (labels == tokenizer.eos_token_id).sum() == 2


def test_a_layer_that_is_not_there_is_named_beside_those_that_are(base: BaseModelRef) -> None:
    settings = config(lora={"target_modules": ["q_proj", "query_key_value"]})
    with pytest.raises(ConfigError, match=r"called 'query_key_value'.*has .*down_proj.*q_proj"):
        prepared(base, settings)


@pytest.mark.parametrize(
    ("target", "why"), [("lm_head", "one tensor"), ("embed_tokens", "one tensor")]
)
def test_tied_ends_are_not_adapted(tied: BaseModelRef, target: str, why: str) -> None:
    with pytest.raises(ConfigError, match=rf"'{target}' cannot be adapted: .*{why}"):
        prepared(tied, config(lora={"target_modules": ["q_proj", target]}))


def test_the_head_is_not_adapted(base: BaseModelRef) -> None:
    with pytest.raises(ConfigError, match="'lm_head' cannot be adapted: TRL"):
        prepared(base, config(lora={"target_modules": ["lm_head"]}))


@pytest.mark.parametrize(("engine", "package"), [("liger", "liger-kernel"), ("unsloth", "unsloth")])
def test_an_engine_that_is_not_installed(
    base: BaseModelRef, engine: str, package: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    module = package.replace("-", "_")
    for known in ("trl", "openai"):
        check_engine(config(engine=known))
    with pytest.raises(ConfigError, match=rf"engine is {engine}.*pip install {package}"):
        prepare(base, config(engine=engine), tokenizer=None)
    (tmp_path / module).mkdir()
    (tmp_path / module / "__init__.py").write_text("raise RuntimeError('not to be imported')")
    monkeypatch.syspath_prepend(tmp_path)
    if torch.cuda.is_available():
        check_engine(config(engine=engine))
        return
    with pytest.raises(ConfigError, match=rf"engine is {engine}, which needs an NVIDIA GPU"):
        prepare(base, config(engine=engine), tokenizer=None)


def test_qlora_needs_bitsandbytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    check_method(config(method="lora"))
    with pytest.raises(ConfigError, match=r"qlora, which needs bitsandbytes.*pip install"):
        check_method(config(method="qlora"))


def test_qlora_is_refused_where_bitsandbytes_has_no_backend() -> None:
    check_method(config(method="qlora"), "cpu")
    with pytest.raises(ConfigError, match=r"cannot quantise on the device 'meta'.*It knows cpu"):
        check_method(config(method="qlora"), "meta")
    with pytest.raises(ConfigError, match="cannot quantise on the device 'vulkan'"):
        check_method(config(method="qlora"), "vulkan")


def test_refusals_come_before_the_weights(tmp_path: Path) -> None:
    """Nothing of the base model is read: it is not even there."""
    absent = BaseModelRef(id=str(tmp_path / "absent"), digest="0" * 64)
    settings = TrainConfig(engine="unsloth", lora=LoraSettings())
    with pytest.raises(ConfigError, match="engine is unsloth"):
        prepare(absent, settings, tokenizer=None)
