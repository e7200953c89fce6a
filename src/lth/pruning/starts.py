"""Start rules: the weights from which a training begins. Pure functions of the arguments that their parameters name.

In addition to the parameters of mask rules (see `lth.pruning.rules`), a start rule may have these:

    mask    the mask of this training
    draw    a function (generator) -> new weights from the distribution of the initialisation
    sigmas  the standard deviation of the initialisation of each masked layer
    sigma   the branch's setting `sigma`
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
    """New weights from the distribution of the initialisation."""
    return draw(generator)


def trained(trained: Weights) -> Weights:
    """The trained weights of the previous training."""
    return trained


def noisy(
    start: Weights, mask: Mask, sigmas: Mapping[str, float], generator: torch.Generator, sigma: float
) -> dict[str, Tensor]:
    """The trial's start plus noise of `sigma` standard deviations of the initialisation on surviving weights (Appendix
    F.7).
    """
    return noise(start, mask, {name: sigma * layer_sigma for name, layer_sigma in sigmas.items()}, generator)


def noise(start: Weights, mask: Mask, sigmas: Mapping[str, float], generator: torch.Generator) -> dict[str, Tensor]:
    """`start` plus zero-mean Gaussian noise with each layer's `sigmas`, on surviving weights only (Appendix F.7)."""
    noisy = dict(start)
    for name, layer in mask.items():
        drawn = torch.randn(layer.shape, generator=generator, dtype=start[name].dtype)
        noisy[name] = torch.where(layer, start[name] + sigmas[name] * drawn, start[name])
    return noisy


def sampled(start: Weights, mask: Mask, generator: torch.Generator) -> dict[str, Tensor]:
    """`start` with each layer's surviving weights drawn with replacement from themselves: from D_m (Appendix F.3)."""
    resampled = dict(start)
    for name, layer in mask.items():
        survivors = start[name][layer]
        if len(survivors):  # a collapsed layer has nothing to draw from
            chosen = torch.randint(len(survivors), survivors.shape, generator=generator)
            resampled[name] = start[name].masked_scatter(layer, survivors[chosen])
    return resampled
