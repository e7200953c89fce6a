"""3x3 convolutions of small images by compiled kernels for processors with a matrix unit (AMX).

oneDNN's convolutions reach only a fraction of that unit's peak for images with few pixels. The kernels are in
native/conv/matrix_conv.hpp.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from lth.training.bfloat16 import kernels

MOST_PIXELS = 64  # pixels up to which they are faster than oneDNN's, as measured on VGG-19 and Conv-6


def fits(conv: nn.Conv2d) -> bool:
    """Return whether the kernels can replace `conv` and are faster if its images are small."""
    if not (kernels.matrix_kernels() and kernels.usual(conv)):
        return False
    return all(channels % kernels.core().matrix_block == 0 for channels in (conv.in_channels, conv.out_channels))


class MatrixConvolution(torch.autograd.Function):
    """conv2d(x, weight, bias, padding=1), all bfloat16; the result and the weight gradient are channels_last.

    x: [n, c, h, w]; weight: [k, c, 3, 3]; c and k multiples of 32. Sums do not depend on the number of torch's threads.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        x, weight = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (x, weight))
        n, c, h, w = x.shape
        y = torch.empty((n, len(weight), h, w), dtype=x.dtype, memory_format=torch.channels_last)
        kernels.core().matrix_forward(
            torch.get_num_threads(), n, h, w, c, len(weight), x.data_ptr(), weight.data_ptr(), kernels.address(bias),
            y.data_ptr(),
        )  # fmt: skip
        ctx.save_for_backward(x, weight)
        ctx.biased = bias is not None
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight = ctx.saved_tensors
        gradient = grad_outputs[0].contiguous(memory_format=torch.channels_last)
        n, c, h, w = x.shape
        x_gradient = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        weight_gradient = torch.empty_like(weight)
        kernels.core().matrix_backward(
            torch.get_num_threads(), n, h, w, c, len(weight), x.data_ptr(), weight.data_ptr(), gradient.data_ptr(),
            kernels.address(x_gradient), weight_gradient.data_ptr(),
        )  # fmt: skip
        bias_gradient = gradient.sum((0, 2, 3), dtype=torch.float32).to(x.dtype) if ctx.biased else None
        return x_gradient, weight_gradient, bias_gradient


class Conv(nn.Module):
    """A 3x3 convolution: by the kernels if its images are small, else by torch."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2] * x.shape[3] <= MOST_PIXELS:
            return MatrixConvolution.apply(x, self.weight, self.bias)  # pyright: ignore[reportReturnType]
        return F.conv2d(x, self.weight, self.bias, padding=1)
