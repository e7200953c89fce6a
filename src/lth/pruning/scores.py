"""Scores: what ranks weights for pruning, the lowest first. Pure functions.

A score is a function of whatever of these its parameters name, and returns one tensor for each of `weights`:

    weights    name -> the prunable weights that are scored
    mask       name -> bool tensor, true where a weight survives
    model      the network with `weights` in it, in training mode, under `mask`
    batches    batches (x, y) of training examples, x as the network takes it, as often as it is iterated
    loss       the loss of (outputs, y): the mean over a batch
    generator  a torch.Generator of this training's own
"""

from __future__ import annotations

from torch import Tensor

from lth.pruning.masks import Weights


def magnitude(weights: Weights) -> dict[str, Tensor]:
    """|w|: the criterion of Frankle & Carbin (section 2)."""
    return {name: weight.abs() for name, weight in weights.items()}
