"""The compiled bfloat16 kernels as torch functions: 3x3 convolutions with what follows them, pooling, and updates.

They need AVX512_BF16 (see native/conv/winograd.hpp). oneDNN's convolutions already reach the peak of that instruction,
so these kernels compute fewer products instead, and float products where those are faster, as on Intel processors.
Processors with AMX compute plain products several times as fast and have their own kernels (matrices.py).
"""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from lth import native
from lth.training import processor
from lth.training.precision import hardware

AFTER = {
    (): 0,
    ("relu",): 1,
    ("pool", "relu"): 2,
}  # operations that can be applied to a convolution's output, in this order
MOST_THIN = 4  # maximum number of channels of input images
# The range of input channels and the minimum number of 2x2 tiles in a batch for which the saved products outweigh
# Winograd's transforms, as measured on Resnet-18 and VGG-19.
GAINS = {torch.bfloat16: (32, 256), torch.float32: (16, 512)}
LEAST_TILES = {torch.bfloat16: 512, torch.float32: 64}
SMALL = 16  # maximum pixels of images of which so little is inside the kernel that direct products are fewer


@lru_cache(maxsize=1)
def core() -> Any:
    """The compiled kernels; None if they were not built or this processor cannot run them."""
    try:
        compiled = import_module("lth.native._conv")
    except ImportError:
        return None
    return compiled if compiled.runs() else None


def products() -> torch.dtype:
    """The dtype in which products of convolutions are faster on this processor."""
    return torch.float32 if core().floats_are_faster() and not matrix_unit() else torch.bfloat16


def matrix_unit() -> bool:
    """Return whether this processor has a matrix unit for bfloat16 (AMX)."""
    return "amx" in (hardware("cpu") or "")


def matrix_kernels() -> bool:
    """Return whether compiled kernels may use the matrix unit here."""
    return core() is not None and matrix_unit() and core().matrix_unit()


def _convolutions(numbers: torch.dtype) -> Any:
    """The compiled convolutions with products of dtype `numbers`."""
    return getattr(core(), str(numbers).removeprefix("torch."))


def why_not() -> str | None:
    """Why the kernels cannot be used on this machine; None if they can."""
    if core() is not None:
        return None
    if "avx512_bf16" not in processor.flags():
        return "the processor has no AVX512_BF16"
    reason = Path(native.__file__).with_name("conv-build-failure.txt")
    text = " ".join(reason.read_text(encoding="utf-8").split()) if reason.exists() else "install lth again"
    return f"they are not built: {text}"


def format_support() -> str:
    """How bfloat16 is computed on this machine."""
    if lacking := why_not():
        return f"without compiled kernels: {lacking}"
    if matrix_unit():
        by_onednn = "convolutions of large images" if matrix_kernels() else "convolutions"
        return f"{by_onednn} use oneDNN, the rest uses compiled kernels"
    return f"convolutions use compiled kernels, with products of {str(products()).removeprefix('torch.')}"


def fits(conv: nn.Conv2d) -> bool:
    """Return whether the compiled convolutions can replace `conv` and are faster if its images allow it."""
    if core() is None or matrix_unit():
        return False
    channels = thin(conv) or (conv.in_channels >= GAINS[products()][0] and conv.in_channels % 16 == 0)
    return usual(conv) and channels and conv.out_channels % 16 == 0


def usual(conv: nn.Conv2d) -> bool:
    """Return whether `conv` is 3x3 and preserves the image size."""
    shape = (conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups, conv.padding_mode)
    return shape == ((3, 3), (1, 1), (1, 1), (1, 1), 1, "zeros")


def thin(conv: nn.Conv2d) -> bool:
    """Return whether `conv` has few input channels, like the first layer of a network."""
    return conv.in_channels <= MOST_THIN


def layout(conv: nn.Conv2d) -> torch.memory_format:
    """The layout in which the kernel for `conv` reads its weights."""
    by_winograd = fits(conv) and conv.in_channels <= GAINS[products()][1]
    return torch.contiguous_format if by_winograd else torch.channels_last


def parts(count: int) -> int:
    """The number of parts in which the kernels process a batch of `count`: one per torch thread."""
    return max(1, min(torch.get_num_threads(), count))


