"""The description of a built-in network. Each family's file contains its own values."""

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

    build: (settings, shape of an input without the batch, classes) -> module; the module's own initial weights are not
    used. smallest: the minimum height and width of images; 1 accepts inputs of any shape. draw: draws the start from
    the given generator. bfloat16: whether `recipe.precision = "auto"` trains it in bfloat16 on hardware that supports
    it.
    """

    build: Build
    smallest: int = 1
    draw: Draw = draw
    bfloat16: bool = False
