"""Initialisation: every tensor of a built-in network is set here or in its own file, from a given generator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from lth.errors import LthError
from lth.models.counting import NORMS

Tensors = dict[str, Tensor]
Draw = Callable[[nn.Module, torch.Generator, float | None], Tensors]
Initialiser = tuple[type[nn.Module] | tuple[type[nn.Module], ...], Draw]  # initialisers of these types of modules


def glorot_sigma(weight: Tensor) -> float:
    """sqrt(2 / (fan_in + fan_out)) of a weight matrix or kernel."""
    fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(weight)
    return sqrt(2 / (fan_in + fan_out))


def sigma_of(weight: Tensor, init_sigma: float | None) -> float:
    """The standard deviation of a weight's initial values: `model.init_sigma` if given, else Glorot's."""
    return glorot_sigma(weight) if init_sigma is None else init_sigma


def truncated_normal(like: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """A zero-mean Gaussian of `sigma`, truncated at two sigma without rescaling; on the CPU."""
    drawn = torch.empty_like(like, device="cpu")
    return nn.init.trunc_normal_(drawn, 0.0, sigma, -2 * sigma, 2 * sigma, generator=generator)


def draw_layer(layer: nn.Module, generator: torch.Generator, init_sigma: float | None) -> Tensors:
    """Truncated Gaussian Glorot weights or, with `init_sigma`, untruncated Gaussian ones; biases are 0."""
    values = {name: torch.zeros_like(tensor, device="cpu") for name, tensor in layer.state_dict().items()}
    sigma = sigma_of(values["weight"], init_sigma)
    if init_sigma is None:
        values["weight"] = truncated_normal(values["weight"], sigma, generator)
    else:
        nn.init.normal_(values["weight"], 0.0, sigma, generator=generator)
    return values


def reset_norm(norm: nn.Module, generator: torch.Generator, init_sigma: float | None) -> Tensors:
    """Set scales to 1, shifts to 0, and statistics to their initial values; nothing is drawn."""
    values = {name: torch.zeros_like(tensor, device="cpu") for name, tensor in norm.state_dict().items()}
    return values | {name: torch.ones_like(values[name]) for name in ("weight", "running_var") if name in values}


INITIALISERS: tuple[Initialiser, ...] = ((NORMS, reset_norm), ((nn.Linear, _ConvNd), draw_layer))


def draw(
    model: nn.Module,
    generator: torch.Generator,
    init_sigma: float | None = None,
    further: tuple[Initialiser, ...] = (),
) -> Tensors:
    """Start weights for `model`, which is not changed: all parameters and buffers, on the CPU.

    Weight matrices and kernels are Gaussian Glorot, truncated at two sigma without rescaling, as in the paper's
    histograms (figures 15 and 16). With `init_sigma` they are Gaussian with that sigma, zero-mean and not truncated
    (figure 30). Biases are 0. Norms have scales 1, shifts 0 and initial statistics. `further` initialises modules of
    other types. Raises LthError naming a tensor that no initialiser sets.
    """
    drawn = dict(_drawn(model, generator, init_sigma, (*further, *INITIALISERS)))
    if missing := [name for name in model.state_dict() if name not in drawn]:
        owner = model.get_submodule(missing[0].rpartition(".")[0])
        raise LthError(
            f"no initialiser draws {missing[0]} of {type(owner).__name__}: it would be the same in all trials, or come "
            "from no seed; give the model's architecture a `draw` that does"
        )
    return {name: drawn[name] for name in model.state_dict()}


def _drawn(
    model: nn.Module, generator: torch.Generator, init_sigma: float | None, initialisers: tuple[Initialiser, ...]
) -> Iterator[tuple[str, Tensor]]:
    for path, module in model.named_modules():
        initialise = next((function for types, function in initialisers if isinstance(module, types)), None)
        if initialise:
            prefix = f"{path}." if path else ""
            yield from ((prefix + name, tensor) for name, tensor in initialise(module, generator, init_sigma).items())
