"""Which examples each update sees: a function of (seed, trial, training, epoch) alone.

Every epoch, the entire training set is shuffled (Appendix G); its last batch may be smaller. So a training can be
sliced anywhere, and no generator's state has to be stored.
"""

from __future__ import annotations

from collections.abc import Hashable
from functools import lru_cache

import torch
from torch import Tensor

from lth.randomness import generator

Key = tuple[Hashable, ...]


@lru_cache(maxsize=8)
def epoch_order(key: Key, epoch: int, examples: int) -> Tensor:
    """The order of the training examples in an epoch, counted from 0: a permutation, int64."""
    return torch.randperm(examples, generator=generator(*key, "epoch", epoch))


def batches(key: Key, examples: int, size: int, first: int, until: int) -> list[Tensor]:
    """The examples of updates `first` to `until` - 1, counted from 0, as indices into the training set."""
    per_epoch = -(-examples // size)
    found = []
    for update in range(first, until):
        epoch, batch = divmod(update, per_epoch)
        found.append(epoch_order(key, epoch, examples)[batch * size : (batch + 1) * size])
    return found
