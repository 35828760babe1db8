"""The trainer's loss, the adapter's bytes, and training that goes wrong."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from tasks.artifacts import BaseModelRef
from tasks.base_model import BaseModelConfig, load_model, pin
from tasks.errors import DataError, TrainingError
from tasks.train.batches import IGNORED, collate, load_split
from tasks.train.config import LoraSettings, TrainConfig
from tasks.train.finetune import SETTINGS, Training, adapter_digest, finetune
from tests.base_models import ALL_LINEAR

SHORT = TrainConfig(
    epochs=2,
    batch_size=4,
    learning_rate=5e-3,
    precision="float32",
    evaluations_per_epoch=1,
    lora=LoraSettings(r=4, alpha=8, dropout=0.0, target_modules=tuple(ALL_LINEAR)),
)


def write_split(folder: Path, name: str, rows: list[tuple[list[int], list[int]]]) -> None:
    ids, labels = zip(*rows, strict=True)
    pq.write_table(pa.table({"input_ids": ids, "labels": labels}), folder / f"{name}.parquet")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Rows of two lengths: a varying prompt, and an answer that is always the same."""
    rows = []
    for number in range(24):
        prompt = [100 + number, 200 + number, 7] * (1 + number % 2)
        answer = [500, 501, 2]
        rows.append((prompt + answer, [IGNORED] * len(prompt) + answer))
    write_split(tmp_path, "train", rows[:18])
    write_split(tmp_path, "validation", rows[18:])
    return tmp_path


@pytest.fixture
def base(tiny_model: Path) -> BaseModelRef:
    return pin(BaseModelConfig(id=str(tiny_model)))


def run(data: Path, base: BaseModelRef, output: Path, **changes: Any) -> Training:
    output.mkdir()
    config = SHORT.model_copy(update=changes)
    return finetune(data, base, config, output, lambda metrics, step, share: None)


def test_training_learns_and_keeps_its_history(
    data: Path, base: BaseModelRef, tmp_path: Path
) -> None:
    result = run(data, base, tmp_path / "out", epochs=6)
    losses = [line["loss"] for line in result.history if "loss" in line]
    assert losses[-1] < 0.7 * losses[0]
    validation = [line["eval_loss"] for line in result.history if "eval_loss" in line]
    assert len(validation) == 6
    assert result.validation_loss == pytest.approx(min(validation))
    assert result.tokens_per_second > 0


def test_the_same_training_makes_the_same_bytes(
    data: Path, base: BaseModelRef, tmp_path: Path
) -> None:
    digests = set()
    for name in ("a", "b"):
        run(data, base, tmp_path / name)
        digests.add(adapter_digest(tmp_path / name))
    assert len(digests) == 1
    run(data, base, tmp_path / "c", seed=1)
    assert adapter_digest(tmp_path / "c") not in digests


def test_an_adapter_holds_no_path_and_no_pickle(
    data: Path, base: BaseModelRef, tmp_path: Path
) -> None:
    named = base.model_copy(update={"license": "Apache-2.0"})
    run(data, named, tmp_path / "out")
    settings = json.loads((tmp_path / "out" / SETTINGS).read_text())
    assert settings["target_modules"] == sorted(ALL_LINEAR)
    assert settings["base_model_name_or_path"] == base.id
    kinds = {f.suffix for f in (tmp_path / "out").iterdir() if f.is_file()}
    assert kinds == {".safetensors", ".json"}


def test_the_loss_is_transformers_own(data: Path, base: BaseModelRef, tmp_path: Path) -> None:
    """The head on the trained positions alone gives the loss of the head on all of them."""
    from peft import LoraConfig, get_peft_model

    from tasks.train.finetune import _arguments
    from tasks.train.trainer import AnswerTrainer

    torch.manual_seed(0)
    model = get_peft_model(load_model(base, torch.float32), LoraConfig(target_modules=ALL_LINEAR))
    rows = [load_split(data, "train")[i] for i in range(4)]
    batch = collate(rows, pad_token_id=2)
    expected = model(**batch).loss
    trainer = AnswerTrainer(
        model=model,
        args=_arguments(SHORT, 18, tmp_path / "checkpoints"),
        train_dataset=load_split(data, "train"),
        eval_dataset=load_split(data, "validation"),
    )
    assert float(trainer.compute_loss(model, batch)) == pytest.approx(float(expected), rel=1e-5)
    halves = [collate(rows[:1], 2), collate(rows[1:], 2)]
    trained = int((batch["labels"][:, 1:] != IGNORED).sum())
    accumulated = sum(
        float(trainer.compute_loss(model, h, num_items_in_batch=trained)) for h in halves
    )
    assert accumulated == pytest.approx(float(expected), rel=1e-5)


def test_a_loss_that_is_not_a_number_stops_training(
    data: Path, base: BaseModelRef, tmp_path: Path, tiny_model: Path
) -> None:
    from transformers import AutoModelForCausalLM

    broken = tmp_path / "broken"
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    with torch.no_grad():
        model.model.norm.weight.fill_(math.nan)
    model.save_pretrained(broken)
    for file in tiny_model.glob("*token*"):
        (broken / file.name).write_bytes(file.read_bytes())
    with pytest.raises(TrainingError, match=r"loss at step 5 is not a number.*learning_rate"):
        run(data, pin(BaseModelConfig(id=str(broken))), tmp_path / "out")


def test_a_row_with_nothing_to_train_is_refused(data: Path) -> None:
    write_split(data, "train", [([1, 2], [IGNORED, 2]), ([1, 2], [IGNORED, IGNORED])])
    with pytest.raises(DataError, match="train row 1: every label is masked"):
        load_split(data, "train")


def test_batches_are_padded_to_their_own_longest_row() -> None:
    rows = [{"input_ids": [5, 6, 7], "labels": [IGNORED, 6, 7]}, {"input_ids": [8], "labels": [8]}]
    batch = collate(rows, pad_token_id=2)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 2, 2]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [[IGNORED, 6, 7], [8, IGNORED, IGNORED]]
