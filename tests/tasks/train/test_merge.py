"""A merged model answers as base and adapter did, or it is not kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tasks.artifacts import BaseModelRef
from tasks.base_model import BaseModelConfig, load_contestant, load_tokenizer, pin
from tasks.errors import DataError, TrainingError
from tasks.train.adapters import WEIGHTS, save_adapter, weights_digest
from tasks.train.batches import IGNORED
from tasks.train.config import TrainConfig
from tasks.train.merge import (
    MergeReport,
    MergeTolerance,
    Row,
    _answers,
    _compare,
    _reference,
    _saved,
    merge,
)
from tasks.train.model import prepare

ROWS: list[Row] = [
    {"input_ids": list(range(start, start + 12)), "labels": [IGNORED] * 4 + list(range(8))}
    for start in (100, 300, 900, 5000)
]
EXACT = MergeTolerance(
    max_logprob_difference=1e-3, mean_logprob_difference=1e-4, argmax_agreement=1.0
)
ANY = MergeTolerance(max_logprob_difference=99, mean_logprob_difference=99, argmax_agreement=0)


@pytest.fixture
def base(tiny_model: Path) -> BaseModelRef:
    return pin(BaseModelConfig(id=str(tiny_model)))


@pytest.fixture
def half(tiny_model: Path, tmp_path: Path) -> BaseModelRef:
    """The tiny model in bfloat16, as most base models are kept."""
    from transformers import AutoModelForCausalLM

    folder = tmp_path / "half"
    AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16).save_pretrained(folder)
    for file in tiny_model.glob("*token*"):
        (folder / file.name).write_bytes(file.read_bytes())
    return pin(BaseModelConfig(id=str(folder)))


def config(method: str = "lora", precision: str = "float32", **lora: Any) -> TrainConfig:
    return TrainConfig.model_validate(
        {"method": method, "precision": precision, "lora": {"r": 8, "dropout": 0.0, **lora}}
    )


def adapter(base: BaseModelRef, settings: TrainConfig, folder: Path, steps: int = 6) -> Path:
    """An adapter that learned the rows for a few steps."""
    torch.manual_seed(0)
    model = prepare(base, settings, load_tokenizer(base)).train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=5e-3)
    for step in range(steps):
        row = ROWS[step % len(ROWS)]
        ids, labels = (
            torch.tensor([row[name]], device=model.device) for name in ("input_ids", "labels")
        )
        model(input_ids=ids, labels=labels).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    save_adapter(model, base, folder)
    return folder


def folders(where: Path) -> set[str]:
    return {f.name for f in where.iterdir()}


@pytest.mark.parametrize(
    "lora", [{}, {"rslora": True}, {"dora": True}, {"target_modules": "all-linear"}]
)
def test_the_merged_model_is_base_and_adapter(
    base: BaseModelRef, tmp_path: Path, lora: dict[str, Any]
) -> None:
    settings = config(**lora)
    source = adapter(base, settings, tmp_path / "adapter")
    report = merge(base, source, tmp_path / "merged", settings, ROWS, EXACT)
    assert (report.num_tokens, report.dtype) == (32, "float32")
    ids = torch.tensor([ROWS[0]["input_ids"]])
    with torch.no_grad():
        apart = load_contestant(base, source, torch.float32).eval()(input_ids=ids).logits
        merged = load_contestant(base, tmp_path / "merged", torch.float32)(input_ids=ids).logits
        alone = load_contestant(base, None, torch.float32)(input_ids=ids).logits
    torch.testing.assert_close(merged, apart, rtol=1e-4, atol=1e-4)
    assert (alone - apart).abs().max() > 0.1


def test_what_bfloat16_costs_is_measured(half: BaseModelRef, tmp_path: Path) -> None:
    settings = config()
    source = adapter(half, settings, tmp_path / "adapter")
    report = merge(half, source, tmp_path / "merged", settings, ROWS)
    assert report.dtype == "bfloat16"
    assert 1e-5 < report.mean_logprob_difference <= report.max_logprob_difference < 0.2


def wrongly_merged(
    base: BaseModelRef, source: Path, settings: TrainConfig, rows: list[Row], output: Path
) -> MergeReport:
    """The same adapter on the weights that the 4-bit ones were made from, against the training."""
    plain = settings.model_copy(update={"method": "lora"})
    merge(base, source, output, plain, rows, ANY)
    expected = _answers(_reference(base, source, settings), rows)
    return _compare(expected, _answers(_saved(output), rows), torch.float32)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_qlora_merges_onto_the_weights_it_was_trained_on(
    base: BaseModelRef, tmp_path: Path, precision: str
) -> None:
    settings = config("qlora", precision, target_modules="all-linear")
    source = adapter(base, settings, tmp_path / "adapter")
    right = merge(base, source, tmp_path / "right", settings, ROWS)
    assert right.mean_logprob_difference < (1e-4 if precision == "float32" else 0.01)
    wrong = wrongly_merged(base, source, settings, ROWS, tmp_path / "wrong")
    assert wrong.mean_logprob_difference > 5 * right.mean_logprob_difference


def test_a_merge_is_the_same_bytes_and_may_be_repeated(base: BaseModelRef, tmp_path: Path) -> None:
    source = adapter(base, config(), tmp_path / "adapter")
    first = merge(base, source, tmp_path / "a", config(), ROWS)
    assert merge(base, source, tmp_path / "b", config(), ROWS) == first
    assert merge(base, source, tmp_path / "a", config(), ROWS) == first  # it is there already
    assert weights_digest(tmp_path / "a") == weights_digest(tmp_path / "b")
    assert folders(tmp_path) == {"adapter", "a", "b"}


def test_another_model_is_not_overwritten(base: BaseModelRef, tmp_path: Path) -> None:
    output = tmp_path / "out"
    merge(base, adapter(base, config(), tmp_path / "one"), output, config(), ROWS)
    before = weights_digest(output)
    other = adapter(base, config(), tmp_path / "two", steps=2)
    with pytest.raises(TrainingError, match="out holds another model already"):
        merge(base, other, output, config(), ROWS)
    assert weights_digest(output) == before
    assert folders(tmp_path) == {"one", "two", "out"}


def test_a_broken_adapter_is_refused(base: BaseModelRef, tmp_path: Path) -> None:
    source = adapter(base, config(), tmp_path / "adapter")
    weights = load_file(source / WEIGHTS)
    name = next(key for key in weights if "lora_B" in key)
    weights[name][0, 0] = torch.nan
    save_file(weights, source / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(TrainingError, match=r"cannot be merged: NaNs detected.*Train again"):
        merge(base, source, tmp_path / "out", config(), ROWS)
    assert folders(tmp_path) == {"adapter"}


def test_a_merge_beyond_the_tolerance_leaves_nothing(half: BaseModelRef, tmp_path: Path) -> None:
    settings = config()
    source = adapter(half, settings, tmp_path / "adapter")
    with pytest.raises(TrainingError, match=r"does not answer as base and adapter do.*32 tokens"):
        merge(half, source, tmp_path / "out", settings, ROWS, EXACT)
    assert folders(tmp_path) == {"half", "adapter"}


@pytest.mark.parametrize("rows", [[], [{"input_ids": [1, 2], "labels": [IGNORED, IGNORED]}]])
def test_a_merge_is_not_believed_unchecked(
    base: BaseModelRef, tmp_path: Path, rows: list[Row]
) -> None:
    source = adapter(base, config(), tmp_path / "adapter")
    with pytest.raises(DataError, match=f"{len(rows)} rows were given with no trained token"):
        merge(base, source, tmp_path / "out", config(), rows)
    assert folders(tmp_path) == {"adapter"}


@pytest.mark.slow
def test_qlora_of_the_real_model_learns_and_merges(smol: Path, tmp_path: Path) -> None:
    """In bfloat16, within the default tolerance, which a merge onto other weights exceeds."""
    base = pin(BaseModelConfig(id=str(smol)))
    tokenizer, settings = load_tokenizer(base), config("qlora", "bfloat16", r=16)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Where is my card? I ordered it two weeks ago."}],
        add_generation_prompt=True,
        return_dict=False,
    )
    answer = tokenizer("card_arrival<|im_end|>")["input_ids"]
    row = {"input_ids": prompt + answer, "labels": [IGNORED] * len(prompt) + answer}
    torch.manual_seed(0)
    model = prepare(base, settings, tokenizer).train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1e-3)
    losses = []
    for _ in range(6):
        loss = model(
            input_ids=torch.tensor([row["input_ids"]]), labels=torch.tensor([row["labels"]])
        ).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    save_adapter(model, base, tmp_path / "adapter")
    report = merge(base, tmp_path / "adapter", tmp_path / "merged", settings, [row])
    assert report.dtype == "bfloat16"
    wrong = wrongly_merged(base, tmp_path / "adapter", settings, [row], tmp_path / "wrong")
    limits = MergeTolerance()
    assert wrong.max_logprob_difference > limits.max_logprob_difference
    assert wrong.mean_logprob_difference > limits.mean_logprob_difference
