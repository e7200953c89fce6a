"""The network that the paper calls Resnet-18: the ResNet-20 for CIFAR (figure 2)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import relu

from lth.config import Model
from lth.models.architecture import Architecture


class Block(nn.Module):
    """Two 3x3 convolutions with batch norm, and a skip connection.

    If the shape changes, the skip connection is a 1x1 convolution without batch norm, in agreement with the paper's
    274K parameters.
    """

    def __init__(self, inputs: int, units: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, units, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(units)
        self.conv2 = nn.Conv2d(units, units, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(units)
        changes = stride > 1 or inputs != units
        self.shortcut = nn.Conv2d(inputs, units, 1, stride, bias=False) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        inner = self.bn2(self.conv2(relu(self.bn1(self.conv1(x)))))
        return relu(inner + self.shortcut(x))


class ResNet(nn.Module):
    """A convolution with 16 channels, three blocks each with 16, 32 and 64, average pooling, and an output layer."""

    def __init__(self, config: Model, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(shape[0], 16, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(16)
        steps = [(16, 16, 1)] * 3 + [(16, 32, 2)] + [(32, 32, 1)] * 2 + [(32, 64, 2)] + [(64, 64, 1)] * 2
        self.blocks = nn.Sequential(*[Block(*step) for step in steps])
        self.output = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(relu(self.bn(self.conv(x))))
        return self.output(x.mean((2, 3)))


resnet18 = Architecture(ResNet, smallest=4, bfloat16=True)
