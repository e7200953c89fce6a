"""Start rules: the weights from which a training begins. Pure functions of what their parameters name.

Beside what mask rules may ask for (see `lth.pruning.rules`), a start rule may ask for:

    mask    the mask of this training itself
    draw    a function (generator) -> new weights from the initialisation's distribution
    sigmas  the standard deviation that each layer of the mask was drawn with
    sigma   the branch's own setting `sigma`
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from lth.pruning.masks import Mask, Weights


def trial(start: Weights) -> Weights:
    """The trial's start, theta_0."""
    return start


def fresh(draw: Callable[[torch.Generator], Weights], generator: torch.Generator) -> Weights:
    """New weights from the initialisation's distribution."""
    return draw(generator)


def trained(trained: Weights) -> Weights:
    """Where the training before ended."""
    return trained


def noisy(
    start: Weights, mask: Mask, sigmas: Mapping[str, float], generator: torch.Generator, sigma: float
) -> dict[str, Tensor]:
    """The trial's start with noise of `sigma` times the initialisation's on what survives (Appendix F.7)."""
    return noise(start, mask, {name: sigma * own for name, own in sigmas.items()}, generator)


def noise(start: Weights, mask: Mask, sigmas: Mapping[str, float], generator: torch.Generator) -> dict[str, Tensor]:
    """`start` plus zero-mean Gaussian noise of `sigmas` of each layer, on surviving weights alone (Appendix F.7)."""
    noisy = dict(start)
    for name, layer in mask.items():
        drawn = torch.randn(layer.shape, generator=generator, dtype=start[name].dtype)
        noisy[name] = torch.where(layer, start[name] + sigmas[name] * drawn, start[name])
    return noisy


def sampled(start: Weights, mask: Mask, generator: torch.Generator) -> dict[str, Tensor]:
    """`start` with each layer's surviving weights drawn with replacement from them: from D_m (Appendix F.3)."""
    resampled = dict(start)
    for name, layer in mask.items():
        survivors = start[name][layer]
        if len(survivors):  # a collapsed layer has nothing to draw from
            chosen = torch.randint(len(survivors), survivors.shape, generator=generator)
            resampled[name] = start[name].masked_scatter(layer, survivors[chosen])
    return resampled
