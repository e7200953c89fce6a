"""Masks: which weights survive. Pure functions; a mask is never changed in place.

A mask names every counted parameter (weight matrices and kernels, also those that are never pruned), with a bool tensor
of its shape, true where the weight survives.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

Mask = Mapping[str, Tensor]
Weights = Mapping[str, Tensor]


def ones(weights: Weights, names: Iterable[str]) -> Mask:
    """The mask of the unpruned network over the parameters `names` of `weights`."""
    return {name: torch.ones(weights[name].shape, dtype=torch.bool) for name in names}


def apply(mask: Mask, weights: Weights) -> dict[str, Tensor]:
    """A copy of `weights` (and of what else is beside them) that is exactly 0 where the mask is false."""
    masked = {name: tensor.clone() for name, tensor in weights.items()}
    for name, layer in mask.items():
        masked[name][~layer.to(masked[name].device)] = 0
    return masked


def alive(mask: Mask) -> dict[str, int]:
    """Surviving weights of each layer."""
    return {name: int(layer.sum()) for name, layer in mask.items()}


def size(mask: Mask) -> int:
    """Counted weights, surviving or not."""
    return sum(layer.numel() for layer in mask.values())


def density(mask: Mask) -> float:
    """Remaining / counted weights: the paper's P_m, as a fraction."""
    return sum(alive(mask).values()) / size(mask)


def overlap(a: Mask, b: Mask) -> float:
    """Weights that survive in both, as a share of those that survive in either; 1 for two empty masks."""
    both = sum(int((a[name] & b[name]).sum()) for name in a)
    either = sum(int((a[name] | b[name]).sum()) for name in a)
    return both / either if either else 1.0
