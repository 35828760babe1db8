"""Warnings before a training, each by its own name and at its own figure."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from tasks.train.cautions import cautions, learning_rate_range, size_cautions
from tasks.train.config import Guards, LoraSettings, TrainConfig

SMALL, LARGE = 135_000_000, 8_000_000_000


@pytest.mark.parametrize(
    ("num_train", "rank", "names"),
    [
        (499, 8, {"few_examples_for_lora"}),
        (499, 16, {"few_examples_for_lora", "rank_for_few_examples"}),
        (500, 8, set()),
        (999, 9, {"rank_for_few_examples"}),
        (1000, 64, set()),
    ],
)
def test_size_cautions_follow_the_guardrails(num_train: int, rank: int, names: set[str]) -> None:
    found = size_cautions(num_train, TrainConfig(lora=LoraSettings(r=rank)))
    assert found.keys() == names
    assert all(f"{num_train:,}" in text for text in found.values())


def names_of(
    num_train: int = 10_000,
    num_validation: int = 500,
    num_parameters: int = LARGE,
    general_share: float | None = 0.07,
    **settings: Any,
) -> set[str]:
    config = TrainConfig(**settings)
    return set(cautions(num_train, num_validation, num_parameters, general_share, config))


FEW = {"num_train": 999, "lora": LoraSettings(r=8)}
NO_DROPOUT = LoraSettings(r=8, dropout=0.0)
FULL = {"method": "full", "learning_rate": 2e-5}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, set()),
        ({"num_train": 4_999, **FULL}, {"few_examples_for_full", "full_fine_tuning"}),
        ({"num_train": 5_000, **FULL}, {"full_fine_tuning"}),
        ({**FEW, "epochs": 2.9}, {"epochs_for_few_examples"}),
        ({**FEW, "epochs": 3}, set()),
        ({**FEW, "epochs": 5}, set()),
        ({**FEW, "epochs": 5.1}, {"epochs_for_few_examples"}),
        ({"num_train": 1_000, "epochs": 9}, set()),
        ({"learning_rate": 9.9e-5}, {"learning_rate_low"}),
        ({"learning_rate": 1e-4}, set()),
        ({"learning_rate": 3e-4}, set()),
        ({"learning_rate": 3.1e-4}, {"learning_rate_high"}),
        ({"learning_rate": 1e-3, "num_parameters": SMALL}, set()),
        ({"learning_rate": 2.1e-3, "num_parameters": SMALL}, {"learning_rate_high"}),
        ({"learning_rate": 1e-4, "num_parameters": SMALL}, {"learning_rate_low"}),
        ({**FULL, "learning_rate": 2e-4}, {"full_fine_tuning", "learning_rate_high"}),
        (
            {"learning_rate": 1e-3, "guards": Guards(learning_rate_range=(1e-4, 1e-2))},
            set(),
        ),
        ({**FEW, "lora": NO_DROPOUT}, {"dropout_zero"}),
        ({"num_train": 1_000, "lora": NO_DROPOUT}, set()),
        ({"general_share": 0.049}, {"no_general_instructions"}),
        ({"general_share": 0.05}, set()),
        ({"general_share": None}, {"no_general_instructions"}),
        ({"num_validation": 49}, {"validation_small"}),
        ({"num_validation": 50}, set()),
        # An API chooses its own learning rate, rank and dropout.
        (
            {"engine": "openai", "num_train": 400, "learning_rate": 0.05, "lora": LoraSettings()},
            {"few_examples_for_lora"},
        ),
    ],
)
def test_each_guardrail_warns_at_its_figure(settings: dict[str, Any], expected: set[str]) -> None:
    assert names_of(**settings) == expected


def test_a_warning_tells_figures_and_what_to_do() -> None:
    config = TrainConfig(learning_rate=0.01, epochs=9, lora=LoraSettings(r=32, dropout=0.0))
    found = cautions(300, 20, SMALL, 0.01, config)
    assert found.keys() == {
        "few_examples_for_lora",
        "rank_for_few_examples",
        "epochs_for_few_examples",
        "learning_rate_high",
        "dropout_zero",
        "no_general_instructions",
        "validation_small",
    }
    assert "0.01 is above 0.0002 to 0.002" in found["learning_rate_high"]
    assert "lora on 135M parameters" in found["learning_rate_high"]
    assert found["no_general_instructions"].startswith("1.0% of the training rows")
    remedies = ("Set ", "Add ")
    assert all(any(remedy in text for remedy in remedies) for text in found.values())


def test_an_unknown_share_of_general_rows_is_said_to_be_unknown() -> None:
    found = cautions(10_000, 500, LARGE, None, TrainConfig())
    assert found["no_general_instructions"].startswith("Not known")


def test_the_configured_range_is_named() -> None:
    config = TrainConfig(learning_rate=1e-3, guards=Guards(learning_rate_range=(1e-5, 1e-4)))
    assert learning_rate_range(SMALL, config) == (1e-5, 1e-4)
    assert (
        "guards.learning_rate_range: "
        in cautions(9_999, 99, SMALL, 0.1, config)["learning_rate_high"]
    )


def test_cautions_import_nothing_heavy() -> None:
    code = "import sys, tasks.train.cautions; print({'torch', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
