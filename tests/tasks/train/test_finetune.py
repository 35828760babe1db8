"""A whole training on a tiny model: it learns, repeats to the byte, and stops when it must."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tasks.artifacts import BaseModelRef
from tasks.base_model import BaseModelConfig, pin
from tasks.errors import ConfigError, DataError
from tasks.train import finetune as finetuning
from tasks.train.adapters import SETTINGS, weights_digest
from tasks.train.batches import IGNORED, Rows, load_split
from tasks.train.finetune import finetune
from tasks.train.guards import BadBatchError
from tasks.train.job import Job, prepare
from tasks.train.trainer import AnswerTrainer
from tests.base_models import ALL_LINEAR
from tests.tasks.train.conftest import Run, some_rows, write_split

Jobs = Callable[..., Job]


def test_training_learns_and_keeps_its_history(run: Run, store: Path) -> None:
    result = run(epochs=6)
    losses = [line["loss"] for line in result.history if "loss" in line]
    assert losses[-1] < 0.7 * losses[0]
    validation = [line["eval_loss"] for line in result.history if "eval_loss" in line]
    assert len(validation) == 6
    assert result.validation_loss == result.metric_value == pytest.approx(min(validation))
    assert result.tokens_per_second > 0
    assert result.tokens == 6 * sum(len(ids) for ids, _ in some_rows(18))
    for name in ("learning_rate", "grad_norm", "tokens_per_second", "memory_gib"):
        assert all(name in line for line in result.history if "loss" in line), name
    # Until its result is kept somewhere else, by whoever asked for it.
    assert list(store.rglob("checkpoints/**/manifest.json"))


def test_the_same_training_makes_the_same_bytes(run: Run, tmp_path: Path) -> None:
    digests = set()
    for name in ("a", "b"):
        run(name)
        digests.add(weights_digest(tmp_path / name))
    assert len(digests) == 1
    run("c", seed=1)
    assert weights_digest(tmp_path / "c") not in digests


def test_two_trainings_on_one_output_key_do_not_meet(job: Jobs, tmp_path: Path) -> None:
    """One key, two machines: each has its own folder, and the weights are the same."""
    first, second = job("a"), job("b").model_copy(update={"key": "a"})
    for one in (first, second):
        finetune(one, lambda metrics, step, share: None)
    assert weights_digest(tmp_path / "a") == weights_digest(tmp_path / "b")


def test_an_adapter_holds_no_path_and_no_pickle(run: Run, tmp_path: Path, base: Any) -> None:
    run()
    settings = json.loads((tmp_path / "out" / SETTINGS).read_text())
    assert settings["target_modules"] == sorted(ALL_LINEAR)
    assert settings["base_model_name_or_path"] == base.id
    kinds = {f.suffix for f in (tmp_path / "out").iterdir() if f.is_file()}
    assert kinds == {".safetensors", ".json"}


@pytest.mark.parametrize(
    "changes",
    [
        {"packing": False},
        {"group_by_length": False, "schedule": "linear", "weight_decay": 0.01},
        {"lora": {"r": 4, "target_modules": "all-linear", "rslora": True}},
        {"lora": {"r": 4, "dora": True}},
        {"neftune_alpha": 5.0},
        {"gradient_checkpointing": True},
        {"method": "full", "learning_rate": 1e-3},
        {"method": "full", "learning_rate": 1e-3, "precision": "bfloat16"},
        {"method": "qlora", "lora": {"r": 4, "target_modules": "all-linear"}},
        {"schedule": "constant_with_warmup", "max_grad_norm": 0.1},
    ],
    ids="-".join,
)
def test_every_way_to_train_learns(run: Run, changes: dict[str, Any], tmp_path: Path) -> None:
    result = run(epochs=6, **changes)
    losses = [line["loss"] for line in result.history if "loss" in line]
    assert losses[-1] < 0.8 * losses[0], losses
    assert len(weights_digest(tmp_path / "out")) == 64


def test_gradient_checkpointing_changes_no_weight(run: Run, tmp_path: Path) -> None:
    run("plain")
    run("again", gradient_checkpointing=True)
    assert weights_digest(tmp_path / "plain") == weights_digest(tmp_path / "again")


def test_packed_and_padded_learn_the_same(run: Run) -> None:
    packed, padded = run("packed"), run("padded", packing=False)
    for one, other in zip(packed.history, padded.history, strict=True):
        for name in ("loss", "eval_loss"):
            if name in one:
                assert one[name] == pytest.approx(other[name], rel=1e-4)


def test_accumulated_steps_are_the_steps(run: Run, tmp_path: Path) -> None:
    """Rows of unlike lengths: a mean of means would differ."""
    whole = run("whole", batch_size=4)
    parts = run("parts", batch_size=2, gradient_accumulation=2)
    losses = [[line["loss"] for line in r.history if "loss" in line] for r in (whole, parts)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert (parts.micro_batch, parts.accumulation, parts.num_steps) == (2, 2, whole.num_steps)


# ------------------------------------------------------------------------- answers at checkpoints


def test_the_checkpoint_is_chosen_by_the_metric(run: Run) -> None:
    validation = {"metric": "exact_match", "num_generated": 4, "max_new_tokens": 3}
    result = run(epochs=8, validation=validation, early_stopping_patience=10)
    looks = [line for line in result.history if "eval_loss" in line]
    values = [line["eval_exact_match"] for line in looks]
    assert all("eval_rouge_l" in line and "eval_bleu" in line for line in looks)
    assert result.metric_value == max(values)
    best = next(line for line in looks if line["eval_exact_match"] == max(values))
    assert result.best_step == best["step"]
    assert max(values) == 1.0, "the constant answer was never learnt"


def test_a_metric_of_another_kind_of_task_is_refused(job: Jobs) -> None:
    wrong = job(validation={"metric": "field_f1", "num_generated": 2})
    with pytest.raises(ConfigError, match=r"validation\.metric is field_f1.*kind generation.*bleu"):
        prepare(wrong)


# ------------------------------------------------------------------------------- stopping at once


def test_early_stopping_is_told(run: Run) -> None:
    result = run(epochs=30, learning_rate=0.05, early_stopping_patience=2)
    assert result.num_steps < 30 * 5
    [note] = [note for note in result.notes if "Stopped early" in note]
    assert f"at step {result.num_steps} of 150" in note


@pytest.fixture
def broken(tiny_model: Path, tmp_path: Path) -> BaseModelRef:
    from transformers import AutoModelForCausalLM

    folder = tmp_path / "broken"
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    with torch.no_grad():
        model.model.norm.weight.fill_(math.nan)
    model.save_pretrained(folder)
    for file in tiny_model.glob("*token*"):
        (folder / file.name).write_bytes(file.read_bytes())
    return pin(BaseModelConfig(id=str(folder)))


def test_a_loss_that_is_not_a_number_stops_at_once(job: Jobs, broken: BaseModelRef) -> None:
    with pytest.raises(BadBatchError, match=r"at step 1.*is not a number.*learning_rate") as caught:
        finetune(job().model_copy(update={"base": broken}), lambda metrics, step, share: None)
    kept = json.loads(caught.value.file.read_text())
    assert kept["step"] == 1
    assert len(kept["micro_batches"][0]["rows"]) == 4
    assert kept["micro_batches"][0]["rows"][0]["text"]


class Exploding(AnswerTrainer):
    """A model whose loss is fifty times itself from the eighth step on."""

    def summed_loss(self, model: Any, rows: Rows) -> tuple[torch.Tensor, int]:
        loss, count = super().summed_loss(model, rows)
        return (loss if self.state.global_step < 7 else 50 * loss), count


def test_an_explosion_stops(job: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finetuning, "AnswerTrainer", Exploding)
    words = r"stopped at step 9, before its update.* for 2 steps in a row above .* which is 5 times"
    with pytest.raises(BadBatchError, match=words) as caught:
        finetune(job(), lambda metrics, step, share: None)
    assert json.loads(caught.value.file.read_text())["step"] == 9


# ------------------------------------------------------------------------------------- odd rows


def test_a_row_with_nothing_to_train_is_refused(data: Path) -> None:
    write_split(data, "train", [([1, 2], [IGNORED, 2]), ([1, 2], [IGNORED, IGNORED])])
    with pytest.raises(DataError, match=r"train row 1 \(example .*every label is masked"):
        load_split(data, "train")


def test_one_row_is_enough(job: Jobs, data: Path) -> None:
    write_split(data, "train", some_rows(1))
    write_split(data, "validation", some_rows(1))
    result = finetune(job(epochs=3), lambda metrics, step, share: None)
    assert result.num_steps == 3


def test_one_giant_row_among_small_ones(job: Jobs, data: Path) -> None:
    giant = ([1, 9, 8, *[7] * 400, 500, 501, 2], [IGNORED] * 403 + [500, 501, 2])
    write_split(data, "train", [*some_rows(9), giant])
    result = finetune(job(), lambda metrics, step, share: None)
    assert result.tokens == 2 * (406 + sum(len(ids) for ids, _ in some_rows(9)))


def test_padding_with_the_end_of_turn_token_trains_it_all_the_same(run: Run, base: Any) -> None:
    """The tiny model pads with its EOS, which ends every answer: it must stay a label."""
    from tasks.base_model import load_tokenizer

    tokenizer = load_tokenizer(base)
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == 2
    validation = {"metric": "exact_match", "num_generated": 6, "max_new_tokens": 8}
    result = run(epochs=10, packing=False, validation=validation)
    assert result.metric_value == 1.0, "it never learnt to stop"


def test_token_ids_of_another_model_are_refused(job: Jobs, data: Path) -> None:
    write_split(data, "train", [([1, 60_000, 2], [IGNORED, IGNORED, 2])])
    with pytest.raises(DataError, match=r"train row 0: token id 60000.*0 to 49151"):
        prepare(job())


def test_a_base_model_changed_under_its_name_is_refused(job: Jobs, base: BaseModelRef) -> None:
    other = job().model_copy(update={"base": base.model_copy(update={"digest": "0" * 64})})
    with pytest.raises(ConfigError, match="digest"):
        finetune(other, lambda metrics, step, share: None)
