"""The paper's figures as data: which trainings each is made of, and what stands in its panels.

A figure whose curves were read off the paper (`curves.py`) has their panels and series, so that what is drawn over a
grey line is what that line shows. Figures 26 to 31 and 37, and those of what is inside a ticket (15, 16, 19 to 24), are
written out here. Figure 2 is a table.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import groupby, pairwise
from typing import Any, Literal, NamedTuple

from lth.papers.curves import NETWORKS, Curve, curves
from lth.papers.setups import Setup, experiment, setup

Axis = Literal["percent", "linear percent", "thousands", "linear thousands", "iteration"]
EARLY_STOP = ("early_stop_iteration", "val_accuracy_at_early_stop")

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
IN_APPENDICES_G_TO_I = 3  # trials: "three experiments" a line in figures 26 to 45
COUNTS = {"reinit": 3, "random-mask": 1}  # branches a ticket (section 2); others 1, and 1 for the deep networks


class Line(NamedTuple):
    """One series: what it is called, and which trainings it is made of."""

    label: str
    setup: Setup
    role: str = "ticket"  # or the branch that plays it
    level: int | None = None  # where x is the iteration


@dataclass(frozen=True)
class Panel:
    """Axes, what is drawn on them, and the paper's own curves behind."""

    title: str
    axis: Axis
    column: str  # of summary.csv, or of curves.csv where x is the iteration
    lines: tuple[Line, ...]
    paper: tuple[Curve, ...] = ()


@dataclass(frozen=True)
class Portrait:
    """A panel of what is inside tickets, at one level: a histogram for each layer, trials taken together."""

    kind: Literal["starts", "movement", "growth", "incoming", "outgoing"]
    setup: Setup
    level: int


@dataclass(frozen=True)
class Need:
    """How much of a setup a figure needs: levels 0 to `levels`, and by branch (count, last level)."""

    levels: int
    branches: Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class PaperFigure:
    """A figure: its panels, and how many trials the paper has where that is not the preset's number."""

    number: int
    panels: tuple[Panel, ...] = ()
    portraits: tuple[Portrait, ...] = ()
    trials: int | None = None
    by_test: bool = False  # its early stop is the iteration of minimum test loss, not validation loss

    @property
    def about(self) -> str:
        return ABOUT[self.number]

    def needs(self) -> dict[Setup, Need]:
        """By setup, in the order of the panels, what has to be trained."""
        found: dict[Setup, dict[str, int]] = {}
        for panel in self.panels:
            deepest = {(c.setup, c.role): max(c.level) for c in panel.paper if c.level}
            for line in panel.lines:
                last = deepest.get((line.setup, line.role), levels_of(line.setup)) if line.level is None else line.level
                roles = found.setdefault(line.setup, {})
                roles[line.role] = max(last, roles.get(line.role, 0))
        for portrait in self.portraits:
            roles = found.setdefault(portrait.setup, {})
            roles["ticket"] = max(portrait.level, roles.get("ticket", 0))
        return {of: self._need(of, roles) for of, roles in found.items()}

    def _need(self, of: Setup, roles: Mapping[str, int]) -> Need:
        deep = experiment(of).model.name in ("resnet18", "vgg19")
        count = lambda role: 2 if self.number == 1 else 1 if deep else COUNTS.get(role, 1)
        branches = {role: (count(role), last) for role, last in roles.items() if role != "ticket" and last}
        return Need(max(roles.values()), branches)


# ---------------------------------------------------------------------------------------- panels read off the paper


def _read(number: int) -> PaperFigure:
    """A figure with the panels and series of its rows in the paper's curves."""
    own = [curve for curve in curves() if curve.figure == str(number)]
    panels = tuple(_panel(title, tuple(found)) for title, found in groupby(own, lambda curve: curve.panel))
    return PaperFigure(
        number,
        panels=panels,
        trials=IN_APPENDICES_G_TO_I if number >= 26 else None,
        by_test=number in (17, 18, 25),
    )


def _panel(title: str, found: tuple[Curve, ...]) -> Panel:
    first = found[0]
    axis: Axis = "percent" if first.level else "iteration"
    if title.startswith("c one-shot"):
        axis = "linear percent"
    lines = tuple(Line(c.series, c.setup, c.role, None if c.level else level_at(c.percent or 100)) for c in found)
    return Panel(_without_quantity(title), axis, first.column, lines, found)


def _without_quantity(title: str) -> str:
    """What a panel's name says beside its quantity, which its axis says."""
    quantity = r"ES iter \(\w+\)|acc@\S+( (test|train|val))?|\bES\b|test acc|val loss|\bleft|\bmiddle|\bright|\b\d+K$"
    return " ".join(re.sub(quantity, "", title).split())


