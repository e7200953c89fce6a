"""Fetch examples of a user's Dataset and collate them into batches, with clear errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Number
from typing import Any, cast

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from lth.errors import UsageError

Collate = Callable[[list[Any]], Any]


def fetch(dataset: Dataset[Any], places: Sequence[int], name: str, collate: Collate = default_collate) -> list[Any]:
    """The inputs and targets of the examples at these indices.

    Raises UsageError naming an example that does not match the others or is not a pair.
    """
    examples = [dataset[place] for place in places]
    try:
        batch = collate(examples)
    except (TypeError, ValueError, RuntimeError, KeyError, IndexError, AttributeError) as error:
        reason = _misfit(examples, places, name) or f"{name}'s examples cannot be collated into a batch: {_line(error)}"
        raise UsageError(reason) from error
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        raise UsageError(f"{name}'s examples are not pairs (x, y); use lth.imp with your own training function")
    return list(batch)


def _misfit(examples: list[Any], places: Sequence[int], name: str) -> str | None:
    """The first example that is not a pair, or that differs from the previous ones."""
    shapes: dict[int, tuple[int, tuple[int, ...]]] = {}
    for place, example in zip(places, examples, strict=True):
        if example is None or not isinstance(example, tuple | list) or len(example) != 2:
            what = "None" if example is None else f"{type(example).__name__}, not a pair (x, y)"
            return f"{name}[{place}] is {what}: leave such examples out of the Dataset (torch.utils.data.Subset)"
        for axis, value in enumerate(example):
            which = "xy"[axis]
            if not isinstance(value, Tensor | np.ndarray | Number | list | tuple):
                return f"{name}[{place}]: {which} is {type(value).__name__}{_transform(value)}"
            own_shape = tuple(np.shape(cast(Any, value)))
            first, shape = shapes.setdefault(axis, (place, own_shape))
            if own_shape != shape:
                return (
                    f"{name}[{place}]: {which} has shape {own_shape}, that of {name}[{first}] {shape}: expected "
                    "one shape; pad, cut or resize them in the Dataset"
                )
    return None


def _transform(value: Any) -> str:
    if type(value).__module__.startswith("PIL."):
        return ", an image of PIL: give the Dataset transform=torchvision.transforms.ToTensor()"
    return ": expected a tensor, an array or a number"


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:150]}"
