"""Start rules: the weights from which a training begins. Pure functions of their sources."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lth.pruning.masks import Mask, Weights


@dataclass(frozen=True)
class StartSource:
    """What a start rule may look at."""

    trial: Weights  # the trial's start, theta_0
    trained: Weights  # where the last training that is needed ended; empty where none is
    draw: Callable[[torch.Generator], dict[str, Tensor]]  # a new draw from the initialisation's distribution
    generator: torch.Generator  # this training's own
    mask: Mask  # what this training wears
    init_sigmas: Mapping[str, float]  # the sigma that each layer of the mask was drawn with
    sigma: float | None  # the training's own; only start rule noise has one


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


def _noise(source: StartSource) -> Weights:
    assert source.sigma is not None  # config has seen to it
    sigmas = {name: source.sigma * sigma for name, sigma in source.init_sigmas.items()}
    return noise(source.trial, source.mask, sigmas, source.generator)


START_RULES: dict[str, Callable[[StartSource], Weights]] = {
    "trial": lambda source: source.trial,
    "fresh": lambda source: source.draw(source.generator),
    "trained": lambda source: source.trained,
    "noise": _noise,
    "sampled": lambda source: sampled(source.trial, source.mask, source.generator),
}