def level_at(percent: float) -> int:
    """The level at which LeNet, pruned as in section 2, keeps about this percent of its weights."""
    return round(math.log(percent / 100) / math.log(0.8))


# ----------------------------------------------------------------------------------------------- figures without rows


def _sweep(number: int, key: str, values: Iterable[Any], settings: Mapping[str, Any], axis: Axis) -> PaperFigure:
    """Figures 26 to 31: early stop and validation accuracy there, a line for each value of one setting."""
    lines = tuple(Line(said(value), setup("lenet", {**settings, key: value})) for value in values)
    panels = tuple(Panel("", axis, column, lines) for column in EARLY_STOP)
    return PaperFigure(number, panels=panels, trials=IN_APPENDICES_G_TO_I)


def said(value: Any) -> str:
    """A setting's value in a legend: 0.0008, `25, 9` for layers."""
    if value is None:
        return "glorot"
    return ", ".join(map(str, value)) if isinstance(value, tuple | list) else f"{value:g}"


def _kinds(number: int) -> PaperFigure:
    """Figure 37: convolutions alone pruned, fully connected layers alone, or both."""
    ways = {"both": None, "fully connected only": ("fc", "output"), "convolutions only": ("conv",)}
    panels = []
    for network, preset in NETWORKS.items():
        if not preset.startswith("conv"):
            continue
        lines = tuple(
            Line(label, setup(preset, {"prune.groups": groups} if groups else {})) for label, groups in ways.items()
        )
        for column in ("early_stop_iteration", "test_accuracy_at_early_stop"):
            panels.append(Panel(network, "linear thousands", column, lines))
    return PaperFigure(number, panels=tuple(panels))


def levels_of(of: Setup) -> int:
    """How many levels of a setup a figure without rows shows.

    LeNet: to about 1,300 weights (figure 31) at its own rate and size, but not so far that a layer could lose its last.
    """
    found = experiment(of)
    if found.model.name != "lenet":
        return found.levels
    sizes = [784, *(found.model.layers or ()), 10]
    weights = [a * b for a, b in pairwise(sizes)]
    rate = found.prune.rate
    to_1300 = math.log(sum(weights) / 1300) / -math.log(1 - rate)
    last_but_one = min(math.log(n) for n in weights[:-1]) / -math.log(1 - rate)
    return max(1, math.floor(min(to_1300, last_but_one)))


SGD = setup("lenet", {"recipe.optimizer": "sgd", "recipe.lr": 0.8})
LENET = Setup("lenet")
SIZES = ((25, 9), (50, 17), (100, 34), (150, 50), (200, 67), (300, 100), (400, 134), (500, 167), (700, 233), (900, 300))
ADAM_RATES = (2.5e-05, 5e-05, 0.0002, 0.0008, 0.0012, 0.002, 0.0032, 0.0064)
SGD_RATES = (0.003125, 0.00625, 0.0125, 0.025, 0.1, 0.4, 0.8, 1.2)
MOMENTUM_RATES = (0.003125, 0.0125, 0.025, 0.05, 0.1, 0.2, 0.4)
SIGMAS = (0.0125, 0.025, 0.05, 0.1, 0.2, 0.4, None)


def _portraits(number: int, kind: Any, of: Setup, levels: Iterable[int]) -> PaperFigure:
    return PaperFigure(number, portraits=tuple(Portrait(kind, of, level) for level in levels))


@cache
def figures() -> dict[int, PaperFigure]:
    """All figures of the paper that show results, by number."""
    written = [
        _portraits(15, "starts", LENET, (0, 4, 8, 12)),
        _portraits(16, "starts", SGD, (0, 4, 8, 12)),
        _portraits(19, "movement", LENET, (8,)),
        _portraits(20, "growth", LENET, (8,)),
        _portraits(21, "incoming", LENET, (4, 8, 12)),
        _portraits(22, "incoming", SGD, (4, 8, 12)),
        _portraits(23, "outgoing", LENET, (4, 8, 12)),
        _portraits(24, "outgoing", SGD, (4, 8, 12)),
        _sweep(26, "recipe.lr", ADAM_RATES, {}, "percent"),
        _sweep(27, "recipe.lr", SGD_RATES, {"recipe.optimizer": "sgd"}, "percent"),
        _sweep(28, "recipe.lr", MOMENTUM_RATES, {"recipe.optimizer": "momentum"}, "percent"),
        _sweep(29, "prune.rate", (0.1, 0.2, 0.4, 0.6, 0.8), {}, "percent"),
        _sweep(30, "model.init_sigma", SIGMAS, {}, "percent"),
        _sweep(31, "model.layers", SIZES, {}, "thousands"),
        _kinds(37),
    ]
    known = {figure.number: figure for figure in written}
    return {number: known.get(number) or _read(number) for number in ABOUT}
