"""Splits of user data as a training loop needs them: the number of examples, and batches by index."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sized
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    TensorDataset,
    default_collate,
)

from lth.config import nearest, shown
from lth.data.arrays import tensor
from lth.data.fetching import Collate, fetch
from lth.data.splits import pixels
from lth.errors import UsageError
from lth.randomness import generator, global_draws

PARTS = ("train", "validation", "test")
PAIR = "a pair (x, y) of arrays or tensors, or a torch Dataset of such pairs"
SAMPLERS = (SequentialSampler, RandomSampler)  # of a DataLoader; its order is not used


@dataclass(frozen=True)
class Part:
    """One split. `batch` maps indices (int64) to (inputs, targets); uint8 inputs are scaled to [0, 1]."""

    size: int
    batch: Callable[[Tensor], tuple[Tensor, Tensor]]
    of_bytes: bool
    y: Tensor | None = None  # all targets, or None if they have to be fetched
    library: str = "torch"  # torch, numpy or pandas: the library of the user's targets


def parts(data: Any, validation: float | int | None, seed: int, floats: torch.dtype) -> dict[str, Part]:
    """The train, validation and, if given, test splits of `data`; floating-point numbers become `floats`.

    `data` is a pair (x, y), a Dataset, a DataLoader (whose dataset is used), or a mapping of train, validation and test
    to these. Without a validation set, `validation` of the training examples (a fraction or a count; default: a tenth)
    is chosen at random by `seed`.
    """
    given = dict(data) if isinstance(data, Mapping) else {"train": data}
    if unknown := [name for name in given if name not in PARTS]:
        raise UsageError(
            f"data has the key {shown(unknown[0])}{nearest(str(unknown[0]), PARTS)}; expected train, validation, test"
        )
    if "train" not in given:
        raise UsageError(f"data has no train: expected {PAIR}, or a dict of train, validation, test")
    splits = {name: part(given[name], name, floats) for name in PARTS if name in given}
    of_bytes = {name: one.of_bytes for name, one in splits.items()}
    if len({*of_bytes.values()}) > 1:
        kinds = ", ".join(f"{name} is of {'bytes' if given else 'other numbers'}" for name, given in of_bytes.items())
        raise UsageError(f"{kinds}: bytes are pixels and become [0, 1], so give all parts in one type")
    if "validation" in splits:
        if validation is not None:
            raise UsageError("validation is given and split off: leave out validation=, or the data's validation")
        return splits
    train, count = splits["train"], _count(validation, splits["train"].size)
    order = torch.randperm(train.size, generator=generator(seed, "validation"))
    held_out, remaining = order[:count].sort().values, order[count:].sort().values
    return splits | {"train": _subset(train, remaining), "validation": _subset(train, held_out)}


def part(given: Any, name: str, floats: torch.dtype) -> Part:
    """One split from the user's data. Raises UsageError saying what was expected."""
    collate: Collate = default_collate
    if isinstance(given, DataLoader):
        given, collate = _of_loader(given, name)
    if isinstance(given, TensorDataset) and collate is default_collate:
        given = given.tensors
    if isinstance(given, IterableDataset) or (isinstance(given, Dataset) and not isinstance(given, Sized)):
        raise UsageError(f"{name} is a Dataset without a length: expected one with __len__ and __getitem__")
    if isinstance(given, Dataset):
        return _of_dataset(given, name, floats, collate)
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise UsageError(f"{name} is {type(given).__name__}: expected {PAIR}")
    x, y = (tensor(one, f"{name}'s {axis}", floats) for one, axis in zip(given, "xy", strict=True))
    if len(x) != len(y) or not len(x):
        raise UsageError(f"{name} has {len(x)} inputs and {len(y)} targets: expected as many, and one at least")
    of_bytes = x.dtype == torch.uint8
    batch = lambda places: (pixels(x[places]).to(floats) if of_bytes else x[places], y[places])
    return Part(len(x), batch, of_bytes, y, _library(given[1]))


def _library(values: Any) -> str:
    if isinstance(values, Tensor):
        return "torch"
    return "pandas" if hasattr(values, "iloc") else "numpy"


def batch_of(data: Any) -> int | None:
    """The batch size of the training data if they are a DataLoader, else None."""
    train = data.get("train") if isinstance(data, Mapping) else data
    return train.batch_size if isinstance(train, DataLoader) else None


def _of_loader(loader: DataLoader[Any], name: str) -> tuple[Any, Collate]:
    """The dataset of a DataLoader, and its collate function."""
    if loader.batch_size is None and not isinstance(loader.dataset, IterableDataset):
        raise UsageError(f"{name} is a DataLoader with batches of its own making: give its dataset, loader.dataset")
    if not isinstance(loader.dataset, IterableDataset) and type(loader.sampler) not in SAMPLERS:
        raise UsageError(
            f"{name} is a DataLoader with a {type(loader.sampler).__name__}, and every example is drawn once an epoch "
            "here: give its dataset, loader.dataset, or use lth.imp with your own training function"
        )
    return loader.dataset, loader.collate_fn


def _of_dataset(dataset: Dataset[Any], name: str, floats: torch.dtype, collate: Collate) -> Part:
    """A split of a Dataset, whose examples are fetched each time because they may be augmented at random."""
    size = len(cast(Sized, dataset))
    if not size:
        raise UsageError(f"{name} is an empty Dataset")

    def fetched(places: list[int]) -> tuple[Tensor, Tensor]:
        x, y = fetch(dataset, places, name, collate)
        return tensor(x, f"{name}'s x", floats), tensor(y, f"{name}'s y", floats)

    def batch(places: Tensor) -> tuple[Tensor, Tensor]:
        x, y = fetched(places.tolist())
        return (pixels(x).to(floats) if x.dtype == torch.uint8 else x), y

    with global_draws(torch.device("cpu")):
        of_bytes = fetched([0])[0].dtype == torch.uint8
    return Part(size, batch, of_bytes)


def _subset(whole: Part, places: Tensor) -> Part:
    targets = None if whole.y is None else whole.y[places]
    return Part(len(places), lambda chosen: whole.batch(places[chosen]), whole.of_bytes, targets, whole.library)


def _count(validation: float | int | None, size: int) -> int:
    given = 0.1 if validation is None else validation
    if isinstance(given, bool) or not isinstance(given, Real):
        raise UsageError(f"validation = {shown(given)}: expected a share such as 0.1, or a number of examples")
    count = int(given) if isinstance(given, Integral) else round(size * float(given))
    if not 1 <= count < size:
        raise UsageError(f"validation = {shown(given)} takes {count} of {size} examples: expected 1 to {size - 1}")
    return count
