"""Make the ticket of a training: apply its mask rule and start rule to stored files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lth.config import Experiment, is_custom
from lth.config.fields import plain
from lth.config.registry import entry
from lth.config.userfile import call
from lth.data.splits import pixels
from lth.errors import Damaged, UsageError
from lth.execution.setup import Setup
from lth.models import everywhere, groups_of, tied
from lth.models.init import sigma_of
from lth.plan import Training
from lth.pruning import masks
from lth.pruning.masks import Mask, Weights
from lth.randomness import generator
from lth.storage import layout
from lth.storage.tensors import load_tensors
from lth.tickets.ticket import Ticket, from_bytes
from lth.training.batches import batches

Stored = Mapping[str, bytes]  # name in the run's folder -> content
Suppliers = Mapping[str, Callable[[], Any]]  # parameter -> function that makes its value


def make_ticket(training: Training, setup: Setup, model: nn.Module, stored: Stored) -> Ticket:
    """The mask and the start of a training, by its rules, from the stored files that `needed` returned."""
    experiment = setup.experiment
    given = _given(training, setup, model, stored)
    own_generator = partial(generator, experiment.seed, training.trial, training.id)
    context = {
        "groups": lambda: groups_of(experiment.model, model),
        "experiment": lambda: experiment,
        "level": lambda: training.level,
        "model": lambda: model,
        "draw": lambda: setup.draw_new,
        "sigma": lambda: training.sigma,
    }
    suppliers = context | {role: (lambda value=value: value) for role, value in given.items()}
    state = given.get("trained", given["start"])
    score = lambda weights, mask: _scores(training, setup, model, {**state, **weights}, weights, mask)
    mask_suppliers = suppliers | {"scores": lambda: score, "generator": lambda: own_generator("mask")}
    mask = _apply("mask-rules", training.mask_rule, experiment, mask_suppliers)
    start_suppliers = suppliers | {
        "mask": lambda: mask,
        "generator": lambda: own_generator("start"),
        "sigmas": lambda: _sigmas(training, setup, given["start"], mask),
    }
    start = _apply("start-rules", training.start_rule, experiment, start_suppliers)
    start = {**start} | {name: start[first] for name, first in tied(model).items()}
    return Ticket(mask, masks.apply(everywhere(model, mask), start), origin_of(training, setup))


def _apply(kind: str, name: str, experiment: Experiment, suppliers: Suppliers) -> Any:
    """The result of a named rule or score; arguments are made only if the function needs them."""
    return call(name, entry(kind, name, experiment.files).load(), suppliers)


def _given(training: Training, setup: Setup, model: nn.Module, stored: Stored) -> dict[str, Any]:
    """The inputs of a training by role: weights, or a mask in the network's order, on which pools and draws depend."""
    folder = setup.folder
    files = {role: layout.file_of(artifact) for role, artifact in training.inputs.items()}
    values: dict[str, Any] = {}
    for role, name in files.items():
        if training.inputs[role].kind == "ticket":
            values[role] = in_order(read_stored(folder, stored, name, from_bytes).mask, setup.experiment, model)
        else:
            values[role] = read_stored(folder, stored, name, load_tensors)
    if setup.experiment.ticket:  # its file may contain only a part of the start
        mask = values["mask"] if "mask" in values else values["given"]
        values["start"] = completed(values["start"], everywhere(model, mask), _drawn(training.trial, setup))
    return values


def in_order(mask: Mask, experiment: Experiment, model: nn.Module) -> Mask:
    """The mask in the network's order. Raises UsageError if it has other weights than are counted now."""
    names = groups_of(experiment.model, model)
    if strange := sorted({*mask} ^ {*names}):
        raise UsageError(
            f"the run was begun when other weights of {experiment.model.name} were counted: {', '.join(strange[:5])}; "
            "give another --out, and model.count or model.leave_out for the same choice"
        )
    return {name: mask[name] for name in names}


def _drawn(trial: int, setup: Setup) -> Weights:
    return setup.draw(generator(setup.experiment.seed, trial, "start"))


def completed(start: Weights, mask: Mask, drawn: Weights) -> Weights:
    """A start from a ticket file, in which pruned weights stored as 0 are replaced by `drawn`, for controls."""
    added = {name: torch.where(layer | (start[name] != 0), start[name], drawn[name]) for name, layer in mask.items()}
    return {**start} | added


def _sigmas(training: Training, setup: Setup, start: Weights, mask: Mask) -> dict[str, float]:
    """The standard deviation with which each layer of the mask was drawn; for a custom model, that of its values."""
    options = setup.experiment.model
    if is_custom(options.name):
        drawn = _drawn(training.trial, setup) if setup.experiment.ticket else start
        return {name: float(drawn[name].std()) for name in mask}
    return {name: sigma_of(start[name], options.init_sigma) for name in mask}


def _scores(
    training: Training, setup: Setup, model: nn.Module, state: Weights, weights: Weights, mask: Mask
) -> Weights:
    """The scores of `weights` by the experiment's `prune.score`; `state` is that of the whole network."""
    experiment = setup.experiment
    suppliers = {
        "weights": lambda: weights,
        "mask": lambda: mask,
        "model": lambda: _loaded(model, masks.apply(everywhere(model, mask), state)),
        "batches": lambda: ScoreBatches(setup, training),
        "loss": lambda: setup.objective.mean,
        "generator": lambda: generator(experiment.seed, training.trial, training.id, "score"),
    }
    return _apply("scores", experiment.prune.score, experiment, suppliers)


def _loaded(model: nn.Module, state: Weights) -> nn.Module:
    """The network with this state, in training mode."""
    model.load_state_dict(dict(state))
    return model.train()


@dataclass(frozen=True)
class ScoreBatches:
    """An epoch of the training set in batches of the recipe's size, in an order specific to the training."""

    setup: Setup
    training: Training

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        splits, size = self.setup.splits, self.setup.experiment.recipe.batch
        assert splits is not None
        key = (self.setup.experiment.seed, self.training.trial, self.training.id, "score")
        examples = len(splits.train_y)
        for chosen in batches(key, examples, size, 0, -(-examples // size)):
            yield pixels(splits.train_x[chosen]), splits.train_y[chosen]


def origin_of(training: Training, setup: Setup) -> dict[str, Any]:
    """The origin of a ticket, for the metadata of its file."""
    experiment = setup.experiment
    settings = experiment.leading_to(training.level) | {"recipe": plain(training.recipe)}
    return {
        "model": plain(experiment.model),
        "experiment": experiment.digest(training.level),
        "seeds": {"experiment": experiment.seed, "trial": training.trial},
        "trial": training.trial,
        "level": training.level,
        "branch": training.branch,
        "versions": {"lth": version("lth"), "torch": torch.__version__},
        "inputs": list(setup.shape),
        "classes": setup.classes,
        "settings": {key: value for key, value in settings.items() if not key.startswith("ticket")},
    }


def read_stored(folder: Path, stored: Stored, name: str, reader: Callable[[bytes], Any]) -> Any:
    try:
        return reader(stored[name])
    except ValueError as error:
        raise damaged(folder, name, error) from None


def damaged(folder: Path, name: str, fault: object) -> UsageError:
    return Damaged(folder / name, str(fault), layout.mended_by(folder))
