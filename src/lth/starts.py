"""Start rules: the weights from which a training begins. Pure functions of their sources."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lth.masks import Weights


@dataclass(frozen=True)
class StartSource:
    """What a start rule may look at."""

    trial: Weights  # the trial's start, theta_0
    trained: Weights  # where the last training that is needed ended; empty where none is
    draw: Callable[[torch.Generator], dict[str, Tensor]]  # a new draw from the initialisation's distribution
    generator: torch.Generator  # this training's own


START_RULES: dict[str, Callable[[StartSource], Weights]] = {
    "trial": lambda source: source.trial,
    "fresh": lambda source: source.draw(source.generator),
    "trained": lambda source: source.trained,
}
