"""In-place operations on gradients between backward and the optimizer's step: masking, then clipping."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # integer dtype by element size in bytes


def bits_of(mask: Tensor, like: Tensor) -> Tensor:
    """A bool mask as integers of the width of `like`'s elements: all bits set if true, else none.

    Masking by these bits is as fast as multiplying with 0 and 1, which would turn infinite gradients of pruned weights
    into NaN; torch's masked_fill_ takes twenty times as long on a CPU.
    """
    return mask.to(like.device, _INTEGERS[like.element_size()]).neg_()


def select_(gradient: Tensor, bits: Tensor) -> None:
    """Set a gradient to 0 where `bits` (from `bits_of`) are 0."""
    if gradient.is_sparse:  # the gradient of an embedding, with only the rows that were used
        gradient, bits = gradient._values(), bits[tuple(gradient._indices())]
    gradient.view(bits.dtype).bitwise_and_(bits)


@torch.no_grad()
def mask_gradients(masked: Iterable[tuple[nn.Parameter, Tensor]]) -> None:
    """Set the gradients of pruned weights to 0: `masked` has parameters and the bits of their masks.

    A pruned weight begins at 0, and without a gradient neither momentum nor weight decay changes it.
    """
    for parameter, bits in masked:
        if parameter.grad is not None:
            select_(parameter.grad, bits)


@torch.no_grad()
def clip(gradients: Sequence[Tensor], largest: float) -> None:
    """Scale gradients so that their total Euclidean norm is at most `largest`.

    The factor is that of torch.nn.utils.clip_grad_norm_. If the norm is not finite, the gradients become NaN or 0.
    """
    if not gradients:
        return
    factor = (largest / (get_total_norm(gradients, foreach=None) + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(factor.to(gradient.device))


def clip_parameters(parameters: Iterable[nn.Parameter], largest: float) -> None:
    """`clip` the gradients of parameters."""
    owners = [parameter for parameter in parameters if parameter.grad is not None]
    for parameter in owners:
        if parameter.grad is not None and parameter.grad.is_sparse:  # coalesced, because a norm needs each element once
            parameter.grad = parameter.grad.coalesce()
    gradients = [parameter.grad for parameter in owners if parameter.grad is not None]
    clip([gradient.values() if gradient.is_sparse else gradient for gradient in gradients], largest)
