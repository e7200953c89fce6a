"""What the builder has to know of a built-in network. Each family's file holds its own values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from lth.config import Model
from lth.models.init import Draw, draw

Build = Callable[[Model, tuple[int, ...], int], nn.Module]


@dataclass(frozen=True)
class Architecture:
    """A built-in network.

    build: (settings, shape of an input without the batch, classes) -> module. The weights that the module draws for
    itself are never used. smallest: the least height and width of the images; 1 accepts inputs of any shape. draw: the
    start, all of it from the generator. bfloat16: whether `recipe.precision = "auto"` trains it in bfloat16 on hardware
    that has it.
    """

    build: Build
    smallest: int = 1
    draw: Draw = draw
    bfloat16: bool = False