def total(of_parts: Tensor) -> Tensor:
    """The sum of the results of all parts of a batch, in their order."""
    whole = of_parts[0]
    for part in of_parts[1:]:
        whole += part
    return whole


def address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


class Winograd(torch.autograd.Function):
    """conv2d(x, weight, bias, padding=1), then 2x2 max pooling and ReLU as given by `after`.

    x: bfloat16 [n, c, h, w] with even h and w; weight and bias: float32. The result is bfloat16, channels_last. A batch
    is processed in parts on torch's threads; weight gradients are summed over the parts.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, after: tuple[str, ...]) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        n, c, h, w = x.shape
        k, code = weight.shape[0], AFTER[after]
        y, chosen = _outputs(n, k, h, w, pooled=code == 2)
        convolutions, transformed = _convolutions(products()), torch.empty(16 * c * k, dtype=products())
        convolutions.transform_forward(c, k, weight.data_ptr(), transformed.data_ptr())
        convolutions.forward(
            parts(n), n, h, w, c, k, code, x.data_ptr(), transformed.data_ptr(), address(bias), y.data_ptr(),
            chosen.data_ptr(),
        )  # fmt: skip
        ctx.save_for_backward(x, weight, y, chosen)
        ctx.code, ctx.biased = code, bias is not None
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight, y, chosen = ctx.saved_tensors
        gradient = grad_outputs[0].to(torch.bfloat16).contiguous(memory_format=torch.channels_last)
        n, c, h, w = x.shape
        k = len(weight)
        x_gradient = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        weight_gradients, bias_gradients = torch.empty((parts(n), *weight.shape)), torch.empty((parts(n), k))
        convolutions, transformed = _convolutions(products()), torch.empty(36 * c * k, dtype=products())
        convolutions.transform_backward(h, w, c, k, weight.data_ptr(), transformed.data_ptr())
        convolutions.backward(
            parts(n), n, h, w, c, k, ctx.code, x.data_ptr(), transformed.data_ptr(), y.data_ptr(), chosen.data_ptr(),
            gradient.data_ptr(), address(x_gradient), weight_gradients.data_ptr(), bias_gradients.data_ptr(),
        )  # fmt: skip
        return x_gradient, total(weight_gradients), total(bias_gradients) if ctx.biased else None, None


class Thin(torch.autograd.Function):
    """conv2d(x, weight, bias, padding=1), then ReLU if in `after`. x has few channels and needs no gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, after: tuple[str, ...]) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        n, c, h, w = x.shape
        k, code = len(weight), AFTER[after]
        y, _ = _outputs(n, k, h, w, pooled=False)
        _convolutions(products()).thin_forward(
            parts(n), n, h, w, c, k, code, x.data_ptr(), weight.data_ptr(), address(bias), y.data_ptr()
        )
        ctx.save_for_backward(x, weight, y)
        ctx.code, ctx.biased = code, bias is not None
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[None, Tensor, Tensor | None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight, y = ctx.saved_tensors
        gradient = grad_outputs[0].to(torch.bfloat16).contiguous(memory_format=torch.channels_last)
        n, c, h, w = x.shape
        k = len(weight)
        weight_gradients, bias_gradients = torch.empty((parts(n), *weight.shape)), torch.empty((parts(n), k))
        _convolutions(products()).thin_backward(
            parts(n), n, h, w, c, k, ctx.code, x.data_ptr(), y.data_ptr(), gradient.data_ptr(),
            weight_gradients.data_ptr(), bias_gradients.data_ptr(),
        )  # fmt: skip
        return None, total(weight_gradients), total(bias_gradients) if ctx.biased else None, None


class Small(torch.autograd.Function):
    """conv2d(x, weight, bias, padding=1) of images with few pixels, then ReLU if in `after`.

    x: bfloat16 [n, c, h, w]; weight and bias: float32. The result and the weight gradient are channels_last; the result
    is bfloat16. Torch's threads share the channels, so the bits do not depend on their number.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, after: tuple[str, ...]) -> Tensor:
        x, weight = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (x, weight))
        n, c, h, w = x.shape
        k, code = len(weight), AFTER[after]
        y, _ = _outputs(n, k, h, w, pooled=False)
        core().small_forward(
            parts(k), n, h, w, c, k, code, x.data_ptr(), weight.data_ptr(), address(bias), y.data_ptr()
        )  # fmt: skip
        ctx.save_for_backward(x, weight, y)
        ctx.code, ctx.biased = code, bias is not None
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight, y = ctx.saved_tensors
        gradient = grad_outputs[0].to(torch.bfloat16).contiguous(memory_format=torch.channels_last)
        n, c, h, w = x.shape
        k = len(weight)
        x_gradient = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        weight_gradient, bias_gradient = torch.empty_like(weight), torch.empty(k)
        core().small_backward(
            parts(k), n, h, w, c, k, ctx.code, x.data_ptr(), weight.data_ptr(), y.data_ptr(), gradient.data_ptr(),
            address(x_gradient), weight_gradient.data_ptr(), bias_gradient.data_ptr(),
        )  # fmt: skip
        return x_gradient, weight_gradient, bias_gradient if ctx.biased else None, None


class PoolRelu(torch.autograd.Function):
    """relu(max_pool2d(x, 2)) of a bfloat16 tensor [n, c, h, w], exact; h and w even, c a multiple of 16.

    The position of each maximum is stored as a byte. Of equal values the first gets the gradient, as in torch.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        n, c, h, w = x.shape
        y, chosen = _outputs(n, c, h, w, pooled=True)
        core().pool(parts(n), n, h, w, c, x.data_ptr(), y.data_ptr(), chosen.data_ptr())
        ctx.save_for_backward(y, chosen)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        y, chosen = ctx.saved_tensors
        gradient = grad_outputs[0].contiguous(memory_format=torch.channels_last)
        n, c, h, w = y.shape
        x_gradient, _ = _outputs(n, c, 2 * h, 2 * w, pooled=False)
        core().unpool(
            parts(n), n, 2 * h, 2 * w, c, y.data_ptr(), chosen.data_ptr(), gradient.data_ptr(), x_gradient.data_ptr()
        )
        return x_gradient


def _outputs(n: int, c: int, h: int, w: int, pooled: bool) -> tuple[Tensor, Tensor]:
    """Empty bfloat16 images and, with pooling, the positions of maxima."""
    shape = (n, c, h // 2, w // 2) if pooled else (n, c, h, w)
    y = torch.empty(shape, dtype=torch.bfloat16, memory_format=torch.channels_last)
    return y, torch.empty(shape if pooled else (0,), dtype=torch.uint8)


class Conv(nn.Module):
    """A 3x3 convolution and what follows it, by the fastest kernel for the shape of its images, else by torch."""

    def __init__(self, conv: nn.Conv2d, after: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.weight, self.bias, self.after = conv.weight, conv.bias, after

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        if c <= MOST_THIN and "pool" not in self.after and not x.requires_grad:
            return Thin.apply(x, self.weight, self.bias, self.after)  # pyright: ignore[reportReturnType]
        enough = c <= GAINS[products()][1] and n * h * w >= 4 * LEAST_TILES[products()]
        if enough and c % 16 == h % 2 == w % 2 == 0:
            return Winograd.apply(x, self.weight, self.bias, self.after)  # pyright: ignore[reportReturnType]
        if h * w <= SMALL and c % 16 == 0 and "pool" not in self.after and products() == torch.bfloat16:
            return Small.apply(x, self.weight, self.bias, self.after)  # pyright: ignore[reportReturnType]
        bias = None if self.bias is None else self.bias.to(x.dtype)
        y = F.conv2d(x, self.weight.to(x.dtype, memory_format=torch.channels_last), bias, padding=1)
        y = F.max_pool2d(y, 2) if "pool" in self.after else y
        return F.relu(y) if "relu" in self.after else y


class Pool(nn.Module):
    """2x2 max pooling, then ReLU; by the compiled kernel if possible, else by torch."""

    def forward(self, x: Tensor) -> Tensor:
        _, c, h, w = x.shape
        if core() is not None and x.device.type == "cpu" and c % 16 == h % 2 == w % 2 == 0:
            return PoolRelu.apply(x)  # pyright: ignore[reportReturnType]
        return F.relu(F.max_pool2d(x, 2))
