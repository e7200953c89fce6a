"""A custom model from the command line.

    lth run lenet model.name=examples/my.py:build --trials 2 --levels 8

`build` is given the shape of an input, without the batch, and the number of classes. It draws its own
start: the seed of each trial is the seed of torch's generator.
"""

from __future__ import annotations

from torch import Tensor, nn


class Mixer(nn.Module):
    """Images as rows of pixels: a layer across the rows, then a layer within each row, each with a residual."""

    def __init__(self, rows: int, pixels: int, classes: int, width: int = 64) -> None:
        super().__init__()
        self.inputs = nn.Linear(pixels, width)
        self.norm = nn.LayerNorm(width)
        self.across, self.within = nn.Linear(rows, rows), nn.Linear(width, width)
        self.output = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inputs(x.flatten(1, 2)).relu()
        x = x + self.across(self.norm(x).transpose(1, 2)).relu().transpose(1, 2)
        x = x + self.within(self.norm(x)).relu()
        return self.output(x.mean(1))


def build(shape: tuple[int, ...], classes: int) -> nn.Module:
    channels, height, width = shape
    return Mixer(channels * height, width, classes)
