"""Trainings that break, stop early and resume; curves that part."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import (
    EarlyStoppingCallback,
    LlamaConfig,
    LlamaForCausalLM,
    Trainer,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
)

from tasks.train.guards import (
    BAD_BATCH,
    BadBatchError,
    LossGuard,
    divergence,
    overfitting_gap,
    stopped_early,
)

ROWS = [{"id": f"row-{n}", "input_ids": [n, n + 1, 7], "labels": [-100, 7, 7]} for n in range(12)]
# Their answers contradict the training rows': the better one is learned, the worse the other.
OTHERS = [
    {"id": f"other-{n}", "input_ids": [n, n + 1, 9], "labels": [-100, 9, 9]} for n in range(4)
]


class GuardedTrainer(Trainer):
    """As a trainer of ours tells its guard: loss and rows of every micro-batch it trains."""

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, **kwargs: Any
    ) -> Any:
        rows = inputs.pop("rows")
        loss = model(**inputs).loss
        if model.training:
            LossGuard.of(self.callback_handler.callbacks).saw(loss, rows)
        return (loss, {}) if return_outputs else loss

    def prediction_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        with torch.no_grad():
            return self.compute_loss(model, self._prepare_inputs(inputs)), None, None


def collate(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    columns = {name: torch.tensor([row[name] for row in rows]) for name in ("input_ids", "labels")}
    return {**columns, "rows": [int(row["id"].split("-")[1]) for row in rows]}


class Break(TrainerCallback):
    """Spoils the model before step ``step``, or the gradient in it."""

    def __init__(self, step: int, what: str) -> None:
        self.step, self.what = step, what

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step + 1 != self.step:
            return
        weight = kwargs["model"].model.norm.weight
        if self.what == "weights":
            with torch.no_grad():
                weight.fill_(math.nan)
        else:
            weight.register_hook(lambda gradient: gradient * math.nan)


class Kill(TrainerCallback):
    """Ends the process's part of a training after ``step``, as a lost machine would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            raise KeyboardInterrupt


def trainer_of(folder: Path, *callbacks: TrainerCallback, **arguments: Any) -> GuardedTrainer:
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=32,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            tie_word_embeddings=False,
        )
    )
    settings: dict[str, Any] = {
        "per_device_train_batch_size": 2,
        "num_train_epochs": 4,
        "learning_rate": 3e-2,
        "lr_scheduler_type": "constant",
        "eval_strategy": "steps",
        "eval_steps": 2,
        "save_steps": 2,
        "logging_steps": 2,
        "load_best_model_at_end": True,
        "metric_for_best_model": "eval_loss",
        "greater_is_better": False,
        "restore_callback_states_from_checkpoint": True,
        "remove_unused_columns": False,
        "logging_nan_inf_filter": False,
        "use_cpu": True,
        "report_to": "none",
        "disable_tqdm": True,
    }
    return GuardedTrainer(
        model=model,
        args=TrainingArguments(output_dir=str(folder), **{**settings, **arguments}),
        train_dataset=ROWS,
        eval_dataset=OTHERS,
        data_collator=collate,
        callbacks=[LossGuard(5.0), EarlyStoppingCallback(3), *callbacks],
    )


@pytest.mark.parametrize(
    ("what", "problem"),
    [("weights", "the loss is not a number"), ("gradient", "the gradient's norm is not a number")],
)
def test_a_broken_step_stops_before_the_weights_change(
    tmp_path: Path, what: str, problem: str
) -> None:
    trainer = trainer_of(tmp_path, Break(5, what), gradient_accumulation_steps=2)
    before = trainer.model.lm_head.weight
    changed_at: list[int] = []
    before.register_hook(lambda gradient: changed_at.append(trainer.state.global_step))
    with pytest.raises(BadBatchError, match=rf"stopped at step 5, .*{problem}.*learning_rate") as e:
        trainer.train()
    assert trainer.state.global_step == 4
    assert torch.isfinite(before).all()
    assert max(changed_at) == 4
    content = json.loads((tmp_path / BAD_BATCH).read_text())
    assert e.value.file == tmp_path / BAD_BATCH
    assert (content["step"], len(content["micro_batches"])) == (5, 2)
    saved = [row for batch in content["micro_batches"] for row in batch["rows"]]
    assert len(saved) == 4
    for row in saved:
        assert {name: row[name] for name in ROWS[0]} == ROWS[row["row"]]
        assert str(row["row"]) in str(e.value)
    is_known = [batch["loss"] is not None for batch in content["micro_batches"]]
    assert is_known == [what == "gradient"] * 2


