"""A dataset as tensors, with a validation set split off by seed alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from lth.data.examples import Data
from lth.errors import UsageError
from lth.randomness import generator


@dataclass(frozen=True)
class Splits:
    """The three parts of a dataset as tensors of their own, x as stored (uint8 stays uint8), y int64.

    Within a part, examples stand in the order that they have in the dataset.
    """

    train_x: torch.Tensor
    train_y: torch.Tensor
    val_x: torch.Tensor
    val_y: torch.Tensor
    test_x: torch.Tensor
    test_y: torch.Tensor


def split(data: Data, validation: int, seed: int) -> Splits:
    """The dataset with `validation` of its training examples drawn at random, by `seed` alone, for validation.

    The paper draws 5,000 of MNIST's 60,000. 0 gives empty tensors; `UsageError` where none would be left to train on.
    """
    check_validation(data, validation)
    count = len(data.train_x)
    drawn = np.zeros(count, dtype=bool)
    drawn[torch.randperm(count, generator=generator(seed, "validation"))[:validation].numpy()] = True
    return Splits(
        train_x=_tensor(data.train_x[~drawn]),
        train_y=_tensor(data.train_y[~drawn]),
        val_x=_tensor(data.train_x[drawn]),
        val_y=_tensor(data.train_y[drawn]),
        test_x=_tensor(data.test_x.copy()),
        test_y=_tensor(data.test_y.copy()),
    )


def check_validation(data: Data, validation: int) -> None:
    """Raises UsageError where none of the training examples would be left to train on."""
    count = len(data.train_x)
    if not 0 <= validation < count:
        raise UsageError(
            f"validation = {validation:,}, but {data.name} has {count:,} training examples; expected 0 to {count - 1:,}"
        )


def pixels(x: torch.Tensor) -> torch.Tensor:
    """What a network takes: bytes scaled to [0, 1] as float32; floats as they are."""
    return x.float() / 255 if x.dtype == torch.uint8 else x


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))
