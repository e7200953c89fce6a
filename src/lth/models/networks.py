"""Build networks from settings, and draw their start weights."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from lth.config import MOST_WEIGHTS, Model, is_custom
from lth.config.registry import MODELS
from lth.errors import UsageError
from lth.models import counting, custom
from lth.models.architecture import Architecture
from lth.models.counting import Choice, computed, matches
from lth.models.parameters import parameters, tensors
from lth.models.values import check_prunable
from lth.randomness import global_draws


def architecture(name: str) -> Architecture:
    """The built-in architecture with a name of `lth list models`."""
    return MODELS[name].load()


def build(config: Model, shape: tuple[int, ...], classes: int) -> nn.Module:
    """The network of `config` for inputs of `shape` (without the batch), with arbitrary initial weights.

    Raises UsageError if it cannot take such inputs.
    """
    if is_custom(config.name):
        return build_custom(config, shape, classes, seed=0)  # tensors outside of the state_dict are then reproducible
    entry = architecture(config.name)
    _check_shape(config.name, entry.smallest, shape)
    make = partial(entry.build, config, shape, classes)
    _check_size(config.name, make, shape)
    with global_draws(
        torch.device("cpu")
    ):  # modules initialise themselves from the global generator, which is restored
        return make()


def _check_shape(name: str, smallest: int, shape: tuple[int, ...]) -> None:
    if smallest > 1 and (len(shape) != 3 or min(shape[1:]) < smallest):
        given = " x ".join(map(str, shape)) if len(shape) == 3 else f"vectors of {shape[0]} features"
        raise UsageError(f"model {name} takes images of at least {smallest} x {smallest} pixels; the data are {given}")


def _check_size(name: str, make: partial[nn.Module], shape: tuple[int, ...]) -> None:
    with torch.device("meta"):  # allocates no memory
        weights = sum(parameter.numel() for parameter in make().parameters())
    if weights > MOST_WEIGHTS:
        size = " x ".join(map(str, shape))
        raise UsageError(f"for inputs of {size} model {name} has {weights:,} weights; at most {MOST_WEIGHTS:,}")


def first_weights(config: Model, shape: tuple[int, ...], classes: int, generator: torch.Generator) -> dict[str, Tensor]:
    """The start of a trial, drawn from `generator`: all parameters and buffers, on the CPU.

    A built-in network is drawn by its architecture's `draw`; a custom model initialises itself.
    """
    if is_custom(config.name):
        return tensors(build_custom(config, shape, classes, _seed(generator)))
    return architecture(config.name).draw(build(config, shape, classes), generator, config.init_sigma)


def new_weights(config: Model, shape: tuple[int, ...], classes: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Weights from the distribution of the initialisation, for a control.

    Those of a pretrained custom model are drawn by `reset_parameters` of its modules.
    """
    if not config.pretrained:
        return first_weights(config, shape, classes, generator)
    model = build(config, shape, classes)
    with global_draws(torch.device("cpu")) as draw_from:
        draw_from(_seed(generator))
        custom.reset(model)
    return tensors(model)


def _seed(generator: torch.Generator) -> int:
    return int(torch.randint(2**62, (), generator=generator))


def build_custom(config: Model, shape: tuple[int, ...], classes: int, seed: int) -> nn.Module:
    """Build a custom model. Its draws are seeded; the global generators are restored afterwards."""
    with global_draws(torch.device("cpu")) as draw_from:
        draw_from(0)  # draws made when the file is run, once per process, must not affect the seeded ones
        make = custom.builder(config.name, shape, classes, config.sha256)
        draw_from(seed)
        model = custom.check_outputs(config.name, make(), shape, classes)
    try:
        check_prunable(model)
    except UsageError as error:
        raise UsageError(f"{config.name}: {error}") from None
    chosen = (*config.count, *config.leave_out)
    for weight, parts in computed(model).items():
        if not any(matches(pattern, parts) for pattern in chosen):
            raise UsageError(
                f"{config.name}: {weight} is computed by a parametrization, which is not pruned: build it without one, "
                f'or leave it dense with model.leave_out=["{parts[0]}"]'
            )
    return model


def choice_of(config: Model) -> Choice:
    """The choice of counted parameters in the settings."""
    return Choice(config.count, config.leave_out, "model.")


def groups_of(config: Model, model: nn.Module) -> dict[str, str]:
    """The groups of the counted parameters of `model`, which was built from these settings; see `groups`."""
    return counting.groups(model, choice_of(config))


def left_out(config: Model, model: nn.Module) -> list[str]:
    """One line per uncounted parameter of a custom model, with the reason."""
    reasons = counting.not_counted(model, choice_of(config)) if is_custom(config.name) else {}
    return counting.format_not_counted(reasons, {name: parameters(model)[name].shape for name in reasons})
