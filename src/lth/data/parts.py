"""Anybody's data as what a training loop asks for: how many examples there are, and a batch of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sized
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, TensorDataset, default_collate

from lth.config import nearest, shown
from lth.data.splits import pixels
from lth.errors import UsageError
from lth.randomness import generator

PARTS = ("train", "validation", "test")
PAIR = "a pair (x, y) of arrays or tensors, or a torch Dataset of such pairs"


@dataclass(frozen=True)
class Part:
    """Some examples. `batch` of their places, int64, is (inputs, targets); bytes are pixels and become [0, 1]."""

    size: int
    batch: Callable[[Tensor], tuple[Tensor, Tensor]]
    of_bytes: bool | None = None  # None: not known before an example is fetched


def parts(data: Any, validation: float | int | None, seed: int, floats: torch.dtype) -> dict[str, Part]:
    """The train, validation and, where given, test part of `data`; floating-point numbers become `floats`.

    `data` is a pair (x, y), a Dataset, or a mapping of train, validation, test to such. Without a validation part one
    is split off at random, by `seed` alone: `validation` of the examples, a share or a count (a tenth unless given).
    """
    given = dict(data) if isinstance(data, Mapping) else {"train": data}
    if unknown := [name for name in given if name not in PARTS]:
        raise UsageError(
            f"data has the key {shown(unknown[0])}{nearest(str(unknown[0]), PARTS)}; expected train, validation, test"
        )
    if "train" not in given:
        raise UsageError(f"data has no train: expected {PAIR}, or a dict of train, validation, test")
    found = {name: part(given[name], name, floats) for name in PARTS if name in given}
    of_bytes = {name: one.of_bytes for name, one in found.items() if one.of_bytes is not None}
    if len({*of_bytes.values()}) > 1:
        kinds = ", ".join(f"{name} is of {'bytes' if given else 'other numbers'}" for name, given in of_bytes.items())
        raise UsageError(f"{kinds}: bytes are pixels and become [0, 1], so give all parts in one type")
    if "validation" in found:
        if validation is not None:
            raise UsageError("validation is given and split off: leave out validation=, or the data's validation")
        return found
    train, count = found["train"], _count(validation, found["train"].size)
    order = torch.randperm(train.size, generator=generator(seed, "validation"))
    held_out, kept = order[:count].sort().values, order[count:].sort().values
    return found | {"train": _subset(train, kept), "validation": _subset(train, held_out)}


def part(given: Any, name: str, floats: torch.dtype) -> Part:
    """One part from what the user has. Raises UsageError saying what was expected."""
    if isinstance(given, TensorDataset):
        given = given.tensors
    if isinstance(given, IterableDataset) or (isinstance(given, Dataset) and not isinstance(given, Sized)):
        raise UsageError(f"{name} is a Dataset without a length: expected one with __len__ and __getitem__")
    if isinstance(given, Dataset):
        return _of_dataset(given, name, floats)
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise UsageError(f"{name} is {type(given).__name__}: expected {PAIR}")
    x, y = (_tensor(one, f"{name}'s {axis}", floats) for one, axis in zip(given, "xy", strict=True))
    if len(x) != len(y) or not len(x):
        raise UsageError(f"{name} has {len(x)} inputs and {len(y)} targets: expected as many, and one at least")
    of_bytes = x.dtype == torch.uint8
    return Part(len(x), lambda places: (pixels(x[places]).to(floats) if of_bytes else x[places], y[places]), of_bytes)


def _of_dataset(dataset: Dataset[Any], name: str, floats: torch.dtype) -> Part:
    """Examples are fetched anew each time: they may be augmented at random."""
    size = len(cast(Sized, dataset))
    if not size:
        raise UsageError(f"{name} is an empty Dataset")

    def batch(places: Tensor) -> tuple[Tensor, Tensor]:
        examples = default_collate([dataset[place] for place in places.tolist()])
        if not isinstance(examples, tuple | list) or len(examples) != 2:
            raise UsageError(f"{name}'s examples are no pairs (x, y); use lth.imp with a training function of your own")
        x, y = (_tensor(one, f"{name}'s {axis}", floats) for one, axis in zip(examples, "xy", strict=True))
        return (pixels(x).to(floats) if x.dtype == torch.uint8 else x), y

    return Part(size, batch)


def _tensor(values: Any, name: str, floats: torch.dtype) -> Tensor:
    if isinstance(values, np.ndarray):  # torch takes neither a reversed view nor the other byte order
        values = np.ascontiguousarray(values, values.dtype.newbyteorder("="))
    try:
        tensor = torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError, KeyError):
        raise UsageError(f"{name} is {type(values).__name__}: expected an array or a tensor of numbers") from None
    if not tensor.dim():
        raise UsageError(f"{name} is a single number: expected one for each example")
    if tensor.is_floating_point():
        return tensor.to(floats)
    return tensor if tensor.dtype in (torch.uint8, torch.bool) and name.endswith("x") else tensor.long()


def _subset(whole: Part, places: Tensor) -> Part:
    return Part(len(places), lambda chosen: whole.batch(places[chosen]))


def _count(validation: float | int | None, size: int) -> int:
    given = 0.1 if validation is None else validation
    if isinstance(given, bool) or not isinstance(given, Real):
        raise UsageError(f"validation = {shown(given)}: expected a share such as 0.1, or a number of examples")
    count = int(given) if isinstance(given, Integral) else round(size * float(given))
    if not 1 <= count < size:
        raise UsageError(f"validation = {shown(given)} takes {count} of {size} examples: expected 1 to {size - 1}")
    return count
