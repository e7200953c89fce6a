"""The examples of each update: a function of (seed, trial, training, epoch).

The whole training set is shuffled in every epoch (Appendix G); the last batch may be smaller. So a training can be
sliced anywhere, and there is no generator state to store.
"""

from __future__ import annotations

from collections.abc import Hashable
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lth.config import Recipe
from lth.errors import UsageError
from lth.randomness import generator, global_draws

Key = tuple[Hashable, ...]
EVALUATION_BATCH = 250  # small enough for the caches; fixed, because another size may round sums differently


@lru_cache(maxsize=8)
def epoch_order(key: Key, epoch: int, examples: int) -> Tensor:
    """The order of the training examples in an epoch, counted from 0: a permutation, int64."""
    return torch.randperm(examples, generator=generator(*key, "epoch", epoch))


def check_last(recipe: Recipe, examples: int, model: nn.Module, one: Tensor) -> None:
    """Raise UsageError if a batch has one example, for which `model`'s batch norm has no variance.

    `one` is a batch of one example, on which the model is run in training mode.
    """
    at_all = recipe.batch == 1 or recipe.iterations > examples // recipe.batch
    if not (leaves_one(examples, recipe.batch) and at_all):
        return
    if not any(isinstance(module, _BatchNorm) for module in model.modules()):
        return
    try:
        with torch.no_grad(), global_draws(one.device):
            model.train()(one)
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        sizes = range(recipe.batch + 1, examples)
        other = next((size for size in sizes if not leaves_one(examples, size)), examples)
        raise UsageError(
            f"recipe.batch = {recipe.batch}: the last batch of an epoch of {examples:,} examples has one, for which "
            f"batch norm has no variance; give another, such as {other}"
        ) from None


def leaves_one(examples: int, batch: int) -> bool:
    """Return whether the last batch of an epoch has one example, unless all batches do."""
    return batch == 1 or examples % batch == 1


def batches(key: Key, examples: int, size: int, first: int, until: int) -> list[Tensor]:
    """Yield the examples of updates `first` to `until` - 1, counted from 0, as indices into the training set."""
    per_epoch = -(-examples // size)
    parts = []
    for update in range(first, until):
        epoch, batch = divmod(update, per_epoch)
        parts.append(epoch_order(key, epoch, examples)[batch * size : (batch + 1) * size])
    return parts
