"""Of several trainings one is kept, and the others are told."""

from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from tasks.artifacts import Adapter, BaseModelRef
from tasks.errors import TrainingError
from tasks.train.config import TrainConfig
from tasks.train.sweep import best_of

SWEEP = ({"learning_rate": 1e-3}, {"lora": {"r": 4}}, {"epochs": 1.0})
ANSWERS = {"metric": "accuracy", "num_generated": 8}


def adapters(*values: float) -> list[Adapter]:
    return [
        Adapter(
            uri=f"s3://bucket/train/{number}",
            digest=f"{number}",
            num_in=1,
            num_out=1,
            base_model=BaseModelRef(id="a", revision="b", digest="c", license="MIT"),
            adapter_digest=f"{number}",
            training_run_id="r",
            num_steps=10,
            best_step=number,
            train_loss=0.0,
            validation_loss=0.0,
            metric_value=value,
            tokens_per_second=1.0,
            seconds=1.0,
        )
        for number, value in enumerate(values)
    ]


@pytest.mark.parametrize(
    ("validation", "values", "chosen"),
    [
        ({}, (0.3, 0.1, 0.2), 1),
        (ANSWERS, (0.3, 0.1, 0.2), 0),
        ({}, (math.nan, 0.2, 0.2), 1),
        (ANSWERS, (math.nan, math.nan, 0.0), 2),
    ],
)
def test_the_best_by_the_metric(
    validation: dict[str, object], values: tuple[float, ...], chosen: int
) -> None:
    config = TrainConfig.model_validate({"sweep": SWEEP, "validation": validation})
    best = best_of(adapters(*values), config)
    assert best.adapter_digest == str(chosen)
    assert [told["chosen"] for told in best.sweep] == [i == chosen for i in range(3)]
    assert [told["overrides"] for told in best.sweep] == list(SWEEP)
    assert [told["best_step"] for told in best.sweep] == [0, 1, 2]


def test_none_has_a_number() -> None:
    with pytest.raises(TrainingError, match=r"None of the 2 trainings of train\.sweep has a eval_"):
        best_of(adapters(math.nan, math.nan), TrainConfig(sweep=SWEEP[:2]))


def test_variants_are_the_config_with_one_thing_changed() -> None:
    config = TrainConfig(sweep=SWEEP, batch_size=4)
    first, second, third = config.variants()
    base = config.model_copy(update={"sweep": ()})
    assert first == base.model_copy(update={"learning_rate": 1e-3})
    assert second.lora.r == 4
    assert second.lora.alpha == base.lora.alpha
    assert (third.epochs, third.batch_size, third.sweep) == (1.0, 4, ())
    assert TrainConfig().variants() == [TrainConfig()]


@pytest.mark.parametrize(
    ("sweep", "told"),
    [
        ([{"learning_rte": 1e-3}], "learning_rte"),
        ([{"epochs": -1}], "greater than 0"),
        ([{"sweep": []}], "cannot hold a sweep"),
        ([{"engine": "liger", "compile": True}], "choose one"),
    ],
)
def test_an_override_that_does_not_fit_is_refused_before_anything_runs(
    sweep: list[dict[str, object]], told: str
) -> None:
    with pytest.raises(ValidationError, match=told):
        TrainConfig.model_validate({"sweep": sweep})
