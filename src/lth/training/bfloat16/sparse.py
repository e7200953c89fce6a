"""Layers with few surviving weights: compiled kernels store, compute and update only these weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from lth.training.bfloat16 import kernels

# maximum density at which the kernels are faster than dense products: benchmarks/conv_speed.py --sparse
BELOW = 0.2
KERNELS_BELOW = 0.1  # for 3x3 convolutions on images up to 8 pixels wide
MATRIX_BELOW = 0.03  # the same if a matrix unit computes the dense ones
LEAST = 2**18  # minimum number of weights: smaller layers take too little time to matter


@dataclass(frozen=True)
class Survivors:
    """The surviving weights of a layer with this shape, in the order in which the kernels read them."""

    shape: torch.Size
    flat: Tensor  # int64, index into the flattened weights

    def gather(self, weights: Tensor) -> Tensor:
        return weights.flatten()[self.flat]

    def scatter(self, values: Tensor) -> Tensor:
        """The full weight, 0 where pruned."""
        return torch.zeros(self.shape.numel(), dtype=values.dtype).index_copy_(0, self.flat, values).reshape(self.shape)


@dataclass(frozen=True)
class Places:
    """The positions of a Linear layer's surviving weights (native/conv/sparse_linear.hpp)."""

    survivors: Survivors
    columns: Tensor  # int32, relative to the block's first input
    ends: Tensor  # int64, by block and output


def places(mask: Tensor) -> Places:
    """The positions of the surviving weights of a mask [outputs, inputs]."""
    block, (outputs, inputs) = kernels.core().sparse_block, mask.shape
    row, column = mask.nonzero(as_tuple=True)
    group = column // block * outputs + row
    order = torch.argsort(group, stable=True)  # nonzero is sorted by row, then column
    groups = -(-inputs // block) * outputs
    ends = torch.bincount(group, minlength=groups).cumsum(0)
    survivors = Survivors(mask.shape, (row * inputs + column)[order])
    return Places(survivors, (column % block)[order].to(torch.int32), ends)


@dataclass(frozen=True)
class Way:
    """The surviving weights of 3x3 kernels in the order of one pass (native/conv/sparse_conv.hpp)."""

    rows: int
    columns: int
    ends: Tensor  # int64, by row and kernel position
    column: Tensor  # int32

    def addresses(self) -> tuple[int, int, int, int]:
        return self.rows, self.columns, self.ends.data_ptr(), self.column.data_ptr()


@dataclass(frozen=True)
class KernelPlaces:
    """The positions of a 3x3 convolution's surviving weights, and their order in the backward pass."""

    survivors: Survivors
    forth: Way
    back: Way
    back_order: Tensor  # int64


def kernel_places(mask: Tensor) -> KernelPlaces:
    """The positions of the surviving weights of a mask [outputs, inputs, 3, 3]."""
    forth, flat = _way(mask.permute(0, 2, 3, 1), torch.arange(mask.numel()).view(mask.shape).permute(0, 2, 3, 1))
    number = torch.zeros(mask.numel(), dtype=torch.int64)
    number[flat] = torch.arange(len(flat))
    turned = (tensor.flip(2, 3).permute(1, 2, 3, 0) for tensor in (mask, number.view(mask.shape)))
    return KernelPlaces(Survivors(mask.shape, flat), forth, *_way(*turned))


def _way(mask: Tensor, number: Tensor) -> tuple[Way, Tensor]:
    """The order for a mask [row, 3, 3, column], and the `number` of each weight."""
    rows, columns = mask.shape[0], mask.shape[-1]
    group, column = mask.reshape(9 * rows, columns).nonzero(as_tuple=True)
    ends = torch.bincount(group, minlength=9 * rows).cumsum(0)
    return Way(rows, columns, ends, column.to(torch.int32)), number[mask]


def gains(mask: Tensor) -> bool:
    """Return whether a layer under `mask` is faster if only its surviving weights are computed."""
    below = BELOW if mask.dim() == 2 else MATRIX_BELOW if kernels.matrix_kernels() else KERNELS_BELOW
    return mask.numel() >= LEAST and int(mask.sum()) < below * mask.numel()


class SparseProduct(torch.autograd.Function):
    """x W' + bias for the surviving weights of W; x bfloat16 [n, inputs], values and bias float32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, values: Tensor, bias: Tensor | None, where: Places) -> Tensor:
        x, (outputs, inputs) = x.contiguous(), where.survivors.shape
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
        where, (outputs, inputs) = ctx.where, ctx.where.survivors.shape
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
    """A Linear layer whose parameter `weight` is a vector of the surviving weights."""

    def __init__(self, bias: nn.Parameter | None, where: Places) -> None:
        super().__init__()
        self.weight, self.where = nn.Parameter(torch.zeros(len(where.survivors.flat))), where
        self.bias = None if bias is None else nn.Parameter(bias.detach().float())

    def forward(self, x: Tensor) -> Tensor:
        return SparseProduct.apply(x, self.weight, self.bias, self.where)  # pyright: ignore[reportReturnType]


class SparseConvolution(torch.autograd.Function):
    """conv2d(x, weight, bias, padding=1) for the surviving weights; x bfloat16 [n, inputs, h, w], the rest float32.

    The result is bfloat16, channels_last. Sums do not depend on the number of torch's threads.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, values: Tensor, bias: Tensor | None, where: KernelPlaces) -> Tensor:
        ctx.save_for_backward(x, values)
        ctx.where, ctx.biased = where, bias is not None
        return _convolved(where.forth, x, values, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, values = ctx.saved_tensors
        x, gradient = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (x, grad_outputs[0]))
        where, (n, _, h, w) = ctx.where, x.shape
        back = _convolved(where.back, gradient, values[where.back_order], None) if ctx.needs_input_grad[0] else None
        value_gradients = torch.empty_like(values)
        kernels.core().sparse_convolve_values(
            kernels.parts(where.forth.rows), *where.forth.addresses(), n, h, w, x.data_ptr(), gradient.data_ptr(),
            value_gradients.data_ptr(),
        )  # fmt: skip
        bias_gradient = gradient.sum((0, 2, 3), dtype=torch.float32) if ctx.biased else None
        return back, value_gradients, bias_gradient, None


def _convolved(way: Way, x: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:
    x = x.contiguous(memory_format=torch.channels_last)
    n, _, h, w = x.shape
    y = torch.empty((n, way.rows, h, w), dtype=torch.bfloat16, memory_format=torch.channels_last)
    kernels.core().sparse_convolve(
        kernels.parts(n), *way.addresses(), n, h, w, x.data_ptr(), values.data_ptr(), kernels.address(bias),
        y.data_ptr(),
    )  # fmt: skip
    return y


class SparseConv(nn.Module):
    """A 3x3 convolution whose parameter `weight` holds the surviving weights; it is dense for images that are wide."""

    def __init__(self, bias: Tensor | None, where: KernelPlaces) -> None:
        super().__init__()
        self.weight, self.where = nn.Parameter(torch.zeros(len(where.survivors.flat))), where
        self.bias = None if bias is None else nn.Parameter(bias.detach().float())

    def forward(self, x: Tensor) -> Tensor:
        if kernels.core().sparse_width(x.shape[3]):
            return SparseConvolution.apply(x, self.weight, self.bias, self.where)  # pyright: ignore[reportReturnType]
        whole = self.where.survivors.scatter(self.weight).to(x.dtype, memory_format=torch.channels_last)
        return F.conv2d(x, whole, None if self.bias is None else self.bias.to(x.dtype), padding=1)
