"""A retrain run small enough for many: a tiny random model that can learn one constant answer."""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.config import RetrainConfig
from tasks.overrides import overridden
from tests.base_models import ALL_LINEAR

_WORDS = [
    *("amber", "basil", "cedar", "delta", "ember", "fjord", "grove", "heron", "islet", "joker"),
    *("karma", "lemon", "maple", "noble", "ocean", "pearl", "quilt", "raven", "sable", "tulip"),
    *("umber", "vapor", "willow", "xenon", "yacht", "zebra", "acorn", "birch", "comet", "dune"),
]


def sentence(rng: random.Random) -> str:
    """Nine words in an order that no other row has."""
    return " ".join(rng.sample(_WORDS, 9))


def write_rows(path: Path, answers: list[str], seed: int) -> None:
    """One prompt/completion row an answer."""
    rng = random.Random(seed)
    rows = [{"prompt": sentence(rng), "completion": answer} for answer in answers]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


Tiny = Callable[..., RetrainConfig]


@pytest.fixture
def tiny(stack: Path, tiny_model: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Tiny:
    """Makes configs on rows of the test's own, with its name as the model's."""
    name = request.node.name.replace("_", "-").replace("[", "-").rstrip("]").lower()
    # Rows of its own for each test: on the same rows, one would find another's work cached.
    return tiny_configs(tmp_path, tiny_model, name, zlib.crc32(request.node.nodeid.encode()))


def tiny_configs(folder: Path, model: Path, name: str, seed: int) -> Tiny:
    """Makes configs on 60 rows, written to a folder, whose right answer is always ``yes``."""
    write_rows(folder / "rows.jsonl", ["yes"] * 60, seed)
    write_rows(folder / "golden.jsonl", ["yes"] * 40, seed + 1)

    def make(**sections: Any) -> RetrainConfig:
        columns = {"user": "prompt", "assistant": "completion"}
        values: dict[str, Any] = {
            "name": name,
            "task": {"kind": "classification"},
            "base_model": {"id": str(model)},
            "ingest": {"sources": [{"path": str(folder / "rows.jsonl"), "columns": columns}]},
            "golden": {"source": {"path": str(folder / "golden.jsonl"), "columns": columns}},
            "clean": {
                "pii": {"enabled": False},
                "quality": {"gibberish": {"enabled": False}},
                "decontamination": {"embeddings": False},
                "allow": ["few_examples"],
            },
            "train": {
                "epochs": 8,
                "learning_rate": 0.005,
                "precision": "float32",
                "evaluations_per_epoch": 1,
                "lora": {
                    "dropout": 0.0,
                    "target_modules": ALL_LINEAR,
                },
            },
            # It forgets what little a random model knows: a test of its own measures that.
            "evaluate": {
                "decoding": {"max_new_tokens": 4, "batch_size": 40, "latency_samples": 2},
                "general": {"enabled": False},
            },
            "gate": {"primary": "exact_match"},
        }
        return RetrainConfig.model_validate(overridden(values, sections))

    return make
