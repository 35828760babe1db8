"""From the adapter's log to what the page and the summary say of a training."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tasks.report.story import TrainingStory
from tasks.report.training import Planned, Variant, view
from tasks.report.training_log import plan_of, training_facts

Log = Callable[..., dict[str, Any]]
Train = Callable[..., TrainingStory]


def test_plan_stands_against_what_was_used(log: Log, train: Train) -> None:
    told = view(train(log()))
    assert told.planned == [
        Planned("Steps", "342", "342", "as planned"),
        Planned("Validations", "9", "9", "as planned"),
        Planned("Tokens", "605,700", "605,888", "as planned"),
        Planned("Trained tokens", "121,480", "121,480", "as planned"),
        Planned("Time", "7 min 40 s", "8 min 32 s", "+11 %"),
        Planned("Memory", "3.4 GiB", "3.7 GiB", "+9 %"),
        Planned("Cost", "$0.26", "$0.29", "+11 %"),
    ]
    assert told.hardware == "2 cores of an Intel Xeon"


def test_record_of_several_parts_is_read_as_well(log: Log, train: Train) -> None:
    plan = {
        "schedule": {"steps": 400, "steps_an_epoch": 100, "evaluations": 8},
        "memory": {"weights": 2**30, "activations": 2**29},
        "hardware": {"name": "NVIDIA H200", "kind": "cuda"},
        "seconds": 511.6,
        "seconds_low": 300.0,
        "seconds_high": 900.0,
        "usd_per_hour": 3.6,
        "usd": 0.5,
    }
    told = view(train(log(plan=plan)))
    assert told.hardware == "NVIDIA H200"
    assert told.planned == [
        Planned("Steps", "400", "342", "−15 %"),
        Planned("Validations", "8", "9", "+12 %"),
        Planned("Time", "8 min 32 s (5 min 0 s to 15 min 0 s)", "8 min 32 s", "as planned"),
        Planned("Memory", "1.5 GiB", "3.7 GiB", "+147 %"),
        Planned("Cost", "$0.50", "$0.51", "+2 %"),
    ]
    assert plan_of({"plan": plan})["steps_per_epoch"] == 100


def test_what_was_not_planned_or_not_measured_is_not_made_up(log: Log, train: Train) -> None:
    history = [{"step": 5, "loss": 1.0}]
    nothing = train(log(plan={"memory_gib": 2.0, "usd": None, "steps": 0}, history=history))
    assert view(nothing).planned == [
        Planned("Steps", "0", "342", ""),
        Planned("Memory", "2.0 GiB", "–", ""),
    ]
    broken = train(log(plan={"seconds": float("nan"), "usd": float("inf")}))
    assert [line.planned for line in view(broken).planned] == ["not a number", "not a number"]
    hosted = train(log(engine="openai"))
    assert hosted.actual["usd"] is None
    assert train(log(engine="openai", usd=1.25)).actual["usd"] == 1.25


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, "LoRA (r 16, alpha 32, dropout 0.05) · engine trl · 4 × 2 accumulated = 8 rows a step "
         "· learning rate 0.0002 cosine · 3 epochs · bfloat16 · seed 0"),
        ({"settings": {}, "num_processes": 4, "seeds": {"order": 1, "dropout": 2}},
         "LoRA · engine trl · 4 × 2 accumulated × 4 processes = 32 rows a step · "
         "seeds order 1, dropout 2"),
        ({"settings": {"lora": {"r": 8, "dora": True}}, "method": "qlora", "accumulation": 1,
          "engine": None, "seeds": {}}, "QLoRA (r 8, dora) · 4 rows a step"),
        ({"settings": {"lora": {"r": 8}}, "method": "full", "engine": None, "seeds": None,
          "micro_batch": None}, "Full fine-tuning"),
    ],
)  # fmt: skip
def test_settings_in_one_line(changes: dict[str, Any], told: str, log: Log, train: Train) -> None:
    assert view(train(log(**changes))).settings == told


def test_sweep_shows_every_training_and_the_chosen_one(log: Log, train: Train) -> None:
    assert view(train(log())).sweep == [
        Variant("learning_rate 0.0001", "0.871", "304", False),
        Variant("learning_rate 0.0002, lora.r 16", "0.932", "266", True),
    ]
    bare = view(train(log(sweep=[{"overrides": {}, "value": float("nan"), "chosen": True}]))).sweep
    assert bare == [Variant("as configured", "not a number", "–", True)]


@pytest.mark.parametrize(
    ("merge", "told"),
    [
        ({"dtype": "float32", "num_tokens": 512, "max_logprob_difference": 2.1e-4,
          "argmax_agreement": 0.99998},
         "The merged model (float32) was checked against the adapter on 512 tokens of real "
         "prompts: log-probabilities differ by at most 0.00021, the likeliest token is the same "
         "in 99.99 %."),
        ({"max_logprob_difference": 0, "argmax_agreement": 1.0},
         "The merged model was checked against the adapter: log-probabilities differ by at most 0, "
         "the likeliest token is the same in 100 %."),
    ],
)  # fmt: skip
def test_merge_is_told(merge: dict[str, Any], told: str, log: Log, train: Train) -> None:
    assert view(train(log(merge=merge, notes=[]))).notes == [told]
    assert view(train(log(merge=None, notes=["It stopped early."]))).notes == ["It stopped early."]


def test_figures_name_the_metric_that_decided(log: Log, train: Train) -> None:
    figures = dict(view(train(log())).figures)
    assert figures["best field f1"] == "0.9317"
    assert figures["its validation loss"] == "0.3281"
    assert figures["time to first step"] == "4.2 s"
    assert figures["time lost to checkpoints"] == "1.3 s"
    assert "best validation loss" not in figures
    older = dict(view(train({"history": []})).figures)
    assert older["best validation loss"] == "0.3281"
    assert not [name for name in older if name.startswith("time ")]


def test_summary_holds_all_but_the_curves(log: Log, train: Train) -> None:
    facts = training_facts(train(log()))
    assert "history" not in facts
    assert facts["best_step"] == 266
    assert facts["plan"]["steps"] == 342
    assert facts["actual"]["memory_gib"] == 3.7
    assert facts["sweep"][1]["chosen"] is True
    assert json.loads(json.dumps(facts)) == facts


def test_every_key_may_be_missing_or_null(log: Log, train: Train) -> None:
    for name in log():
        without = log()
        del without[name]
        view(train(without))
        view(train(log(**{name: None})))
    story = replace(train(log()), best_step=None, log={}, actual={}, figures={})
    assert view(story).settings == ""
