"""Warnings about too few examples, each by its own name."""

import pytest

from tasks.train.cautions import size_cautions
from tasks.train.config import LoraSettings, TrainConfig


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
def test_cautions_follow_the_guardrails(num_train: int, rank: int, names: set[str]) -> None:
    cautions = size_cautions(num_train, TrainConfig(lora=LoraSettings(r=rank)))
    assert cautions.keys() == names
    assert all(f"{num_train:,}" in text for text in cautions.values())
