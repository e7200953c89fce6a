"""The loop over updates, shared by all engines that compute with torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from lth.config import Recipe
from lth.models.dropout import set_counter
from lth.randomness import global_draws, seed_of
from lth.training.augment import flip_and_crop
from lth.training.batches import Key
from lth.training.gradients import clip_parameters, mask_gradients
from lth.training.schedule import lr_at

Result = TypeVar("Result")


def do_updates(
    module: nn.Module,
    recipe: Recipe,
    key: Key,
    first: int,
    batches: Iterable[Tensor],
    examples: Callable[[Tensor], tuple[Tensor, Tensor]],
    update: Callable[[Tensor, Tensor, float], Result],
    device: torch.device,
) -> list[Result]:
    """Do one update per batch, numbered from `first`. Returns the results of `update`.

    `examples(batch)` gives inputs and targets on `device`; `update(x, y, lr)` changes the weights. Dropout,
    augmentation, the learning rate and the module's own random numbers depend only on the key and the update's number,
    so a training can be sliced, stopped or begun anywhere.
    """
    dropout_key, augment_key = seed_of(*key, "dropout"), seed_of(*key, "augment")
    results = []
    module.train()
    with global_draws(device) as seed:
        for number, batch in enumerate(batches, first):
            seed(seed_of(*key, "update", number))  # random numbers of custom models
            set_counter(module, dropout_key, number)
            x, y = examples(batch)
            if recipe.augment:
                x = flip_and_crop(x, augment_key, number)
            results.append(update(x, y, lr_at(recipe, number)))
    return results


def step(
    optimizer: torch.optim.Optimizer,
    loss: Tensor,
    lr: float,
    largest_norm: float | None = None,
    masked: Sequence[tuple[nn.Parameter, Tensor]] = (),
) -> None:
    """One optimizer step by the gradient of a loss, masked, then clipped to `largest_norm`; see `mask_gradients`."""
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.zero_grad()
    loss.backward()
    mask_gradients(masked)
    if largest_norm is not None:
        clip_parameters((p for group in optimizer.param_groups for p in group["params"]), largest_norm)
    optimizer.step()