def run_guard(losses: Sequence[Sequence[float]], folder: Path) -> int | None:
    """The step at which the guard stops a training of these micro-batch losses."""
    guard = LossGuard(5.0)
    model = torch.nn.Linear(1, 1)
    loader = SimpleNamespace(dataset=ROWS)
    guard.on_train_begin(None, None, None, train_dataloader=loader)
    args = SimpleNamespace(output_dir=str(folder), process_index=0)
    for step, micro_batches in enumerate(losses):
        guard.on_step_begin(args, None, None)
        for number, loss in enumerate(micro_batches):
            guard.saw(torch.tensor(loss), [number])
        try:
            guard.on_pre_optimizer_step(args, SimpleNamespace(global_step=step), None, model=model)
        except BadBatchError:
            return step + 1
    return None


@pytest.mark.parametrize(
    ("losses", "stops_at"),
    [
        ([2, 2, 2, 2, 2, 2, 2], None),
        ([2, 2, 2, 2, 2, 11, 2, 11, 2], None),  # never two in a row
        ([2, 2, 2, 2, 2, 10, 10, 10], None),  # five times, not more
        ([2, 2, 2, 2, 2, 11, 10.1], 7),
        ([2, 11, 12], 3),  # in the first steps, against those before
        ([3, 2, 40, 2, 2, 11, 11], 7),  # the median, not the mean
        ([0.1, 0.1, 0.1, 0.1, 0.1, 4.9, 4.9, 4.9], None),  # small losses are noise
        ([0.1, 0.1, 0.1, 0.1, 0.1, 5.1, 5.1], 7),
        ([2, math.inf], 2),
        ([math.nan], 1),
    ],
)
def test_an_explosion_is_two_steps_above_the_first(
    tmp_path: Path, losses: list[float], stops_at: int | None
) -> None:
    assert run_guard([[loss] for loss in losses], tmp_path) == stops_at


def test_a_step_is_judged_by_the_mean_of_its_micro_batches(tmp_path: Path) -> None:
    steady = [[2.0, 2.0]] * 5
    assert run_guard([*steady, [18.0, 1.0], [18.0, 1.0]], tmp_path) is None
    assert run_guard([*steady, [22.0, 1.0], [22.0, 1.0]], tmp_path) == 7
    assert run_guard([*steady, [2.0, math.nan]], tmp_path) == 6
    content = json.loads((tmp_path / BAD_BATCH).read_text())
    assert [batch["loss"] for batch in content["micro_batches"]] == [2.0, None]


def test_each_process_keeps_its_own_rows(tmp_path: Path) -> None:
    guard = LossGuard(5.0)
    guard.on_train_begin(None, None, None, train_dataloader=SimpleNamespace(dataset=ROWS))
    guard.saw(math.nan, list(range(12)))
    args = SimpleNamespace(output_dir=str(tmp_path / "new"), process_index=3)
    with pytest.raises(BadBatchError, match=r"rows 0, 1, 2, 3, 4, 5, 6, 7 and 4 more") as error:
        guard.on_pre_optimizer_step(
            args, SimpleNamespace(global_step=0), None, model=torch.nn.Linear(1, 1)
        )
    assert error.value.file == tmp_path / "new" / "bad_batch-3.json"
    assert len(json.loads(error.value.file.read_text())["micro_batches"][0]["rows"]) == 12


