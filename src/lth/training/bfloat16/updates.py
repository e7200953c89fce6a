"""One optimizer step on tensors of any layout, by torch's formulas, in one pass if the kernels are compiled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from lth.config import Recipe
from lth.training.bfloat16 import kernels
from lth.training.gradients import bits_of, clip, select_
from lth.training.optimizers import BETA1, BETA2, EPSILON, optimizer_named

WORTH_A_THREAD = 2**15  # minimum number of elements of a parameter


@dataclass
class Slot:
    """A parameter as the optimizer sees it; all its tensors have the same layout.

    value: the trained weights, float32. copy: the same in bfloat16, if the forward pass uses it. mask: true where a
    weight survives; None if all do.
    """

    value: Tensor
    moments: list[Tensor]
    mask: Tensor | None = None
    copy: Tensor | None = None

    @cached_property
    def bits(self) -> Tensor | None:
        """The mask in the form that `select_` takes."""
        return None if self.mask is None else bits_of(self.mask, self.value)


def slot(recipe: Recipe, value: Tensor, mask: Tensor | None = None, copy: Tensor | None = None) -> Slot:
    """A parameter before its first update."""
    moments = [torch.zeros_like(value) for _ in optimizer_named(recipe.optimizer).moments]
    return Slot(value, moments, mask, copy)


@torch.no_grad()
def step(recipe: Recipe, lr: float, count: int, slots: Sequence[Slot], gradients: Sequence[Tensor]) -> None:
    """Update number `count`, from 1, by float32 or bfloat16 gradients. Pruned weights, which are 0, stay 0."""
    if recipe.clip is not None:
        gradients = [_masked(gradient, slot) for slot, gradient in zip(slots, gradients, strict=True)]
        clip(gradients, recipe.clip)
    if slots and _compiled(recipe, slots[0].value.device):
        how = kernels.core().Update(
            recipe.optimizer, lr, recipe.weight_decay, recipe.momentum or 0.0, BETA1, BETA2, EPSILON,
            1 - BETA1**count, 1 - BETA2**count,
        )  # fmt: skip
        for slot, gradient in zip(slots, gradients, strict=True):
            _by_kernel(how, slot, gradient)
    else:
        masked = [_masked(gradient, slot) for slot, gradient in zip(slots, gradients, strict=True)]
        _by_torch(recipe, lr, count, slots, masked)


def _compiled(recipe: Recipe, device: torch.device) -> bool:
    """Return whether the compiled kernels do the updates."""
    return device.type == "cpu" and kernels.core() is not None and optimizer_named(recipe.optimizer).compiled


def _alike(gradient: Tensor, value: Tensor) -> Tensor:
    """The gradient in the layout of the value."""
    return gradient if gradient.stride() == value.stride() else torch.empty_like(value).copy_(gradient)


def _masked(gradient: Tensor, slot: Slot) -> Tensor:
    """A float32 copy in the layout of the value, 0 where the mask is false."""
    copied = _alike(gradient, slot.value).to(torch.float32, copy=True)
    if slot.bits is not None:
        select_(copied, slot.bits)
    return copied


def _by_kernel(how: Any, slot: Slot, gradient: Tensor) -> None:
    first, second = (*slot.moments, None, None)[:2]
    there = map(kernels.address, (slot.mask, slot.value, first, second, slot.copy))
    gradient, count = _alike(gradient, slot.value), gradient.numel()
    narrow, parts = gradient.dtype == torch.bfloat16, kernels.parts(count // WORTH_A_THREAD)
    kernels.core().update(parts, how, count, gradient.data_ptr(), narrow, *there)


def _by_torch(recipe: Recipe, lr: float, count: int, slots: Sequence[Slot], gradients: list[Tensor]) -> None:
    optimizer = optimizer_named(recipe.optimizer)
    optimizer.step(recipe, lr, count, [slot.value for slot in slots], gradients, [slot.moments for slot in slots])
    for slot in slots:
        if slot.copy is not None:
            slot.copy.copy_(slot.value)
