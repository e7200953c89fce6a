"""Linear layers of which few weights survive: these alone are kept, computed and updated, by compiled kernels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lth.training import kernels

BELOW = 0.2  # density under which the kernels gain on dense products: benchmarks/conv_speed.py --sparse
LEAST = 2**18  # weights under which a layer costs too little to matter


@dataclass(frozen=True)
class Places:
    """Where a layer's surviving weights are, in the order in which the kernels read them (native/sparse_linear.hpp)."""

    shape: torch.Size
    flat: Tensor  # int64, index into the flattened matrix
    columns: Tensor  # int32, counted from the block's first
    ends: Tensor  # int64, by block and output

    def gather(self, matrix: Tensor) -> Tensor:
        return matrix.flatten()[self.flat]

    def scatter(self, values: Tensor) -> Tensor:
        """The matrix, 0 where no weight survives."""
        return torch.zeros(self.shape.numel(), dtype=values.dtype).index_copy_(0, self.flat, values).reshape(self.shape)


def places(mask: Tensor) -> Places:
    """Of the surviving weights of a mask [outputs, inputs]."""
    block, (outputs, inputs) = kernels.core().sparse_block, mask.shape
    row, column = mask.nonzero(as_tuple=True)
    group = column // block * outputs + row
    order = torch.argsort(group, stable=True)  # nonzero goes by row, then column
    groups = -(-inputs // block) * outputs
    ends = torch.bincount(group, minlength=groups).cumsum(0)
    return Places(mask.shape, (row * inputs + column)[order], (column % block)[order].to(torch.int32), ends)


def gains(mask: Tensor | None) -> bool:
    """Whether a Linear layer under `mask` is better computed from its surviving weights alone."""
    return mask is not None and mask.numel() >= LEAST and int(mask.sum()) < BELOW * mask.numel()


class SparseProduct(torch.autograd.Function):
    """x W' + bias for the surviving weights of W; x bfloat16 [n, inputs], values and bias float32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, values: Tensor, bias: Tensor | None, where: Places) -> Tensor:
        x, (outputs, inputs) = x.contiguous(), where.shape
        y = torch.empty((len(x), outputs), dtype=torch.bfloat16)
        kernels.core().sparse_forward(
            kernels.parts(len(x)), inputs, outputs, where.ends.data_ptr(), where.columns.data_ptr(), len(x),
            x.data_ptr(), values.data_ptr(), kernels.address(bias), y.data_ptr(),
        )  # fmt: skip
        ctx.save_for_backward(x, values)
        ctx.where, ctx.biased = where, bias is not None
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, values = ctx.saved_tensors
        where, (outputs, inputs) = ctx.where, ctx.where.shape
        gradient = grad_outputs[0].to(torch.bfloat16).contiguous()
        x_gradient = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        value_gradients = torch.empty((kernels.parts(len(x)), *values.shape))
        kernels.core().sparse_backward(
            len(value_gradients), inputs, outputs, len(values), where.ends.data_ptr(), where.columns.data_ptr(), len(x),
            x.data_ptr(), values.data_ptr(), gradient.data_ptr(), kernels.address(x_gradient),
            value_gradients.data_ptr(),
        )  # fmt: skip
        bias_gradient = gradient.sum(0, dtype=torch.float32) if ctx.biased else None
        return x_gradient, kernels.total(value_gradients), bias_gradient, None


class SparseLinear(nn.Module):
    """A Linear layer whose parameter `weight` is the surviving weights, one after the other."""

    def __init__(self, bias: nn.Parameter | None, where: Places) -> None:
        super().__init__()
        self.weight, self.where = nn.Parameter(torch.zeros(len(where.flat))), where
        self.bias = None if bias is None else nn.Parameter(bias.detach().float())

    def forward(self, x: Tensor) -> Tensor:
        return SparseProduct.apply(x, self.weight, self.bias, self.where)  # pyright: ignore[reportReturnType]
