"""Masks: which weights survive. Pure functions; a mask is never changed in place.

A mask has one bool tensor per counted parameter (weight matrices and kernels, including those that are never pruned),
of the parameter's shape, true where the weight survives.
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
    """Return a copy of `weights` and other tensors in which pruned weights are exactly 0."""
    masked = {name: tensor.clone() for name, tensor in weights.items()}
    for name, layer in mask.items():
        masked[name][~layer.to(masked[name].device)] = 0
    return masked


def alive(mask: Mask) -> dict[str, int]:
    """The number of surviving weights of each layer."""
    return {name: int(layer.sum()) for name, layer in mask.items()}


def size(mask: Mask) -> int:
    """The number of counted weights, surviving or not."""
    return sum(layer.numel() for layer in mask.values())


def density(mask: Mask) -> float:
    """The fraction of counted weights that survive, in [0, 1]: the paper's P_m."""
    return sum(alive(mask).values()) / size(mask)


def overlap(a: Mask, b: Mask) -> float:
    """The weights that survive in both masks as a fraction of those that survive in either; 1 for two empty masks."""
    both = sum(int((a[name] & b[name]).sum()) for name in a)
    either = sum(int((a[name] | b[name]).sum()) for name in a)
    return both / either if either else 1.0
