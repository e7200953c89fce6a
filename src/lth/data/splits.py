"""A dataset as tensors, with a validation set chosen by seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from lth.data.examples import Data
from lth.errors import UsageError
from lth.randomness import generator


@dataclass(frozen=True)
class Splits:
    """The three splits of a dataset as separate tensors; x as stored (uint8 stays uint8) or standardised.

    y is int64 [n], or in regression float32 [n, values]. Within a split, examples keep the order of the dataset.
    """

    train_x: torch.Tensor
    train_y: torch.Tensor
    val_x: torch.Tensor
    val_y: torch.Tensor
    test_x: torch.Tensor
    test_y: torch.Tensor


def split(data: Data, validation: int, seed: int, mean: Sequence[float] = (), std: Sequence[float] = ()) -> Splits:
    """Set `validation` of the training examples aside, chosen at random by `seed` alone.

    The paper uses 5,000 of MNIST's 60,000. 0 gives empty tensors. With `mean` and `std`, one number for each channel
    (or feature), all x become float32: (x - mean) / std, with pixels scaled to [0, 1]. Raises UsageError if no training
    examples would remain.
    """
    check_validation(data, validation)
    check_channels(data, mean)
    count = len(data.train_x)
    drawn = np.zeros(count, dtype=bool)
    drawn[torch.randperm(count, generator=generator(seed, "validation"))[:validation].numpy()] = True
    splits = Splits(
        train_x=_tensor(data.train_x[~drawn]),
        train_y=_tensor(data.train_y[~drawn]),
        val_x=_tensor(data.train_x[drawn]),
        val_y=_tensor(data.train_y[drawn]),
        test_x=_tensor(data.test_x.copy()),
        test_y=_tensor(data.test_y.copy()),
    )
    return _standardised(splits, mean, std) if mean else splits


def _standardised(splits: Splits, mean: Sequence[float], std: Sequence[float]) -> Splits:
    each = (-1, *(1,) * (splits.train_x.dim() - 2))
    less, over = torch.tensor(mean).reshape(each), torch.tensor(std).reshape(each)
    parts = {name: getattr(splits, name) for name in ("train_x", "val_x", "test_x")}
    return replace(splits, **{name: pixels(x).sub(less).div_(over) for name, x in parts.items()})


def check_validation(data: Data, validation: int) -> None:
    """Raise UsageError if no training examples would remain."""
    count = len(data.train_x)
    if not 0 <= validation < count:
        raise UsageError(
            f"data.validation = {validation:,}, but {data.name} has {count:,} training examples: expected 1 to "
            f"{count - 1:,}, such as data.validation={max(1, count // 10)}"
        )


def check_channels(data: Data, mean: Sequence[float]) -> None:
    """Raise UsageError if `mean` does not have one number per channel, or per feature of plain vectors."""
    count, kind = data.train_x.shape[1], "channels" if data.train_x.ndim > 2 else "features"
    if mean and len(mean) != count:
        raise UsageError(
            f"data.mean and data.std have {len(mean):,} numbers each, but {data.name} has {count:,} {kind}: "
            "give one for each, or none (data.mean=[] data.std=[])"
        )


def pixels(x: torch.Tensor) -> torch.Tensor:
    """The input of a network: bytes scaled to [0, 1] as float32; floats unchanged."""
    return x.float() / 255 if x.dtype == torch.uint8 else x


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))