def test_patience_and_the_guards_past_survive_a_resume(tmp_path: Path) -> None:
    whole = trainer_of(tmp_path / "whole")
    whole.train()
    assert whole.state.global_step < whole.state.max_steps == 24
    end = stopped_early(whole.state)
    assert end is not None
    assert f"step {whole.state.global_step} of 24: 3 validations without improvement" in end

    killed_at = whole.state.global_step - 2
    with pytest.raises(KeyboardInterrupt):
        trainer_of(tmp_path / "killed", Kill(killed_at)).train()
    checkpoint = tmp_path / "killed" / f"checkpoint-{killed_at}"
    saved = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    assert saved.stateful_callbacks["EarlyStoppingCallback"]["attributes"] == {
        "early_stopping_patience_counter": 2
    }
    assert stopped_early(saved) is None

    resumed = trainer_of(tmp_path / "killed")
    replaced = LossGuard.of(resumed.callback_handler.callbacks)
    resumed.train(resume_from_checkpoint=str(checkpoint))
    assert resumed.state.global_step == whole.state.global_step
    assert stopped_early(resumed.state) == end
    ours, theirs = (LossGuard.of(t.callback_handler.callbacks) for t in (resumed, whole))
    assert ours is not replaced
    assert len(ours.first_losses) == 5
    assert ours.first_losses == theirs.first_losses


def test_a_checkpoint_tells_that_nothing_is_left_to_train(tmp_path: Path) -> None:
    """Killed after the last checkpoint and before the end: resuming must not train on."""
    trainer = trainer_of(tmp_path)
    trainer.train()
    last = tmp_path / f"checkpoint-{trainer.state.global_step}" / "trainer_state.json"
    assert stopped_early(TrainerState.load_from_json(str(last))) == stopped_early(trainer.state)


def test_a_training_that_went_to_its_end_was_not_stopped(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, num_train_epochs=1, learning_rate=1e-5)
    trainer.train()
    assert trainer.state.global_step == 6
    assert stopped_early(trainer.state) is None


def curve(training: Sequence[float], validation: Sequence[float]) -> list[dict[str, float]]:
    """A validation every ten steps, the training loss logged twice before each."""
    history: list[dict[str, float]] = []
    for number, (loss, eval_loss) in enumerate(zip(training, validation, strict=True), start=1):
        history += [
            {"step": 10 * number - 5, "loss": loss + 0.1},
            {"step": 10 * number, "loss": loss - 0.1},
            {"step": 10 * number, "eval_loss": eval_loss},
        ]
    return history


FALLING = [2.0, 1.5, 1.0, 0.8, 0.5]


@pytest.mark.parametrize(
    ("training", "validation", "told"),
    [
        (FALLING, [2.0, 1.6, 1.4, 1.3, 1.2], None),
        (FALLING, [2.0, 1.5, 1.8, 1.9, 1.9], "rose 27%, from 1.5 at step 20 to 1.9 at step 40"),
        (FALLING, [2.0, 1.5, 1.8, 1.6, 1.8], None),  # up and down: noise
        (FALLING, [2.0, 1.5, 1.6, 1.7, 1.72], None),  # 15 % is 1.725
        (FALLING, [2.0, 1.5, 1.6, 1.8, 1.9], "rose 27%, from 1.5 at step 20 to 1.9 at step 50"),
        (FALLING, [2.0, 1.5, 1.4, 1.4, 1.9], None),  # once alone
        ([2.0, 1.5, 1.6, 1.8, 1.9], [2.0, 1.5, 1.8, 1.9, 2.0], None),  # training rises as well
        (FALLING, [0.02, 0.01, 0.015, 0.018, 0.019], None),  # thousandths of a nat
        (FALLING[:2], [1.0, 2.0], None),
        ([], [], None),
    ],
)
def test_divergence_is_a_rise_that_lasts_while_training_falls(
    training: list[float], validation: list[float], told: str | None
) -> None:
    found = divergence(curve(training, validation), 0.15)
    assert (found is None) if told is None else (found is not None and told in found)


def test_divergence_tells_the_training_losses_between_validations() -> None:
    found = divergence(curve(FALLING, [2.0, 1.5, 1.8, 1.9, 2.1]), 0.15)
    assert found is not None
    assert "training loss fell from 1.5 to 0.5" in found
    assert divergence([{"step": n, "eval_loss": float(n)} for n in range(1, 6)], 0.15) is None


def test_the_gap_is_that_of_the_last_validation() -> None:
    assert overfitting_gap(curve([2.0, 0.5], [2.1, 1.7])) == pytest.approx(1.2)
    assert overfitting_gap([]) is None
    assert overfitting_gap([{"step": 1, "eval_loss": 1.0}]) is None
