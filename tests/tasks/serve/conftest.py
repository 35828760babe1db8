"""A tiny base model, two adapters of it, and what one of them computes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tasks.artifacts import BaseModelRef
from tasks.base_model import BaseModelConfig, load_tokenizer, pin, stop_ids
from tasks.example import Example, Message
from tasks.format.probes import FILE, write_probes
from tasks.format.template import Template
from tasks.serve.parity import Probe
from tasks.serve.reference import measured
from tests.tasks.serve.adapters import random_adapter


@pytest.fixture(scope="session")
def base(tiny_model: Path) -> BaseModelRef:
    return pin(BaseModelConfig(id=str(tiny_model)))


@pytest.fixture(scope="session")
def adapter(base: BaseModelRef, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_adapter(tmp_path_factory.mktemp("adapter"), base, seed=1)


@pytest.fixture(scope="session")
def stale(base: BaseModelRef, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_adapter(tmp_path_factory.mktemp("stale"), base, seed=2)


@pytest.fixture(scope="session")
def probes(
    base: BaseModelRef, adapter: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[Probe]:
    """As the format stage and the stage ``record_parity`` make them."""
    folder = tmp_path_factory.mktemp("probes")
    turns = (Message("user", "Where is my parcel?"), Message("assistant", "On its way."))
    rows = [Example(f"{n:064}", turns, "human", str(n)) for n in range(2)]
    template = Template(load_tokenizer(base), stop_ids(base))
    # The long one does not fit: 512 positions are all that the model has.
    assert write_probes(rows, ["validation", "train"], template, 400, folder) == 5
    lines = (folder / FILE).read_text("utf-8").splitlines()
    torch.manual_seed(0)
    return measured([Probe.model_validate_json(ln) for ln in lines], base, adapter, "float32")
