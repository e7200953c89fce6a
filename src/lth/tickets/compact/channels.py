"""What is known of a module's tensors: the channels that they share, where they are constant, and what reads them.

The channels of a tensor form a space. Layers lead from one space to another; operations on each channel by itself
(activations, batch norm, pooling) stay within one, and a sum of two tensors makes their spaces one. Operations that are
not known here pin the spaces that they read: those lose nothing. Constants are float64 on the CPU, wherever the module
is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(eq=False)
class Space:
    """The channels that some tensors have in common, and which of them are removed."""

    size: int
    pinned: bool = False
    removed: Tensor = field(init=False)
    merged_into: Space | None = None

    def __post_init__(self) -> None:
        self.removed = torch.zeros(self.size, dtype=torch.bool)

    def root(self) -> Space:
        """The space that this one is part of, after all merges."""
        return self.merged_into.root() if self.merged_into else self


def exact(tensor: Tensor) -> Tensor:
    """The tensor's values for computations with constants: float64, on the CPU."""
    return tensor.detach().cpu().double()


def varying(size: int) -> Tensor:
    """Constants of features that all vary."""
    return torch.full((size,), torch.nan, dtype=torch.float64)


def several(value: Any) -> tuple[Any, ...]:
    """A number or a sequence of them, as a tuple."""
    return tuple(value) if isinstance(value, tuple | list) else (value,)


@dataclass(frozen=True)
class Value:
    """What is known of a tensor: its channels' space and axis, and where a feature is the same for all inputs.

    Flattened, each channel has `repeat` features beside each other. constant: float64 [size * repeat], NaN where a
    feature varies.
    """

    space: Space
    axis: int
    constant: Tensor
    repeat: int = 1

    def remaining(self) -> Tensor:
        """Which features are not removed."""
        return ~self.space.root().removed.repeat_interleave(self.repeat)


@dataclass(frozen=True)
class Use:
    """A layer where it is called: from a tensor (None where nothing is known of it) to a space."""

    name: str
    layer: nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
    inputs: Value | None
    outputs: Space

    def matrix(self) -> Tensor:
        """The weights as float64 [outputs, inputs, places of the kernel]."""
        weight = exact(self.layer.weight)
        return weight.reshape(*weight.shape[:2], -1)

    def bias(self) -> Tensor:
        bias = self.layer.bias
        return torch.zeros(self.outputs.size).double() if bias is None else exact(bias)

    def foldable(self, constant: Tensor) -> Tensor:
        """Which constant inputs mean the same for an output at all places: beside a border of zeros, only 0 does."""
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
    """The layers of a module as they are called, the norms between them, and the Flattens of its inputs."""

    uses: list[Use] = field(default_factory=list)
    norms: dict[str, Value] = field(default_factory=dict)
    flattens: dict[str, Value] = field(default_factory=dict)
