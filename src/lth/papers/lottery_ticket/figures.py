"""The paper's figures: the trainings of each, and its panels.

Figures whose curves were read from the paper (series.py) have the same panels and series, so that the lines drawn over
a grey curve show the same quantity. Figures 26 to 31 and 37, and those on the contents of tickets (15, 16, 19 to 24),
are written out here. Figure 2 is a table.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from functools import cache
from itertools import groupby, pairwise
from typing import Any

from lth.papers.curves import Curve
from lth.papers.figures import Axis, Line, Panel, PaperFigure, Portrait
from lth.papers.lottery_ticket.series import BY_TEST, curves
from lth.papers.lottery_ticket.setups import LENET, NETWORKS, lenet_sgd
from lth.papers.setups import Setup, experiment, setup

EARLY_STOP = ("early_stop_iteration", "val_accuracy_at_early_stop")
IN_APPENDICES_G_TO_I = 3  # trials: "three experiments" per line in figures 26 to 45
COUNTS = {"reinit": 3, "random-mask": 1}  # branches of a ticket (section 2)

SIZES = ((25, 9), (50, 17), (100, 34), (150, 50), (200, 67), (300, 100), (400, 134), (500, 167), (700, 233), (900, 300))
ADAM_RATES = (2.5e-05, 5e-05, 0.0002, 0.0008, 0.0012, 0.002, 0.0032, 0.0064)
SGD_RATES = (0.003125, 0.00625, 0.0125, 0.025, 0.1, 0.4, 0.8, 1.2)
MOMENTUM_RATES = (0.003125, 0.0125, 0.025, 0.05, 0.1, 0.2, 0.4)
SIGMAS = (0.0125, 0.025, 0.05, 0.1, 0.2, 0.4, None)

ABOUT = {
    1: "early stop and accuracy there: tickets against random sparse networks, Lenet and Conv-2, 4, 6",
    3: "Lenet: test accuracy by iteration at several densities, tickets and reinit",
    4: "Lenet: early stop and accuracies, iterative and one-shot, tickets and reinit",
    5: "Conv-2, 4, 6: early stop and accuracies, tickets and reinit",
    6: "Conv-2, 4, 6: with dropout and without",
    7: "VGG-19: accuracy at 30K, 60K, 112K; learning rates and warmup, tickets and reinit",
    8: "Resnet-18: accuracy at 10K, 20K, 30K; learning rates and warmup, tickets and reinit",
    9: "Lenet: resetting against continued training",
    10: "Conv-2, 4, 6: resetting against continued training",
    11: "Lenet: validation loss by iteration at several densities, tickets and reinit",
    12: "Lenet: figure 4, and training accuracy at the last iteration",
    13: "Conv-2, 4, 6: figure 5, and training accuracy at the last iteration",
    14: "all networks: final accuracy of tickets, reinit and random sparsity",
    15: "Lenet, Adam: first values of the weights that survive",
    16: "Lenet, SGD: first values of the weights that survive",
    17: "Lenet: starts drawn from the ticket's own values",
    18: "Lenet: pruning at iteration 0",
    19: "Lenet: how far weights move from their start, in the ticket and out of it",
    20: "Lenet: by how much weights grow in magnitude, in the ticket and out of it",
    21: "Lenet, Adam: share of a unit's incoming weights that survive",
    22: "Lenet, SGD: share of a unit's incoming weights that survive",
    23: "Lenet, Adam: share of a unit's outgoing weights that survive",
    24: "Lenet, SGD: share of a unit's outgoing weights that survive",
    25: "Lenet: Gaussian noise on the ticket's start",
    26: "Lenet: learning rates of Adam",
    27: "Lenet: learning rates of SGD",
    28: "Lenet: learning rates of SGD with momentum",
    29: "Lenet: pruning rates",
    30: "Lenet: standard deviation of the first weights",
    31: "Lenet: network sizes, by weights remaining",
    32: "Conv-2, 4, 6: learning rates of Adam",
    33: "Conv-2, 4, 6: learning rates of SGD",
    34: "Conv-2, 4, 6: learning rates of SGD with momentum",
    35: "Conv-2, 4, 6: pruning rates of the convolutions",
    36: "Conv-2, 4, 6: learning rates of Adam with dropout",
    37: "Conv-2, 4, 6: pruning only convolutions, only fully connected layers, both",
    38: "VGG-19: global against layerwise pruning",
    39: "Resnet-18: global against layerwise pruning",
    40: "VGG-19: figure 7 with layerwise pruning",
    41: "Resnet-18: figure 8 with layerwise pruning",
    42: "Resnet-18: learning rates",
    43: "VGG-19: learning rates",
    44: "Resnet-18: warmup lengths",
    45: "VGG-19: warmup lengths",
}


@cache
def figures() -> dict[int, PaperFigure]:
    """All figures of the paper that show results, by number."""
    sgd = lenet_sgd()
    written = [
        _portraits(15, "starts", LENET, (0, 4, 8, 12)),
        _portraits(16, "starts", sgd, (0, 4, 8, 12)),
        _portraits(19, "movement", LENET, (8,)),
        _portraits(20, "growth", LENET, (8,)),
        _portraits(21, "incoming", LENET, (4, 8, 12)),
        _portraits(22, "incoming", sgd, (4, 8, 12)),
        _portraits(23, "outgoing", LENET, (4, 8, 12)),
        _portraits(24, "outgoing", sgd, (4, 8, 12)),
        _sweep(26, "recipe.lr", ADAM_RATES, {}, "percent"),
        _sweep(27, "recipe.lr", SGD_RATES, {"recipe.optimizer": "sgd"}, "percent"),
        _sweep(28, "recipe.lr", MOMENTUM_RATES, {"recipe.optimizer": "momentum"}, "percent"),
        _sweep(29, "prune.rate", (0.1, 0.2, 0.4, 0.6, 0.8), {}, "percent"),
        _sweep(30, "model.init_sigma", SIGMAS, {}, "percent"),
        _sweep(31, "model.layers", SIZES, {}, "thousands"),
        _kinds(37),
    ]
    by_number = {figure.number: figure for figure in written}
    return {number: by_number.get(number) or _read(number) for number in ABOUT}


# ---------------------------------------------------------------------------------------- panels read off the paper


def _read(number: int) -> PaperFigure:
    """A figure with the panels and series of its rows in the paper's curves."""
    shown = [curve for curve in curves() if curve.figure == str(number)]
    return PaperFigure(
        number,
        ABOUT[number],
        panels=tuple(_panel(title, tuple(group)) for title, group in groupby(shown, lambda curve: curve.panel)),
        trials=IN_APPENDICES_G_TO_I if number >= 26 else None,
        by_test=str(number) in BY_TEST,
        count=_twice if number == 1 else _count,
    )


