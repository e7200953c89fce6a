"""Tensors as safetensors files with a checksum. Equal tensors give equal bytes.

A large tensor that is mostly 0, such as a weight under a sparse mask, is stored as its nonzero values in row-major
order, with one bit per element under `survivors/NAME`, packed like masks, and its shape in the metadata. Other tensors
are stored in full, so that any tool can read them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from lth.config.names import printable, shown
from lth.errors import Damaged, UsageError
from lth.storage import checksums, layout, outcomes

LARGE = 2**20  # elements
SURVIVORS, SHAPES = "survivors/", "shapes"
STORABLE = frozenset(
    getattr(torch, name)
    for name in (
        *("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float64", "float32"),
        *("float16", "bfloat16", "complex64", "float8_e4m3fn", "float8_e5m2"),
    )
)
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def save_tensors(tensors: Mapping[str, Tensor], facts: dict[str, Any]) -> bytes:
    """Return the bytes of the file, with `facts` in its metadata.

    The metadata has a single key, because safetensors does not fix the order of several keys.
    """
    written: dict[str, Tensor] = {}
    shapes = {}
    for name, tensor in tensors.items():
        tensor = tensor.contiguous()
        there = surviving(tensor)
        if there is None:
            written[name] = tensor
        else:
            written |= {name: tensor[there], SURVIVORS + name: pack(there)}
            shapes[name] = list(tensor.shape)
    text = json.dumps(facts | {checksums.KEY: checksums.BLANK} | ({SHAPES: shapes} if shapes else {}), sort_keys=True)
    try:
        content = safetensors.torch.save(written, {"lth": text})
    except KeyError as error:
        raise UsageError(f"a tensor has the dtype {error.args[0]}, which safetensors files do not have") from None
    return checksums.sealed(content, checksums.head_of(content))


def storage_fault(tensor: Tensor) -> str:
    """Describe why a safetensors file cannot hold a tensor; an empty string if it can."""
    if tensor.is_quantized:
        return "is quantized: prune the module before it is quantized"
    if tensor.layout != torch.strided:
        return "is a sparse tensor, which safetensors cannot store: give its to_dense()"
    if tensor.dtype not in STORABLE:
        return (
            f"is {tensor.dtype}, which safetensors cannot store: convert it to another dtype, such as torch.complex64"
        )
    return ""


def surviving(tensor: Tensor) -> Tensor | None:
    """The elements to store if the tensor is stored sparsely. -0.0 counts as an element, so that no bit is lost."""
    if tensor.numel() < LARGE or not tensor.is_floating_point():
        return None
    there = tensor.view(_BITS[tensor.element_size()]) != 0
    return there if 2 * int(there.sum()) < tensor.numel() else None


def bytes_at(elements: int, density: float) -> float:
    """The approximate size that `save_tensors` gives a float32 tensor of this density."""
    thinned = elements >= LARGE and density < 0.5
    return elements * (4 * density + 1 / 8 if thinned else 4)


def read_tensors(folder: Path, name: str) -> dict[str, Tensor]:
    """Read the tensors of a file, named relative to the run's folder. Raises UsageError if it is damaged."""
    try:
        return load_tensors(outcomes.read_file(folder, name))
    except ValueError as error:
        raise Damaged(folder / name, str(error), layout.mended_by(folder)) from None


def load_tensors(content: bytes) -> dict[str, Tensor]:
    """The tensors in the bytes of a safetensors file, sorted by name. Raises ValueError if the file is invalid or
    damaged.

    The library returns them in an arbitrary order. The result has at most 64 times the size of the file, because a
    sparse element takes one bit in the file and up to 8 bytes in memory.
    """
    try:
        tensors = dict(sorted(safetensors.torch.load(content).items()))
    except SafetensorError as error:
        raise ValueError(str(error)) from None
    except KeyError as error:  # a dtype that torch does not have
        raise ValueError(f"it has a tensor of dtype {error.args[0]}, which is not supported") from None
    if fault := checksums.tensors_fault(content):
        raise ValueError(fault)
    for name, tensor in tensors.items():
        _check(name, tensor)
    if thinned := [name for name in tensors if name.startswith(SURVIVORS)]:
        shapes = _metadata(content).get(SHAPES)
        shapes = shapes if isinstance(shapes, dict) else {}
        for name in thinned:
            weight_name = name.removeprefix(SURVIVORS)
            tensors[weight_name] = _whole(
                weight_name, tensors.get(weight_name), tensors.pop(name), shapes.get(weight_name)
            )
    return tensors


def _check(name: str, tensor: Tensor) -> None:
    if printable(name) != name:
        raise ValueError(f"a tensor's name has control characters: {shown(name)}")
    if tensor.dtype == torch.bool and (tensor.view(torch.uint8) > 1).any():
        raise ValueError(f"{name} has booleans that are neither 0 nor 1")


def _whole(name: str, values: Tensor | None, packed: Tensor, shape: Any) -> Tensor:
    if values is None or not isinstance(shape, list) or not all(type(n) is int and n > 0 for n in shape):
        raise ValueError(f"{SURVIVORS}{name} has no numbers, or no shape")
    if packed.numel() != (prod(shape) + 7) // 8:  # before torch multiplies them in 64 bits
        raise ValueError(f"{SURVIVORS}{name} has {packed.numel()} bytes, which is not a bit for each place of {shape}")
    there = unpack(packed, torch.Size(shape))
    if values.shape != (int(there.sum()),):
        raise ValueError(f"{name} has {values.numel()} numbers, where {SURVIVORS}{name} has {int(there.sum())} places")
    whole = torch.zeros(shape, dtype=values.dtype)
    whole[there] = values
    return whole


def read_metadata(content: bytes) -> dict[str, Any]:
    """The `facts` given to `save_tensors`, read from the bytes of the file."""
    return {name: fact for name, fact in _metadata(content).items() if name != SHAPES}


def _metadata(content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(json.loads(content[8 : checksums.head_of(content)])["__metadata__"]["lth"])
    except (KeyError, TypeError, ValueError, RecursionError):
        raise ValueError("it has no metadata of lth") from None
    if not isinstance(value, dict):
        raise ValueError("its metadata is not an object")
    if (steered := next((text for text in _texts(value) if printable(text) != text), None)) is not None:
        raise ValueError(f"its metadata has control characters: {shown(steered)}")
    return value


def _texts(value: Any) -> Iterator[str]:
    """All strings and keys in a JSON value."""
    values = [value]
    for one in values:
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict | list):
            values += [*one, *one.values()] if isinstance(one, dict) else one


def pack(layer: Tensor) -> Tensor:
    """Pack a mask into bytes: eight weights per byte in row-major order, the first in the highest bit."""
    return torch.from_numpy(np.packbits(layer.cpu().numpy().reshape(-1)))


def unpack(packed: Tensor, shape: torch.Size) -> Tensor:
    """The inverse of `pack` for a layer of `shape`. Raises ValueError if the number of bytes is wrong."""
    count = shape.numel()
    if packed.dtype != torch.uint8 or packed.numel() != (count + 7) // 8:
        raise ValueError(f"a packed mask of {count} weights has {(count + 7) // 8} bytes, not {packed.numel()}")
    return torch.from_numpy(np.unpackbits(packed.numpy(), count=count)).to(torch.bool).reshape(shape)
