"""The trainer's loss, its validation, and what it does when memory runs out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from tasks.artifacts import BaseModelRef
from tasks.base_model import load_model, load_tokenizer
from tasks.train import finetune as finetuning
from tasks.train.adapters import weights_digest
from tasks.train.arguments import arguments
from tasks.train.batches import IGNORED, Rows, collate, load_split, pad
from tasks.train.estimate.plan import schedule
from tasks.train.finetune import finetune
from tasks.train.guards import LossGuard
from tasks.train.job import Job
from tasks.train.trainer import AnswerTrainer
from tests.base_models import ALL_LINEAR
from tests.tasks.train.conftest import SHORT, Run


def make_trainer(data: Path, base: BaseModelRef, output: Path, packing: bool) -> AnswerTrainer:
    torch.manual_seed(0)
    settings = LoraConfig(target_modules=ALL_LINEAR, init_lora_weights=False)
    train = load_split(data, "train")
    return AnswerTrainer(
        packing=packing,
        micro_rows=4,
        model=get_peft_model(load_model(base, torch.float32), settings),
        args=arguments(SHORT, schedule(len(train), SHORT), None, output),
        train_dataset=train,
        eval_dataset=load_split(data, "validation"),
        processing_class=load_tokenizer(base),
        callbacks=[LossGuard(5.0)],
    )


@pytest.mark.parametrize("packing", [True, False])
def test_the_loss_is_transformers_own(
    data: Path, base: BaseModelRef, tmp_path: Path, packing: bool
) -> None:
    trainer = make_trainer(data, base, tmp_path / "out", packing)
    rows = [load_split(data, "train")[i] for i in range(4)]
    trainer._base.set_attn_implementation("eager")
    padded = {name: value.to(trainer.args.device) for name, value in pad(rows, 2).items()}
    expected = trainer.model(**padded).loss
    trainer._base.set_attn_implementation(trainer._attention)
    whole = trainer.compute_loss(trainer.model, collate(rows))
    assert float(whole) == pytest.approx(float(expected), rel=1e-5)
    halves = [collate(rows[:1]), collate(rows[1:])]
    trained = sum(label != IGNORED for row in rows for label in row["labels"][1:])
    parts = [
        float(trainer.compute_loss(trainer.model, half, num_items_in_batch=trained))
        for half in halves
    ]
    assert sum(parts) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("packing", [True, False])
def test_validation_weighs_tokens_and_not_batches(
    data: Path, base: BaseModelRef, tmp_path: Path, packing: bool
) -> None:
    trainer = make_trainer(data, base, tmp_path / "out", packing)
    rows = list(load_split(data, "validation"))
    sums = [trainer.summed_loss(trainer.model, Rows([row])) for row in rows]
    expected = sum(float(loss) for loss, _ in sums) / sum(count for _, count in sums)
    found = trainer.evaluate()
    assert found["eval_loss"] == pytest.approx(expected, rel=1e-5)


def test_a_line_of_labels_counts_what_is_trained() -> None:
    rows = [{"labels": [IGNORED, 6, 7]}, {"labels": [8, 9]}]
    labels = collate(rows)["labels"]  # type: ignore[arg-type]
    assert int((labels[1:] != IGNORED).sum()) == 3  # nothing predicts the 8


# ---------------------------------------------------------------------------- when memory runs out


class Tight(AnswerTrainer):
    """A device that holds two rows at a time, or none."""

    limit = 2

    def summed_loss(self, model: Any, rows: Rows) -> tuple[torch.Tensor, int]:
        if len(rows.rows) > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
        return super().summed_loss(model, rows)


class Leaky(AnswerTrainer):
    """A device on which the second micro-batch of a step runs out once, amid its backward pass."""

    num_losses = 0

    def summed_loss(self, model: Any, rows: Rows) -> tuple[torch.Tensor, int]:
        loss, count = super().summed_loss(model, rows)
        if torch.is_grad_enabled():
            Leaky.num_losses += 1
            if Leaky.num_losses == 4:
                parameter = next(p for p in model.parameters() if p.requires_grad)
                parameter.register_hook(_run_out_once())
        return loss, count


def _run_out_once() -> Callable[[torch.Tensor], None]:
    left = [True]

    def run_out(gradient: torch.Tensor) -> None:
        if left.pop() if left else False:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    return run_out


def test_the_step_stays_the_step(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run("whole")
    monkeypatch.setattr(finetuning, "AnswerTrainer", Tight)
    tight = run("tight")
    assert (tight.micro_batch, tight.accumulation) == (2, 2)
    [note] = [note for note in tight.notes if "Memory ran out" in note]
    assert "at step 1: rows are taken 2 at a time from there on, as many a step" in note
    losses = [[line["loss"] for line in r.history if "loss" in line] for r in (whole, tight)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_gradients_of_a_failed_half_are_thrown_away(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"batch_size": 2, "gradient_accumulation": 2}
    whole = run("whole", **options)
    Leaky.num_losses = 0
    monkeypatch.setattr(finetuning, "AnswerTrainer", Leaky)
    leaky = run("leaky", **options)
    assert any("Memory ran out at step 2" in note for note in leaky.notes)
    losses = [[line["loss"] for line in r.history if "loss" in line] for r in (whole, leaky)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_one_row_that_does_not_fit_is_an_error(
    job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tight, "limit", 0)
    monkeypatch.setattr(finetuning, "AnswerTrainer", Tight)
    with pytest.raises(torch.OutOfMemoryError):
        finetune(job(), lambda metrics, step, share: None)


@pytest.mark.slow
def test_layers_compile(run: Run, tmp_path: Path) -> None:
    """Slow to begin with, so the smallest training that shows the same loss."""
    plain = run("plain", epochs=1)
    compiled = run("compiled", epochs=1, compile=True)
    assert compiled.validation_loss == pytest.approx(plain.validation_loss, rel=1e-3)
    assert weights_digest(tmp_path / "compiled")
