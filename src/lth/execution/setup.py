"""What a worker sets up once for all its trainings: the data in its engine's format, and facts about the network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lth import data as datasets
from lth.config import TASKS, Experiment, is_custom
from lth.data.classes import by_text, recorded
from lth.data.splits import check_channels, check_validation
from lth.errors import UsageError
from lth.execution.resources import Resources
from lth.models import build, first_weights, groups_of, left_out, new_weights, tensors
from lth.pruning import masks
from lth.pruning.allocation import ladder
from lth.pruning.structures import fewest
from lth.tickets.fitting import as_it_was
from lth.tickets.ticket import Ticket
from lth.training import native_engine, torch_engine
from lth.training.batches import check_last
from lth.training.loop import Engine
from lth.training.losses import Objective

REALS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
# engine -> what prepares the data, once per process, and what trains on them
ENGINES: dict[str, tuple[Callable[..., Any], Callable[..., Engine]]] = {
    "torch": (torch_engine.prepare, torch_engine.TorchEngine),
    "native": (native_engine.prepare, native_engine.NativeEngine),
}


@dataclass(frozen=True)
class Setup:
    """The setup of one worker. `splits` and `prepared` are None if it only draws starts."""

    experiment: Experiment
    resources: Resources
    folder: Path
    shape: tuple[int, ...]
    classes: int
    splits: datasets.Splits | None = field(repr=False)
    prepared: Any = field(repr=False)

    @property
    def objective(self) -> Objective:
        return TASKS[self.experiment.data.task].load()

    def model(self) -> nn.Module:
        return build(self.experiment.model, self.shape, self.classes)

    def draw(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Draw start weights for the model."""
        return first_weights(self.experiment.model, self.shape, self.classes, generator)

    def draw_new(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Draw weights for a control from the distribution of the initialisation."""
        return new_weights(self.experiment.model, self.shape, self.classes, generator)


@dataclass(frozen=True)
class Levels:
    """The counted weights that remain at each level."""

    remaining: list[int]
    total: int
    left_out: tuple[str, ...] = ()  # lines on uncounted parameters of a custom model

    def density(self, level: int) -> float:
        return self.remaining[level] / self.total


def load_again(experiment: Experiment, data_root: Path | None, say: Callable[[str], None]) -> datasets.Data:
    """Load the data of a run in a worker process, as `prepare` loaded them.

    Only runs of version 0.1 lack a record of their class names.
    """
    options = experiment.data
    order = recorded(options.classes) if options.classes else by_text
    return datasets.load(options.name, data_root, say, options.size, order, options.task)


def set_up(experiment: Experiment, resources: Resources, folder: Path, data: datasets.Data) -> Setup:
    """Prepare the data for the engine, once per process."""
    shape = tuple(data.train_x.shape[1:])
    return setup_of(experiment, resources, folder, shape, data.classes, splits_of(experiment, data))


def splits_of(experiment: Experiment, data: datasets.Data) -> datasets.Splits:
    """The splits of the data on which the experiment trains."""
    options = experiment.data
    return datasets.split(data, options.validation, experiment.seed, options.mean, options.std)


def setup_of(
    experiment: Experiment,
    resources: Resources,
    folder: Path,
    shape: tuple[int, ...],
    classes: int,
    splits: datasets.Splits | None = None,
) -> Setup:
    """The setup for existing splits; without splits it can draw starts but not train."""
    torch.set_num_threads(resources.threads)
    prepare, _ = ENGINES[resources.engine]
    prepared = splits and prepare(splits, resources.device)
    return Setup(experiment, resources, folder, shape, classes, splits, prepared)


def check(experiment: Experiment, data: datasets.Data) -> Levels:
    """The remaining weights of every level. Raises UsageError if the experiment does not fit the data."""
    _check_data(experiment, data)
    shape, examples = tuple(data.train_x.shape[1:]), len(data.train_x) - experiment.data.validation
    model = build(experiment.model, shape, data.classes)
    _check_outputs(experiment, model, shape, data.classes)
    frozen = [not parameter.requires_grad for parameter in model.parameters()]
    if frozen and all(frozen):
        raise UsageError(
            f"{experiment.model.name} has no parameter to train: all are frozen; set requires_grad of some of them"
        )
    check_last(experiment.recipe, examples, model, torch.zeros(1, *shape))
    parameters = dict(model.named_parameters())
    if wrong := [name for name, p in parameters.items() if p.requires_grad and not p.isfinite().all()]:
        raise UsageError(f"{experiment.model.name} begins with values of {wrong[0]} that are infinite or NaN")
    groups = groups_of(experiment.model, model)
    sizes = {name: parameters[name].numel() for name in groups}
    if not sizes:
        raise UsageError(f"{experiment.model.name} has no weights to prune: no parameter of two dimensions or more")
    least = {name: fewest(experiment.prune.structure, tuple(parameters[name].shape)) for name in sizes}
    first = masks.alive(given_ticket(experiment, model).mask) if experiment.ticket else None
    return Levels(
        ladder(sizes, groups, experiment, first, least), sum(sizes.values()), tuple(left_out(experiment.model, model))
    )


def _check_outputs(experiment: Experiment, model: nn.Module, shape: tuple[int, ...], classes: int) -> None:
    """Raise UsageError if a custom model's outputs have the right size but a shape that its task does not accept."""
    if not is_custom(experiment.model.name) or not TASKS[experiment.data.task].load().correct:
        return
    with as_it_was(model), torch.no_grad():
        outputs = tuple(model.eval()(torch.zeros(2, *shape, dtype=torch.float32)).shape)
    if outputs != (2, classes):
        raise UsageError(
            f"{experiment.model.name} takes a batch of 2 inputs of {shape} to {outputs}, expected (2, {classes})"
        )


def _check_data(experiment: Experiment, data: datasets.Data) -> None:
    check_validation(data, experiment.data.validation)
    check_channels(data, experiment.data.mean)
    shape, examples = tuple(data.train_x.shape[1:]), len(data.train_x) - experiment.data.validation
    if experiment.recipe.batch > examples > 0:
        raise UsageError(f"recipe.batch = {experiment.recipe.batch} is more than the {examples} training examples")
    if experiment.recipe.augment and len(shape) != 3:
        raise UsageError(f"recipe.augment is for images, but {data.name} has vectors of {shape[0]}; leave it out")


def given_ticket(experiment: Experiment, model: nn.Module) -> Ticket:
    """The ticket of the experiment's ticket file.

    Raises UsageError if it does not fit `model`, which is overwritten.
    """
    assert experiment.ticket is not None
    ticket = Ticket.load(experiment.ticket)
    try:
        _check_values(ticket, model)
        ticket.apply(model)
        if strange := sorted({*ticket.mask} ^ {*groups_of(experiment.model, model)}):
            raise UsageError(f"its mask and the model's counted weights differ in {', '.join(strange)}")
    except UsageError as error:
        raise UsageError(
            f"{experiment.ticket} cannot be trained as {experiment.model.name} on {experiment.data.name}: {error}"
        ) from None
    return ticket


def _check_values(ticket: Ticket, model: nn.Module) -> None:
    """Raise UsageError if a start has another dtype than the model's, or is not finite where the model's is."""
    for name, value in tensors(model).items():
        start = ticket.start.get(name)
        if start is None or start.dtype == value.dtype == torch.bool:
            continue
        if start.dtype != value.dtype and not (start.dtype in REALS and value.dtype in REALS):
            raise UsageError(f"{name} is of type {start.dtype}, where the model has {value.dtype}")
        if not start.isfinite().all() and value.isfinite().all():  # a model may have a buffer of -inf
            raise UsageError(f"the start of {name} has values that are infinite or NaN")
