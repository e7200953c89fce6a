"""One step of an optimizer on tensors of any layout: torch's formulas, in one pass where the kernels are compiled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.sgd import sgd

from lth.config import Recipe
from lth.training.bfloat16 import kernels

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # of Adam, as torch has them
WORTH_A_THREAD = 2**15  # numbers of a parameter
MOMENTS = {"sgd": (), "momentum": ("momentum_buffer",), "adam": ("exp_avg", "exp_avg_sq")}


@dataclass
class Slot:
    """A parameter as the optimizer sees it; all its tensors are laid out alike.

    value: float32, the weights that are trained. copy: the same in bfloat16, where that is what computes. mask: true
    where a weight survives; None where all do.
    """

    value: Tensor
    moments: list[Tensor]
    mask: Tensor | None = None
    copy: Tensor | None = None


def slot(recipe: Recipe, value: Tensor, mask: Tensor | None = None, copy: Tensor | None = None) -> Slot:
    """A parameter before its first update."""
    return Slot(value, [torch.zeros_like(value) for _ in MOMENTS[recipe.optimizer]], mask, copy)


@torch.no_grad()
def step(recipe: Recipe, lr: float, count: int, slots: Sequence[Slot], gradients: Sequence[Tensor]) -> None:
    """Update number `count`, from 1, by gradients of float32 or bfloat16. A pruned weight, which is 0, remains so."""
    if slots and slots[0].value.device.type == "cpu" and kernels.core() is not None:
        how = kernels.core().Update(
            recipe.optimizer, lr, recipe.weight_decay, recipe.momentum or 0.0, BETA1, BETA2,
            EPSILON, 1 - BETA1**count, 1 - BETA2**count,
        )  # fmt: skip
        for slot, gradient in zip(slots, gradients, strict=True):
            _by_kernel(how, slot, gradient)
    else:
        own = [_own(gradient, slot) for slot, gradient in zip(slots, gradients, strict=True)]
        _by_torch(recipe, lr, count, slots, own)


def _alike(gradient: Tensor, value: Tensor) -> Tensor:
    """The gradient in the layout of the value."""
    return gradient if gradient.stride() == value.stride() else torch.empty_like(value).copy_(gradient)


def _own(gradient: Tensor, slot: Slot) -> Tensor:
    """In float32, to be changed in place."""
    return _alike(gradient, slot.value).to(torch.float32, copy=slot.mask is not None)


def _by_kernel(how: Any, slot: Slot, gradient: Tensor) -> None:
    first, second = (*slot.moments, None, None)[:2]
    there = map(kernels.address, (slot.mask, slot.value, first, second, slot.copy))
    gradient, count = _alike(gradient, slot.value), gradient.numel()
    narrow, parts = gradient.dtype == torch.bfloat16, kernels.parts(count // WORTH_A_THREAD)
    kernels.core().update(parts, how, count, gradient.data_ptr(), narrow, *there)


def _by_torch(recipe: Recipe, lr: float, count: int, slots: Sequence[Slot], gradients: list[Tensor]) -> None:
    values = [slot.value for slot in slots]
    for slot, gradient in zip(slots, gradients, strict=True):
        if slot.mask is not None:
            gradient.mul_(slot.mask)
    if recipe.optimizer == "adam":
        done = [torch.full((), count - 1.0, device=value.device) for value in values]
        adam(
            values, gradients, [slot.moments[0] for slot in slots], [slot.moments[1] for slot in slots], [], done,
            fused=True, amsgrad=False, beta1=BETA1, beta2=BETA2, lr=lr, weight_decay=recipe.weight_decay, eps=EPSILON,
            maximize=False,
        )  # fmt: skip
    else:
        buffers: list[Tensor | None] = [slot.moments[0] if slot.moments else None for slot in slots]
        sgd(
            values, gradients, buffers, has_sparse_grad=False, fused=True, weight_decay=recipe.weight_decay,
            momentum=recipe.momentum or 0.0, lr=lr, dampening=0.0, nesterov=False, maximize=False,
        )  # fmt: skip
    for slot in slots:
        if slot.copy is not None:
            slot.copy.copy_(slot.value)
