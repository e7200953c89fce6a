"""Find the tickets of any module on any data with a recipe, in one call."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor, nn

from lth.config import Recipe, resolve
from lth.data.parts import Part, parts
from lth.errors import UsageError
from lth.models import unwrapped
from lth.randomness import global_draws
from lth.results.early_stops import judged_at_the_end
from lth.tickets.imp import Tickets, imp
from lth.training.batches import check_last, leaves_one
from lth.training.loop import Outcome, train
from lth.training.module_engine import Measure, ModuleEngine, accuracy, default_loss


def find_tickets(
    model: nn.Module,
    data: Any,
    recipe: Recipe | Mapping[str, Any],
    rate: float = 0.2,
    levels: int = 10,
    *,
    rates: Mapping[str, float] | None = None,
    scope: str = "layerwise",
    loss: Measure | None = None,
    metric: Measure | None = None,
    validation: float | int | None = None,
    seed: int = 1,
    say: Callable[[str], None] = lambda line: None,
) -> Tickets:
    """The tickets of any module on any data: each level is trained by `recipe` from the module's present weights.

    `data` is a pair (x, y) of arrays or tensors, a torch Dataset of such pairs, or a dict from train, validation and
    test to such; without a validation part, `validation` of the training examples (a share or a count; a tenth unless
    given) is split off by `seed`. `recipe` is an lth.Recipe or a dict of its keys. `loss(outputs, targets)` is the mean
    over a batch: cross entropy for whole targets, else the mean squared error. `metric(outputs, targets)`, of all
    outputs of a part at once, is a number, higher is better: the accuracy for whole targets if no loss is given, else
    minus the loss. `rate`, `levels`, `rates`, `scope` and `say` are those of `lth.imp`.

    The score of a ticket is the metric at early stop, or after the last iteration where the learning rate falls in the
    second half of the training; on the test part where there is one, else on validation. The
    model is trained in place, where it is, in its own precision unless the recipe says bfloat16, and keeps the last
    level's weights. Raises UsageError before any training where something does not fit.
    """
    recipe = recipe_of(recipe)
    if not any(p.requires_grad for p in model.parameters()):
        name = type(model).__name__
        raise UsageError(f"{name} has no parameter to train: all are frozen; model.requires_grad_() thaws them")
    floats = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    data_parts = parts(data, validation, seed, floats)
    targets = check(recipe, data_parts["train"], model)
    by_default = metric is None and loss is None and not targets.is_floating_point()
    measures = loss or default_loss(targets), accuracy if by_default else metric
    inner, modes = unwrapped(model), [(module, module.training) for module in model.modules()]
    try:
        train_level = trainer(recipe, data_parts, measures, seed)
        tickets = imp(inner, train_level, rate, levels, rates=rates, scope=scope, say=say)
        return replace(tickets, at_the_end=judged_at_the_end(recipe))
    finally:
        for module, mode in modes:
            module.training = mode


def trainer(
    recipe: Recipe, data_parts: Mapping[str, Part], measures: tuple[Measure, Measure | None], seed: int
) -> Callable[[nn.Module], dict[str, Any]]:
    """A function for `imp` that trains a level by the recipe, each level with other seeds; its row."""
    levels = itertools.count()

    def train_level(model: nn.Module) -> dict[str, Any]:
        engine = ModuleEngine(model, recipe, data_parts, *measures, (seed, "find_tickets", next(levels)))
        outcome = train(engine, recipe)
        engine.set_weights(outcome.trained)  # the weights after the last update are pruned
        part = "test" if "test" in data_parts else "val"
        metric = name_of(measures[1])
        score = f"final_{part}_{metric}" if judged_at_the_end(recipe) else f"{part}_{metric}_at_early_stop"
        return columns_of(outcome, score, metric)

    return train_level


def recipe_of(given: Recipe | Mapping[str, Any]) -> Recipe:
    """The recipe, complete; raises UsageError naming every key that is wrong."""
    if isinstance(given, Recipe):
        return given
    if not isinstance(given, Mapping):
        raise UsageError(f"the recipe is {type(given).__name__}: expected an lth.Recipe, or a dict of its keys")
    return resolve({"name": "own", "recipe": dict(given)}).recipe


def check(recipe: Recipe, train_part: Part, model: nn.Module) -> Tensor:
    """The targets of some examples. Raises UsageError where the recipe cannot be carried out on them."""
    if recipe.batch > train_part.size:
        raise UsageError(f"recipe.batch = {recipe.batch} is more than the {train_part.size} training examples")
    with global_draws(torch.device("cpu")):
        x, y = train_part.batch(torch.arange(min(2, train_part.size)))
    if recipe.augment and x.dim() != 4:
        raise UsageError(f"recipe.augment is for images, but an input is {tuple(x.shape[1:])}; leave it out")
    if leaves_one(train_part.size, recipe.batch):  # copy the module only where it has to be tried
        device = next(model.parameters()).device
        check_last(recipe, train_part.size, copy.deepcopy(unwrapped(model)), x[:1].to(device))
    return y


def columns_of(outcome: Outcome, score: str, metric: str) -> dict[str, Any]:
    """The row of a level: the columns of summary.csv, the score, which is the column of that name, and the curve."""
    summary = {k.replace("accuracy", metric): v for k, v in outcome.summary.items() if v != "done"}
    curve = [{k.replace("accuracy", metric): v for k, v in asdict(row).items()} for row in outcome.curve]
    return summary | {"score": summary.get(score, float("nan")), "curve": curve}


def name_of(metric: Measure | None) -> str:
    """The metric's name in the columns."""
    name = getattr(metric, "__name__", "metric") if metric else "minus_loss"
    return name if name.isidentifier() and name != "loss" else "metric"  # loss is a column already
