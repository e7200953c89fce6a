"""The channels of a module's tensors: which tensors share them, which are constant, and which layers read them.

The channels of a tensor form a space. Layers lead from one space to another. Operations on each channel separately
(activations, batch norm, pooling) stay within a space, and the sum of two tensors merges their spaces. Unknown
operations pin the spaces that they read: none of their channels is removed. Constants are float64 on the CPU, whatever
the module's device.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(eq=False)
class Space:
    """The channels that several tensors have in common, and which of them are removed."""

    size: int
    pinned: bool = False
    removed: Tensor = field(init=False)
    merged_into: Space | None = None

    def __post_init__(self) -> None:
        self.removed = torch.zeros(self.size, dtype=torch.bool)

    def root(self) -> Space:
        """The space that this one belongs to after all merges."""
        return self.merged_into.root() if self.merged_into else self


def exact(tensor: Tensor) -> Tensor:
    """The tensor's values as float64 on the CPU, for computations with constants."""
    return tensor.detach().cpu().double()


def varying(size: int) -> Tensor:
    """NaN for each of several features: all of them vary."""
    return torch.full((size,), torch.nan, dtype=torch.float64)


def several(value: Any) -> tuple[Any, ...]:
    """A number or a sequence of numbers, as a tuple."""
    return tuple(value) if isinstance(value, tuple | list) else (value,)


@dataclass(frozen=True)
class Value:
    """A tensor: the space and axis of its channels, and the features that are the same for all inputs.

    After flattening, each channel has `repeat` consecutive features. constant: float64 [size * repeat], NaN where a
    feature varies.
    """

    space: Space
    axis: int
    constant: Tensor
    repeat: int = 1

    def remaining(self) -> Tensor:
        """Which features are not removed, as a bool tensor."""
        return ~self.space.root().removed.repeat_interleave(self.repeat)


@dataclass(frozen=True)
class Use:
    """A call of a layer: from a tensor (None if unknown) to a space."""

    name: str
    layer: nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
    inputs: Value | None
    outputs: Space

    def matrix(self) -> Tensor:
        """The weights as float64 [outputs, inputs, kernel positions]."""
        weight = exact(self.layer.weight)
        return weight.reshape(*weight.shape[:2], -1)

    def bias(self) -> Tensor:
        bias = self.layer.bias
        return torch.zeros(self.outputs.size).double() if bias is None else exact(bias)

    def foldable(self, constant: Tensor) -> Tensor:
        """Which constant inputs contribute equally to an output at all positions: with zero padding, only 0 does."""
        layer = self.layer
        bordered = not isinstance(layer, nn.Linear) and layer.padding != "valid" and any(several(layer.padding))
        return constant == 0 if bordered else ~constant.isnan()

    def constant(self) -> Tensor:
        """The outputs that are the same for all inputs; NaN where an output varies."""
        matrix = self.matrix()
        inputs = varying(matrix.shape[1]) if self.inputs is None else self.inputs.constant
        fixed = self.foldable(inputs)
        outputs = self.bias() + matrix[:, fixed].sum(2) @ inputs[fixed]
        return outputs.masked_fill((matrix[:, ~fixed] != 0).flatten(1).any(1), torch.nan)


@dataclass(frozen=True)
class Traced:
    """The calls of a module's layers, the norms between them, and the Flattens of its inputs."""

    uses: list[Use] = field(default_factory=list)
    norms: dict[str, Value] = field(default_factory=dict)
    flattens: dict[str, Value] = field(default_factory=dict)
