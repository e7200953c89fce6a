"""Scores: they rank weights for pruning, lowest first. Pure functions.

A score returns one tensor for each entry of `weights`. It may have these parameters:

    weights    name -> the prunable weights to score
    mask       name -> bool tensor, true where a weight survives
    model      the network with `weights` in it, in training mode, under `mask`
    batches    an iterable of batches (x, y) of training examples, x as the network takes it
    loss       the loss of (outputs, y): the mean over a batch
    generator  a torch.Generator for this training and purpose
"""

from __future__ import annotations

from torch import Tensor

from lth.pruning.masks import Weights


def magnitude(weights: Weights) -> dict[str, Tensor]:
    """|w|: the criterion of Frankle & Carbin (section 2)."""
    return {name: weight.abs() for name, weight in weights.items()}
