"""Initialisation: every draw from a generator that is handed in."""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd


def glorot_sigma(weight: Tensor) -> float:
    """sqrt(2 / (fan_in + fan_out)) of a weight matrix or kernel."""
    fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(weight)
    return sqrt(2 / (fan_in + fan_out))


def sigma_of(weight: Tensor, init_sigma: float | None) -> float:
    """The sigma that a weight matrix or kernel is drawn with: `model.init_sigma` where given, else Glorot's."""
    return glorot_sigma(weight) if init_sigma is None else init_sigma


def draw(model: nn.Module, generator: torch.Generator, init_sigma: float | None = None) -> dict[str, Tensor]:
    """Start weights for `model`, whose own are left alone: all parameters and buffers, on the CPU.

    Weight matrices and kernels are Gaussian Glorot, truncated at two sigma without correction, as in the paper's
    histograms (figures 15 and 16); with `init_sigma` they are Gaussian of that sigma, zero-mean and not truncated
    (figure 30). Their biases are 0. Batch norm has scales 1, shifts 0 and the statistics of no data.
    All else is as `model` has it.
    """
    drawn = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
    for path, module in model.named_modules():
        prefix = f"{path}." if path else ""
        if isinstance(module, _NormBase):
            drawn |= {f"{prefix}{name}": tensor for name, tensor in _reset(module).items()}
        elif isinstance(module, nn.Linear | _ConvNd):
            weight = drawn[prefix + "weight"]
            sigma = sigma_of(weight, init_sigma)
            if init_sigma is None:
                nn.init.trunc_normal_(weight, 0.0, sigma, -2 * sigma, 2 * sigma, generator=generator)
            else:
                nn.init.normal_(weight, 0.0, sigma, generator=generator)
            if module.bias is not None:
                drawn[prefix + "bias"].zero_()
    return drawn


def _reset(norm: _NormBase) -> dict[str, Tensor]:
    """What a batch norm holds before it has seen any data."""
    fresh = {name: torch.zeros_like(tensor, device="cpu") for name, tensor in norm.state_dict().items()}
    return fresh | {name: torch.ones_like(fresh[name]) for name in ("weight", "running_var") if name in fresh}
