"""Small trainings: rows of two lengths with one constant answer, and a tiny model to learn it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.artifacts import BaseModelRef, TaskConfig
from tasks.base_model import BaseModelConfig, pin
from tasks.train.batches import IGNORED
from tasks.train.config import LoraSettings, TrainConfig
from tasks.train.finetune import finetune
from tasks.train.job import Job, Training
from tests.base_models import ALL_LINEAR

SHORT = TrainConfig(
    epochs=2,
    batch_size=4,
    learning_rate=5e-3,
    precision="float32",
    evaluations_per_epoch=1,
    lora=LoraSettings(r=4, alpha=8, dropout=0.0, target_modules=tuple(ALL_LINEAR)),
)
Ids = list[int]


def write_split(folder: Path, name: str, rows: list[tuple[Ids, Ids]]) -> None:
    ids, labels = zip(*rows, strict=True)
    named = [hashlib.sha256(f"{name} {i}".encode()).hexdigest() for i in range(len(rows))]
    table = pa.table({"id": named, "input_ids": ids, "labels": labels})
    pq.write_table(table, folder / f"{name}.parquet")


def some_rows(count: int, answer: tuple[int, ...] = (500, 501, 2)) -> list[tuple[Ids, Ids]]:
    """Rows that begin alike, go on by their number, in two lengths, and end with one answer."""
    rows = []
    for number in range(count):
        prompt = [1, 9, 8, *[100 + number, 200 + number, 7] * (1 + number % 2)]
        rows.append(([*prompt, *answer], [IGNORED] * len(prompt) + list(answer)))
    return rows


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    rows = some_rows(24)
    write_split(folder, "train", rows[:18])
    write_split(folder, "validation", rows[18:])
    return folder


@pytest.fixture
def base(tiny_model: Path) -> BaseModelRef:
    return pin(BaseModelConfig(id=str(tiny_model)))


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RETUNE_STORE", str(tmp_path / "store"))
    return tmp_path / "store"


Run = Callable[..., Training]


@pytest.fixture
def job(data: Path, base: BaseModelRef, tmp_path: Path, store: Path) -> Callable[..., Job]:
    """Makes jobs; ``config`` changes override ``SHORT``, the key is the output's name."""

    def make(name: str = "out", kind: str = "generation", **changes: Any) -> Job:
        output = tmp_path / name
        output.mkdir(exist_ok=True)
        config = TrainConfig.model_validate(SHORT.model_dump() | changes)
        return Job(
            data=data, output=output, base=base, config=config, task=TaskConfig(kind=kind), key=name
        )

    return make


@pytest.fixture
def run(job: Callable[..., Job]) -> Run:
    """Trains; answers what it came to. The weights are in ``tmp_path / name``."""

    def train(name: str = "out", **changes: Any) -> Training:
        return finetune(job(name, **changes), lambda metrics, step, share: None)

    return train
