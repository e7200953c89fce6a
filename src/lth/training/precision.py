"""The dtype of a training: float32, or bfloat16 if the hardware supports it. Losses are always float32."""

from __future__ import annotations

import platform

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from lth.training import processor

X86 = ("amx_bf16", "avx512_bf16")  # names in Linux, the faster one first
ARM = ("bf16",)


def hardware(device: str) -> str | None:
    """What computes in bfloat16 on `device` ("cpu" or "cuda"), in a few words; None if nothing does."""
    if device != "cpu":
        major, minor = torch.cuda.get_device_capability()  # below compute capability 8.0 it is emulated
        return "the GPU" if (major, minor) >= (8, 0) else None
    names = X86 if platform.machine().lower() in ("x86_64", "amd64") else ARM
    unit = next((name for name in names if name in processor.flags()), None)
    return f"the processor's {unit}" if unit else None


def resolve(asked: str, model: nn.Module, device: str) -> tuple[str, str]:
    """The precision for `model`, and the reason.

    `auto` is bfloat16 for convolutional networks if the hardware supports it, else float32. An explicit choice is used
    as it is: bfloat16 runs everywhere, but slowly without hardware support.
    """
    convolutional = any(isinstance(module, _ConvNd) for module in model.modules())
    unit = hardware(device)
    if asked == "bfloat16":
        return (
            asked,
            f"as requested; computed by {unit}"
            if unit
            else f"as requested; slow, because the {device} does not support it",
        )
    if asked == "float32":
        return asked, "asked for"
    if not convolutional:
        return "float32", "the network has no convolution"
    if unit is None:
        return "float32", f"the {device} does not support bfloat16"
    return "bfloat16", f"convolutions are faster in it with {unit}"
