"""Nested Python values with tensors <-> a JSON tree and a safetensors file, bit for bit.

What ``torch.save`` writes is a pickle, which may run code when it is read. Here a value is a tree
of JSON with a tag for what JSON does not tell apart, and its tensors lie beside it by name::

    {"state": {0: tensor}, "lr": 0.1, "betas": (0.9,)}
    ["dict", [["state", ["dict", [[0, ["tensor", "0"]]]]], ["lr", ["float", "3fb99..."]], ...]]
"""

from __future__ import annotations

import json
import struct
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from tasks.errors import ArtifactMissingError, StorageError

TREE, TENSORS = ".json", ".safetensors"
# What safetensors stores and gives back as the same type (safetensors 0.8, torch.py).
_TENSOR_TYPES = frozenset(
    {
        torch.float64,
        torch.float32,
        torch.float16,
        torch.bfloat16,
        torch.float8_e4m3fn,
        torch.float8_e5m2,
        torch.int64,
        torch.int32,
        torch.int16,
        torch.int8,
        torch.uint64,
        torch.uint32,
        torch.uint16,
        torch.uint8,
        torch.bool,
    }
)
_ARRAY_TYPES = frozenset(
    {"bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"}
    | {"float16", "float32", "float64"}
)


class UndecodableError(ArtifactMissingError):
    """A stored value or checkpoint that is not in the form it was written in."""


def write_value(value: Any, base: Path) -> None:
    """Write ``<base>.json`` and ``<base>.safetensors``.

    Kept exactly: None, bool, int, float (with the bits of a NaN), str, list, tuple, dict and
    OrderedDict with keys of any of these, CPU tensors and NumPy arrays of numbers. Raises
    StorageError for anything else, naming where it stands; subclasses are something else.
    """
    tensors: dict[str, torch.Tensor] = {}
    tree = _encode(value, tensors, base.name)
    _beside(base, TREE).write_text(json.dumps(tree))
    save_file(tensors, _beside(base, TENSORS))


def read_value(base: Path) -> Any:
    """What ``write_value`` wrote. Raises UndecodableError for what it cannot have written."""
    try:
        tree = json.loads(_beside(base, TREE).read_bytes())
        return _decode(tree, load_file(_beside(base, TENSORS)))
    except FileNotFoundError as error:
        raise UndecodableError(f"{base.name}: {error.filename} is missing.") from error
    # A tree of another shape fails in the indexing, a deep one in the recursion.
    except (
        ValueError,
        TypeError,
        KeyError,
        struct.error,
        SafetensorError,
        RecursionError,
    ) as error:
        raise UndecodableError(f"{base.name} cannot be read: {error!r}.") from error


def _beside(base: Path, suffix: str) -> Path:
    return base.with_name(base.name + suffix)


def _encode(value: Any, tensors: dict[str, torch.Tensor], where: str) -> Any:
    kind = type(value)
    if value is None or kind in (bool, int, str):
        return value
    if kind is float:
        return ["float", struct.pack(">d", value).hex()]
    if kind in (list, tuple):
        items = [_encode(v, tensors, f"{where}[{n}]") for n, v in enumerate(value)]
        return [kind.__name__, items]
    if kind in (dict, OrderedDict):
        return [kind.__name__, _encode_items(value, tensors, where)]
    if kind is torch.Tensor:
        return ["tensor", _keep(value, tensors, where)]
    if kind is np.ndarray:
        return ["array", _keep(_as_tensor(value, where), tensors, where)]
    raise StorageError(
        f"{where} is a {kind.__module__}.{kind.__qualname__}, which cannot be stored without "
        "pickle. Expected numbers, strings, lists, tuples, dicts, tensors or NumPy arrays."
    )


def _encode_items(
    value: Mapping[Any, Any], tensors: dict[str, torch.Tensor], where: str
) -> list[list[Any]]:
    return [
        [_encode(key, tensors, f"key {key!r} of {where}"), _encode(v, tensors, f"{where}[{key!r}]")]
        for key, v in value.items()
    ]


def _keep(tensor: torch.Tensor, tensors: dict[str, torch.Tensor], where: str) -> str:
    plain = tensor.layout is torch.strided and tensor.device.type == "cpu"
    if tensor.dtype not in _TENSOR_TYPES or not plain or tensor.requires_grad:
        raise StorageError(
            f"{where} is a tensor of {tensor.dtype}, {tensor.layout}, on {tensor.device}, "
            f"requires_grad {tensor.requires_grad}. Expected plain numbers on the CPU."
        )
    name = str(len(tensors))
    # A copy: safetensors refuses tensors that share memory.
    tensors[name] = tensor.clone(memory_format=torch.contiguous_format)
    return name


def _as_tensor(array: np.ndarray[Any, Any], where: str) -> torch.Tensor:
    if array.dtype.name not in _ARRAY_TYPES or not array.dtype.isnative:
        raise StorageError(f"{where} is a NumPy array of {array.dtype}. Expected plain numbers.")
    return torch.from_numpy(array.copy(order="C"))


def _decode(tree: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if not isinstance(tree, list):
        if isinstance(tree, float | dict):
            raise TypeError(f"{tree!r} without a tag")
        return tree
    kind, body = tree
    if kind == "float":
        return struct.unpack(">d", bytes.fromhex(body))[0]
    if kind in ("list", "tuple"):
        items = [_decode(item, tensors) for item in body]
        return items if kind == "list" else tuple(items)
    if kind in ("dict", "OrderedDict"):
        pairs = [(_decode(key, tensors), _decode(value, tensors)) for key, value in body]
        return dict(pairs) if kind == "dict" else OrderedDict(pairs)
    if kind == "tensor":
        return tensors[body]
    if kind == "array":
        return tensors[body].numpy()
    raise ValueError(f"unknown tag {kind!r}")
