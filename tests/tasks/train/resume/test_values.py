"""Nested values go through JSON and safetensors and come back bit for bit."""

from __future__ import annotations

import json
import math
import random
import struct
from collections import OrderedDict, defaultdict
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tasks.errors import StorageError
from tasks.train.resume.values import UndecodableError, read_value, write_value

DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.uint16,
    torch.uint32,
    torch.uint64,
    torch.bool,
]
ARRAYS = hnp.arrays(
    dtype=st.sampled_from([np.uint32, np.uint8, np.int64, np.float32, np.float64, np.bool_]),
    shape=hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
)
TENSORS = ARRAYS.map(lambda array: torch.from_numpy(array.copy()))
KEYS = st.one_of(st.integers(), st.text(), st.booleans(), st.none(), st.tuples(st.integers()))
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.text(),
    # Every pattern of bits: a NaN's too.
    st.binary(min_size=8, max_size=8).map(lambda bits: struct.unpack(">d", bits)[0]),
    ARRAYS,
    TENSORS,
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(KEYS, inner, max_size=4),
        st.dictionaries(KEYS, inner, max_size=4).map(OrderedDict),
    ),
    max_leaves=12,
)


def same(a: Any, b: Any) -> bool:
    """Equal in type and in every bit."""
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        alike = a.dtype == b.dtype and a.shape == b.shape
        return alike and a.contiguous().view(-1).numpy(force=True).tobytes() == (
            b.contiguous().view(-1).numpy(force=True).tobytes()
        )
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, float):
        return struct.pack(">d", a) == struct.pack(">d", b)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return same(list(a), list(b)) and all(same(a[key], b[key]) for key in a)
    return bool(a == b)


def through(value: Any, folder: Path) -> Any:
    write_value(value, folder / "value.pt")
    return read_value(folder / "value.pt")


@settings(
    deadline=None,
    max_examples=200,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(value=VALUES)
def test_any_nested_value_comes_back(value: Any, tmp_path: Path) -> None:
    assert same(through(value, tmp_path), value)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tensors_of_every_type_come_back(dtype: torch.dtype, tmp_path: Path) -> None:
    bits = torch.arange(64, dtype=torch.uint8)
    tensor = (bits % 2).bool() if dtype is torch.bool else bits.view(dtype)
    back = through([tensor], tmp_path)[0]
    assert back.dtype == dtype
    raw = torch.uint8
    assert torch.equal(back.view(raw), tensor.view(raw))


def test_views_and_tensors_that_share_memory_come_back(tmp_path: Path) -> None:
    whole = torch.arange(12.0).reshape(3, 4)
    value = {"whole": whole, "turned": whole.T, "row": whole[1], "same": whole}
    assert same(through(value, tmp_path), value)


def test_the_state_of_an_8_bit_optimizer_comes_back(tmp_path: Path) -> None:
    """The shape of bitsandbytes' AdamW8bit.state_dict()."""
    state = {
        "state": {
            0: {
                "step": 3,
                "state1": torch.randint(0, 256, (64, 8), dtype=torch.uint8),
                "qmap1": torch.linspace(-1, 1, 256),
                "absmax1": torch.rand(4),
            }
        },
        "param_groups": [{"lr": 2e-4, "betas": (0.9, 0.999), "params": [0], "foreach": None}],
    }
    assert same(through(state, tmp_path), state)


def test_an_adamw_state_comes_back_and_steps_on_alike(tmp_path: Path) -> None:
    def made() -> tuple[torch.nn.Parameter, torch.optim.AdamW]:
        weight = torch.nn.Parameter(torch.linspace(-1, 1, 6))
        return weight, torch.optim.AdamW([weight], lr=0.1)

    def step(weight: torch.nn.Parameter, optimizer: torch.optim.AdamW) -> None:
        optimizer.zero_grad()
        (weight**3).sum().backward()
        optimizer.step()

    weight, optimizer = made()
    for _ in range(3):
        step(weight, optimizer)
    other, resumed = made()
    with torch.no_grad():
        other.copy_(weight)
    resumed.load_state_dict(through(optimizer.state_dict(), tmp_path))
    step(weight, optimizer)
    step(other, resumed)
    assert torch.equal(weight, other)


def test_the_states_of_the_generators_come_back(tmp_path: Path) -> None:
    states = {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "cpu": torch.get_rng_state(),
    }
    assert same(through(states, tmp_path), states)


class Number(float):
    pass


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": [1, {2, 3}]}, r"value.pt\['a'\]\[1\] is a builtins.set"),
        ({"a": Fraction(1, 2)}, "fractions.Fraction"),
        (defaultdict(int), "collections.defaultdict"),
        (Number(1.0), "Number"),
        (np.float64(1.0), "numpy.float64"),
        (b"raw", "builtins.bytes"),
        ({(1, b"x"): 1}, r"key .* of value.pt\[1\] is a builtins.bytes"),
        (torch.nn.Parameter(torch.ones(1)), "Parameter"),
        (torch.ones(1, requires_grad=True), "requires_grad True"),
        (torch.eye(2).to_sparse(), "sparse"),
        (torch.ones(1, dtype=torch.complex64), "complex64"),
        (torch.ones(1, device="meta"), "meta"),
        (np.array(["text"]), "NumPy array of <U4"),
        (np.array([None]), "NumPy array of object"),
        (np.array([1], dtype=">u4"), "NumPy array of >u4"),
    ],
    ids=str,
)
def test_what_would_need_pickle_is_refused_by_name(
    value: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(StorageError, match=message):
        write_value(value, tmp_path / "value.pt")


@pytest.mark.parametrize(
    "tree",
    [
        "{",
        "[",
        "1.5",
        "NaN",
        "{}",
        '["set", []]',
        '["dict", [1]]',
        '["dict", [[["list", []], 1]]]',
        '["float", "zz"]',
        '["float", "00"]',
        '["float", 1]',
        '["tensor", "7"]',
        '["tensor", []]',
        '["tensor"]',
        '["list", 5]',
        "[" * 100_000,
        "\xff",
    ],
)
def test_a_tree_that_nobody_wrote_is_refused(tree: str, tmp_path: Path) -> None:
    write_value([1], tmp_path / "value.pt")
    (tmp_path / "value.pt.json").write_bytes(tree.encode("latin-1"))
    with pytest.raises(UndecodableError, match=r"value\.pt"):
        read_value(tmp_path / "value.pt")


def test_damaged_or_missing_tensors_are_refused(tmp_path: Path) -> None:
    write_value([torch.ones(4)], tmp_path / "value.pt")
    path = tmp_path / "value.pt.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UndecodableError, match=r"value\.pt cannot be read"):
        read_value(tmp_path / "value.pt")
    path.unlink()
    with pytest.raises(UndecodableError, match="missing"):
        read_value(tmp_path / "value.pt")


def test_the_tree_is_plain_json(tmp_path: Path) -> None:
    write_value({"lr": math.inf, 0: (True,)}, tmp_path / "value.pt")

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    tree = json.loads((tmp_path / "value.pt.json").read_text(), parse_constant=refuse)
    pairs = [["lr", ["float", "7ff0000000000000"]], [0, ["tuple", [True]]]]
    assert tree == ["dict", pairs]
