"""Find the tickets of any module on any data with a recipe, in one call."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor, nn

from lth.config import Recipe, resolve
from lth.data.parts import Part, batch_of, parts
from lth.errors import UsageError
from lth.models import parameters, unwrapped
from lth.randomness import global_draws
from lth.results.early_stops import judged_at_the_end
from lth.tickets.fitting import check_fit
from lth.tickets.imp import Tickets, imp
from lth.tickets.reset import resetter
from lth.training.batches import check_last, leaves_one
from lth.training.loop import Outcome, train
from lth.training.losses import Measure, accuracy, check_mean, default_loss
from lth.training.module_engine import ModuleEngine


def find_tickets(
    model: nn.Module,
    data: Any,
    recipe: Recipe | Mapping[str, Any],
    rate: float = 0.2,
    levels: int = 10,
    *,
    rates: Mapping[str, float] | None = None,
    scope: str = "layerwise",
    count: Sequence[str] = (),
    leave_out: Sequence[str] = (),
    loss: Measure | None = None,
    metric: Measure | None = None,
    validation: float | int | None = None,
    seed: int = 1,
    say: Callable[[str], None] = lambda line: None,
) -> Tickets:
    """Find the tickets of any module on any data. Each level is trained by `recipe` from the module's present weights.

    `data` is a pair (x, y) of arrays, tensors, or pandas Series and DataFrames; a torch Dataset of such pairs; a
    DataLoader, whose dataset, batch size and collate function are used; or a dict with `train` and, optionally,
    `validation` and `test`, each one of these. Without a validation set, `validation` of the training examples (a
    fraction or a count; default: a tenth) is split off by `seed`.

    `recipe` is an lth.Recipe or a dict of its keys. `loss(outputs, targets)` is the mean over a batch, without targets
    of -100 or of torch's `ignore_index`; by default the cross entropy for integer targets, else the mean squared error.
    `metric(outputs, targets)` gets all outputs of a split at once and returns a number, higher is better; by default
    the accuracy for integer targets without a custom loss, else minus the loss. `rate`, `levels`, `rates`, `scope`,
    `count`, `leave_out` and `say` are those of `lth.imp`.

    The score of a ticket is the metric at early stop, or after the last iteration if the learning rate falls in the
    second half of the training. It is computed on the test set if there is one, else on the validation set.

    The model is trained in place, on its device, in its own precision unless the recipe says bfloat16. It keeps the
    trained weights of the last level. Raises UsageError before any training if something does not fit.
    """
    recipe = recipe_of(recipe, batch_of(data))
    check_mean(loss)
    if torch.is_inference_mode_enabled():
        raise UsageError("nothing can be trained inside torch.inference_mode(): call lth.find_tickets outside it")
    if not any(p.requires_grad for p in parameters(model).values()):
        name = type(model).__name__
        raise UsageError(f"{name} has no parameter to train: all are frozen; model.requires_grad_() thaws them")
    floats = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    data_parts = parts(data, validation, seed, floats)
    targets = check(recipe, data_parts["train"], model)
    by_default = metric is None and loss is None and not targets.is_floating_point()
    measures = loss or default_loss(targets), accuracy if by_default else metric
    check_fit(unwrapped(model), data_parts, measures[0], recipe)
    inner, modes = unwrapped(model), [(module, module.training) for module in model.modules()]
    try:
        tickets = imp(
            inner, trainer(recipe, data_parts, measures, seed), rate, levels,
            rates=rates, scope=scope, count=count, leave_out=leave_out, say=say,
        )  # fmt: skip
        return replace(tickets, at_the_end=judged_at_the_end(recipe), minus_loss=measures[1] is None)
    finally:
        for module, mode in modes:
            module.training = mode


def trainer(
    recipe: Recipe, data_parts: Mapping[str, Part], measures: tuple[Measure, Measure | None], seed: int
) -> Callable[[nn.Module], dict[str, Any]]:
    """A training function for `imp` that follows the recipe, with other seeds at each level, and returns its row."""
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


def recipe_of(given: Recipe | Mapping[str, Any], batch: int | None = None) -> Recipe:
    """The complete recipe, with the batch size of a DataLoader. Raises UsageError naming every wrong key."""
    if not isinstance(given, Recipe | Mapping):
        raise UsageError(f"the recipe is {type(given).__name__}: expected an lth.Recipe, or a dict of its keys")
    named = given.model_fields_set if isinstance(given, Recipe) else {*given}
    recipe = given if isinstance(given, Recipe) else resolve({"name": "own", "recipe": dict(given)}).recipe
    if batch is None or recipe.batch == batch:
        return recipe
    if "batch" in named:
        raise UsageError(
            f"recipe.batch = {recipe.batch}, but the DataLoader makes batches of {batch}: leave recipe.batch out, or "
            "give the DataLoader's dataset"
        )
    return recipe.model_copy(update={"batch": batch})


def check(recipe: Recipe, train_part: Part, model: nn.Module) -> Tensor:
    """The targets of some examples. Raises UsageError if the recipe cannot be carried out on them."""
    if recipe.batch > train_part.size:
        raise UsageError(f"recipe.batch = {recipe.batch} is more than the {train_part.size} training examples")
    with global_draws(torch.device("cpu")):
        x, y = train_part.batch(torch.arange(min(2, train_part.size)))
    if recipe.augment and x.dim() != 4:
        raise UsageError(f"recipe.augment is for images, but an input is {tuple(x.shape[1:])}; leave it out")
    if leaves_one(train_part.size, recipe.batch):  # the module is run only if it has to be tried
        device, reset = next(model.parameters()).device, resetter(model)
        try:
            check_last(recipe, train_part.size, unwrapped(model), x[:1].to(device))
        finally:
            reset()
    return y


def columns_of(outcome: Outcome, score: str, metric: str) -> dict[str, Any]:
    """The row of a level: the columns of summary.csv, the score (the metric's column), and the curve."""
    summary = {k.replace("accuracy", metric): v for k, v in outcome.summary.items() if v != "done"}
    curve = [{k.replace("accuracy", metric): v for k, v in asdict(row).items()} for row in outcome.curve]
    return summary | {"score": summary.get(score, float("nan")), "curve": curve}


def name_of(metric: Measure | None) -> str:
    """The metric's name in the columns."""
    name = getattr(metric, "__name__", "metric") if metric else "minus_loss"
    return name if name.isidentifier() and name != "loss" else "metric"  # there already is a column named loss
