"""3x3 convolutions as one product of matrices, for processors with a matrix unit (AMX).

There oneDNN's products of matrices run at several times the pace of its convolutions where images have few pixels
and many channels: so each pixel's nine neighbours are copied into a row, and the rows multiplied.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from lth.training import kernels

# Where the product gains, as measured on VGG-19 and Conv-6: from so many input channels on, up to so many pixels.
LEAST_CHANNELS, MOST_PIXELS = 256, 16


def fits(conv: nn.Conv2d) -> bool:
    """Whether products of matrices can take the place of `conv`, and gain where its images are small."""
    return kernels.matrix_unit() and kernels.usual(conv) and conv.in_channels >= LEAST_CHANNELS


def columns(x: Tensor) -> Tensor:
    """Of each pixel its 3x3 neighbours, with zeros beyond the edges: [n, c, h, w] to [n * h * w, 9 * c]."""
    n, c, h, w = x.shape
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1)).contiguous()
    image, row, pixel, one = padded.stride()
    return padded.as_strided((n, h, w, 3, 3 * c), (image, row, pixel, row, one)).reshape(n * h * w, 9 * c)


def _images(pixels: Tensor, n: int, h: int, w: int) -> Tensor:
    """[n * h * w, k] to [n, k, h, w], which is then channels_last."""
    return pixels.view(n, h, w, -1).permute(0, 3, 1, 2)


class Columns(torch.autograd.Function):
    """conv2d(x, weight, bias, padding=1), all of one type; the result is channels_last, as is the weight's gradient.

    The columns are made again on the way back, which takes less than to keep nine times the images.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        n, _, h, w = x.shape
        ctx.save_for_backward(x, weight)
        ctx.biased = bias is not None
        return _images(F.linear(columns(x), weight.permute(0, 2, 3, 1).flatten(1), bias), n, h, w)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight = ctx.saved_tensors
        n, c, h, w = x.shape
        k, gradient = len(weight), grad_outputs[0]
        by_pixel = gradient.permute(0, 2, 3, 1).reshape(-1, k)
        weight_gradient = _images(by_pixel.t() @ columns(x), k, 3, 3)
        bias_gradient = by_pixel.sum(0, dtype=torch.float32).to(x.dtype) if ctx.biased else None
        if not ctx.needs_input_grad[0]:
            return None, weight_gradient, bias_gradient
        mirrored = weight.flip(2, 3).permute(2, 3, 0, 1).reshape(9 * k, c)
        return _images(columns(gradient) @ mirrored, n, h, w), weight_gradient, bias_gradient


class Conv(nn.Module):
    """A 3x3 convolution: as a product of matrices where its images are small, else by torch."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2] * x.shape[3] <= MOST_PIXELS:
            return Columns.apply(x, self.weight, self.bias)  # pyright: ignore[reportReturnType]
        return F.conv2d(x, self.weight, self.bias, padding=1)