def _twice(of: Setup, role: str) -> int:
    """Figure 1 has two random masks per ticket."""
    return 2


def _count(of: Setup, role: str) -> int:
    """The number of trainings of a branch per ticket; one for the deep networks."""
    deep = experiment(of).model.name in ("resnet18", "vgg19")
    return 1 if deep else COUNTS.get(role, 1)


def _panel(title: str, shown: tuple[Curve, ...]) -> Panel:
    axis: Axis = "percent" if shown[0].level else "iteration"
    if title.startswith("c one-shot"):
        axis = "linear percent"
    lines = tuple(Line(c.series, c.setup, c.role, None if c.level else level_at(c.percent or 100)) for c in shown)
    return Panel(_without_quantity(title), axis, shown[0].column, lines, shown)


def _without_quantity(title: str) -> str:
    """The name of a panel without its letter and its quantity, which the panel's title contains."""
    quantity = r"ES iter \(\w+\)|acc@\S+( (test|train|val))?|\bES\b|test acc|val loss|\bleft|\bmiddle|\bright|\b\d+K$"
    words = " ".join(re.sub(quantity, "", title).split())
    return {"Conv": "Conv-2, 4, 6", "c one-shot": "one-shot"}.get(words, re.sub(r"^[abc]$", "", words))


def level_at(percent: float) -> int:
    """The level at which LeNet, pruned as in section 2, has approximately this percentage of its weights."""
    return round(math.log(percent / 100) / math.log(0.8))


# ----------------------------------------------------------------------------------------------- figures without rows


def _portraits(number: int, kind: Any, of: Setup, levels: Iterable[int]) -> PaperFigure:
    return PaperFigure(number, ABOUT[number], portraits=tuple(Portrait(kind, of, level) for level in levels))


def _sweep(number: int, key: str, values: Iterable[Any], settings: Mapping[str, Any], axis: Axis) -> PaperFigure:
    """Figures 26 to 31: early stop and validation accuracy there, one line per value of a setting."""
    lines = tuple(_line(format_setting(value), setup("lenet", {**settings, key: value})) for value in values)
    panels = tuple(Panel("", axis, column, lines) for column in EARLY_STOP)
    return PaperFigure(number, ABOUT[number], panels=panels, trials=IN_APPENDICES_G_TO_I, count=_count)


def _line(label: str, of: Setup) -> Line:
    return Line(label, of, last=levels_of(of))


def format_setting(value: Any) -> str:
    """The value of a setting in a legend: 0.0008, or `25, 9` for layers."""
    if value is None:
        return "glorot"
    return ", ".join(map(str, value)) if isinstance(value, tuple | list) else f"{value:g}"


def _kinds(number: int) -> PaperFigure:
    """Figure 37: only convolutions pruned, only fully connected layers, or both."""
    ways = {"both": None, "fully connected only": ("fc", "output"), "convolutions only": ("conv",)}
    panels = []
    for network, preset in NETWORKS.items():
        if not preset.startswith("conv"):
            continue
        changes = {label: {"prune.groups": groups} if groups else {} for label, groups in ways.items()}
        lines = tuple(_line(label, setup(preset, change)) for label, change in changes.items())
        for column in ("early_stop_iteration", "test_accuracy_at_early_stop"):
            panels.append(Panel(network, "linear thousands", column, lines))
    return PaperFigure(number, ABOUT[number], panels=tuple(panels), count=_count)


def levels_of(of: Setup) -> int:
    """The number of levels of a setup in a figure without rows.

    LeNet: to about 1,300 weights (figure 31) at its own rate and size, but not so far that a layer could lose its last
    weight.
    """
    whole = experiment(of)
    if whole.model.name != "lenet":
        return whole.levels
    sizes = [784, *(whole.model.layers or ()), 10]
    weights = [a * b for a, b in pairwise(sizes)]
    rate = whole.prune.rate
    to_1300 = math.log(sum(weights) / 1300) / -math.log(1 - rate)
    last_but_one = min(math.log(n) for n in weights[:-1]) / -math.log(1 - rate)
    return max(1, math.floor(min(to_1300, last_but_one)))
