"""Check that a custom model draws its weights, and refuse trials or controls that would be copies of each other."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator, Mapping

import torch
from torch import Tensor

from lth.config import Experiment, Model, is_custom, userfile
from lth.config.registry import entry
from lth.errors import UsageError
from lth.models import build, counted, first_weights, new_weights

Shape = tuple[int, ...]
ADVICE = (
    "Draw them from torch's global generator in each call; if they come from a checkpoint, set model.pretrained=true"
)


def check_draws(experiment: Experiment, shape: Shape, classes: int) -> list[str]:
    """Lines about weights that no control draws. Raises UsageError if trials or controls would be copies."""
    config, drawing = experiment.model, list(drawing_branches(experiment))
    several = experiment.trials > 1 and not experiment.ticket  # a ticket file gives all trials the same start
    if not is_custom(config.name) or not (drawing or several):
        return []
    names = list(counted(build(config, shape, classes)))
    first = _drawn(config, shape, classes, 1)
    _check_seed_decides(config, first, _drawn(config, shape, classes, 1))
    if config.pretrained:
        if drawing:
            _check_initialisation(config, first, shape, classes, names, drawing[0])
        return []
    names = [name for name in names if first[name].min() < first[name].max()]  # constants are equal in every draw
    other = _drawn(config, shape, classes, 2)
    same = [name for name in names if torch.equal(first[name], other[name])]
    if same and len(same) == len(names):
        raise UsageError(_format_copies(config, experiment.trials if several else 1, drawing))
    return [
        f"{config.name} returns the same {_listed(same)} for every seed: no trial or control would have other weights"
    ] * bool(same)


def drawing_branches(experiment: Experiment) -> Iterator[str]:
    """The branches whose start rule draws from the initialisation."""
    for branch in experiment.branch:
        hangs = any(branch in experiment.branches_at(level) for level in range(1, experiment.levels + 1))
        if hangs and branch.start and "draw" in _parameters(branch.start):
            yield branch.name


def _parameters(rule: str) -> Collection[str]:
    if is_custom(rule):
        return userfile.signature(rule).parameters
    return inspect.signature(entry("start-rules", rule).load()).parameters


def _drawn(config: Model, shape: Shape, classes: int, seed: int) -> dict[str, Tensor]:
    return first_weights(config, shape, classes, torch.Generator().manual_seed(seed))


def _check_seed_decides(config: Model, one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    if differing := [name for name in one if not torch.equal(one[name], other[name])]:
        raise UsageError(
            f"{config.name} returned another {_listed(differing)} when it was called again with the same seed: draw "
            "all weights, and from the global generators of torch, numpy or Python"
        )


def _check_initialisation(
    config: Model, first: Mapping[str, Tensor], shape: Shape, classes: int, names: list[str], branch: str
) -> None:
    """Raise UsageError if the control of a pretrained model would keep given weights."""
    drawn = new_weights(config, shape, classes, torch.Generator().manual_seed(2))  # another generator than for `first`
    if left := [name for name in names if torch.equal(first[name], drawn[name])]:
        raise UsageError(
            f"{branch} draws a pretrained model by reset_parameters() of its modules, which does not draw "
            f"{_listed(left)} of {config.name}: give these modules a reset_parameters(), or leave {branch} out"
        )


def _format_copies(config: Model, trials: int, drawing: list[str]) -> str:
    copies = [f"trials 2 to {trials} would begin as trial 1"] if trials > 1 else []
    copies += [f"{name} would begin as the ticket" for name in drawing[:2]]
    return f"{config.name} returns the same weights for every seed: {', '.join(copies)}. {ADVICE}"


def _listed(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
