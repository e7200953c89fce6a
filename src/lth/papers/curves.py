"""The paper's curves: what each series of each figure shows, in our words, and which stand behind a run's own."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import NamedTuple

import pandas as pd

from lth.config import Experiment
from lth.papers.setups import Setup, fit, role_of, setup
from lth.results.records import Records

FILE = "reference_curves.csv.gz"
SERIES = ("figure", "panel", "metric", "series")
# Where several figures show one curve, it is taken from the first of these.
ORDER = (
    "4",
    "5",
    "7",
    "8",
    "6",
    "1",
    "14",
    "12",
    "13",
    "9",
    "10",
    "40",
    "41",
    "38",
    "39",
    "32",
    "33",
    "34",
    "35",
    "36",
)
ORDER += ("42", "43", "44", "45", "3", "11")
BY_TEST = ("17", "18", "25")  # here the paper takes the iteration of minimum test loss for the early-stop iteration

METRICS = {  # what an axis says -> the column of summary.csv, or of curves.csv for the last two
    "Early-Stop Iteration (Val.)": "early_stop_iteration",
    "Early-Stop Iteration (Test)": "early_stop_iteration",
    "Accuracy at Early-Stop (Test)": "test_accuracy_at_early_stop",
    "Accuracy at Early-Stop (Train)": "train_accuracy_at_early_stop",
    "Accuracy at Early-Stop (Val.)": "val_accuracy_at_early_stop",
    "Accuracy at Iteration 50K (Test)": "final_test_accuracy",
    "Accuracy at Iteration 20/25/30K (Test)": "final_test_accuracy",
    "Test Accuracy at Final Iteration": "final_test_accuracy",
    "Accuracy at Iteration 50000 (Train)": "final_train_accuracy",
    "Accuracy at Iteration 20/25/30K (Train)": "final_train_accuracy",
    "Test Accuracy": "test_accuracy",
    "Validation Loss": "val_loss",
}
NETWORKS = {"Conv-2": "conv2", "Conv-4": "conv4", "Conv-6": "conv6", "Resnet-18": "resnet18", "VGG-19": "vgg19"}
DEEP = {  # network, learning rate, warmup -> preset
    ("resnet18", 0.1, 0): "resnet18",
    ("resnet18", 0.01, 0): "resnet18-lr0.01",
    ("resnet18", 0.03, 20000): "resnet18-warmup",
    ("vgg19", 0.1, 0): "vgg19",
    ("vgg19", 0.01, 0): "vgg19-lr0.01",
    ("vgg19", 0.1, 10000): "vgg19-warmup",
}


@dataclass(frozen=True)
class Curve:
    """A series of a figure: at each x a mean, and the ends of its error bar (the mean itself where none is known).

    x is the percent of weights remaining, and `level` the level there; in figures 3 and 11 x is the iteration, and
    `percent` says which network it is.
    """

    figure: str
    panel: str
    series: str
    setup: Setup
    role: str  # ticket, or a branch's name: reinit, random-mask, noise-0.5, ...
    column: str
    x: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    level: tuple[int, ...] = ()
    percent: float | None = None

    @property
    def label(self) -> str:
        return "the paper" if self.role == "ticket" else f"the paper: {self.role}"

    @property
    def means(self) -> dict[int, float]:
        return dict(zip(self.level, self.mean, strict=True))


@cache
def table() -> pd.DataFrame:
    """All that was read off the paper's figures, as reference_curves.md describes it; do not change it."""
    with resources.files("lth.papers").joinpath(FILE).open("rb") as file:
        return pd.read_csv(file, compression="gzip", dtype={"figure": str})


@cache
def curves() -> tuple[Curve, ...]:
    """Every series, in the file's order."""
    return tuple(_curve(rows) for _, rows in table().groupby(list(SERIES), sort=False))


@cache
def setups() -> tuple[Setup, ...]:
    """Every experiment that the paper shows a curve of."""
    return tuple(dict.fromkeys(curve.setup for curve in curves()))


def _curve(rows: pd.DataFrame) -> Curve:
    figure, panel, metric, series = (str(rows[name].iloc[0]) for name in SERIES)
    of, role = _shown(figure, panel, series)
    by_iteration = bool(rows["level"].isna().all())
    rows = rows.sort_values("x" if by_iteration else "level")
    x, mean = (tuple(rows[name].tolist()) for name in ("x" if by_iteration else "weights_remaining_percent", "mean"))
    low, high = (tuple(rows[name].fillna(rows["mean"]).tolist()) for name in ("min", "max"))
    level = () if by_iteration else tuple(int(n) for n in rows["level"])
    percent = float(series.split()[0]) if by_iteration else None
    return Curve(figure, panel, series, of, role, _column(metric), x, mean, low, high, level, percent)


def _column(metric: str) -> str:
    at = re.fullmatch(r"(Test|Val\.) Accuracy \((\d+)K\)", metric)
    return f"{at[1].lower().rstrip('.')}_accuracy_at_{at[2]}000" if at else METRICS[metric]


# --------------------------------------------------------------------------- panel and series -> experiment and role


def _shown(figure: str, panel: str, series: str) -> tuple[Setup, str]:
    """What a series shows: which experiment, and which of its trainings."""
    reader = next(read for figures, read in READERS.items() if figure in figures)
    return reader(figure, panel, series)


def _both(figure: str, panel: str, series: str) -> tuple[Setup, str]:
    network, _, random = series.partition(" , ")
    role = "random-mask" if random else "ticket"
    if network == "Lenet":
        return Setup("lenet"), role
    return setup(NETWORKS[network], {"prune.conv_rate": 0.1}), role


def _lenet(figure: str, panel: str, series: str) -> tuple[Setup, str]:
    preset = "lenet-oneshot" if "Oneshot" in series else "lenet"
    return Setup(preset), "reinit" if "reinit" in series.lower() else "ticket"


def _conv(figure: str, panel: str, series: str) -> tuple[Setup, str]:
    network, _, rest = series.partition(" ")
    preset = NETWORKS[network] + ("-dropout" if rest == "dropout" else "")
    return Setup(preset), "reinit" if rest == "reinit" else "ticket"


def _strategies(figure: str, panel: str, series: str) -> tuple[Setup, str]:
    continued = "continued" in series
    if figure == "9":
        return Setup("lenet-continued" if continued else "lenet"), "ticket"
    strategy = "continued" if continued else "resetting"
    return setup(NETWORKS[series.split()[0]], {"strategy": strategy}), "ticket"


def _random(figure: str, panel: str, series: str) -> tuple[Setup, str]:
    role = {"original": "ticket", "random reinitialization": "reinit", "random sparsity": "random-mask"}
    network, _, rest = panel.partition(" ")
    lr, _, warmup = rest.strip("()").partition(", warmup ")
    of = _deep(NETWORKS[network], float(lr), int(warmup or 0)) if lr else Setup(NETWORKS.get(network, "lenet"))
    return of, role[series.replace(" initialization", "")]


def _starts(figure: str, panel: str, series: str) -> tuple[Setup, str]:
    names = {
        "winning ticket": "ticket",
        "Iterative Pruning": "ticket",
        "reinit": "reinit",
        "Reinit": "reinit",
        "sampled from ticket": "sampled",
        "Prune at Iteration 0": "prune-at-0",
    }
    noise = re.fullmatch(r"noise ([\d.]+)", series)
    return Setup("lenet"), f"noise-{float(noise[1]):g}" if noise else names[series]


def _sweep(figure: str, panel: str, series: str) -> tuple[Setup, str]:
    """Learning rates of the three optimizers, with all convolutions pruned by 10% a level, and of dropout; rates."""
    preset = NETWORKS[panel.split()[0]] + ("-dropout" if figure == "36" else "")
    if figure == "35":
        return setup(preset, {"prune.conv_rate": float(series)}), "ticket"
    own = {"32": {"prune.conv_rate": 0.1}, "36": {}}
    own |= {n: {"prune.conv_rate": 0.1, "recipe.optimizer": o} for n, o in (("33", "sgd"), ("34", "momentum"))}
    return setup(preset, own[figure] | {"recipe.lr": float(series)}), "ticket"


def _deep_networks(figure: str, panel: str, series: str) -> tuple[Setup, str]:
    network = "vgg19" if figure in ("7", "38", "40", "43", "45") else "resnet18"
    read = re.fullmatch(r"rate ([\d.]+)(?:, warmup (\d+)(K?))?( , rand reinit| \(global\)| \(layerwise\))?", series)
    assert read, series
    lr, warmup = float(read[1]), int(read[2] or 0) * (1000 if read[3] else 1)
    if network == "vgg19" and figure == "38" and warmup:
        lr = 0.1  # the legend says 0.03; see reference_curves.md
    layerwise = figure in ("40", "41") or "layerwise" in series
    return _deep(network, lr, warmup, layerwise), "reinit" if "reinit" in series else "ticket"


def _deep(network: str, lr: float, warmup: int, layerwise: bool = False) -> Setup:
    """A deep network's preset where there is one for its learning rate and warmup, else what is changed in another."""
    scope = {"prune.scope": "layerwise"} if layerwise else {}
    if preset := DEEP.get((network, lr, warmup)):
        return setup(preset, scope)
    return setup(network, scope | {"recipe.lr": lr, "recipe.warmup": warmup})


READERS: dict[Collection[str], Callable[[str, str, str], tuple[Setup, str]]] = {
    ("1",): _both,
    ("3", "4", "11", "12"): _lenet,
    ("5", "6", "13"): _conv,
    ("9", "10"): _strategies,
    ("14",): _random,
    BY_TEST: _starts,
    ("32", "33", "34", "35", "36"): _sweep,
    ("7", "8", "38", "39", "40", "41", "42", "43", "44", "45"): _deep_networks,
}


# ------------------------------------------------------------------------------------------------------------- choosing


class Key(NamedTuple):
    setup: Setup
    role: str
    column: str


@cache
def by_density(figures: Collection[str] = ORDER) -> dict[Key, Curve]:
    """The curves against density of `figures`, one for each experiment, role and column: the first figure's."""
    found: dict[Key, Curve] = {}
    for curve in sorted(
        (c for c in curves() if c.level and c.figure in figures), key=lambda c: figures_order(c.figure)
    ):
        found.setdefault(Key(curve.setup, curve.role, curve.column), curve)
    return found


def figures_order(figure: str) -> int:
    return (*ORDER, *BY_TEST).index(figure)


def roles() -> tuple[str, ...]:
    return tuple(dict.fromkeys(curve.role for curve in curves()))


def comparable(column: str, other_length: bool, scheduled: bool) -> bool:
    """Whether a column of a run of another length than the paper's can be held against the paper's.

    What happens at early stop can, where the learning rate is constant: the longer training then begins as the shorter
    one. What is read at a fixed iteration cannot.
    """
    return not other_length or (not scheduled and "early_stop" in column)


def latest_early_stop(of: Setup, role: str, level: int) -> float:
    """The latest early stop of the paper's trainings there, as its error bar has it.

    A training that ends later than this would have had the same early stop. Curves leave the plotted range upwards, so
    that it is infinite where one has no point; 0 where no figure shows the early stops of a role, or that level yet.
    """
    for figures in (ORDER, BY_TEST):
        if curve := by_density(figures).get(Key(of, role, "early_stop_iteration")):
            latest = dict(zip(curve.level, curve.high, strict=True))
            return latest.get(level, math.inf if level > curve.level[0] else 0.0)
    return 0.0


def behind(experiment: Experiment, column: str, figure: str | None = None) -> list[Curve]:
    """The paper's curves of a column of summary.csv that belong behind a run's own, the ticket's first.

    Empty where the run is none of the paper's experiments, or the column cannot be compared. `figure`: as that figure
    has them; else as the first that shows them.
    """
    found = fit(experiment, setups())
    if found.setup is None or not comparable(column, found.iterations is not None, found.scheduled):
        return []
    known, recipe = by_density((figure,) if figure else ORDER), experiment.recipe
    scheduled = bool(recipe.warmup or recipe.drops)
    played = {"ticket": recipe.iterations}  # how long the trainings of each role are
    for branch in experiment.branch:
        length, role = branch.iterations or recipe.iterations, role_of(experiment, branch.name, roles())
        if role and comparable(column, length != recipe.iterations, scheduled):
            played.setdefault(role, length)
    theirs = found.iterations[0] if found.iterations else recipe.iterations
    drawn = [(known[key], n) for role, n in played.items() if (key := Key(found.setup, role, column)) in known]
    drawn = [(_ended_by(curve, length) if length < theirs else curve) for curve, length in drawn]
    return [curve for curve in drawn if curve.x]


def _ended_by(curve: Curve, iterations: int) -> Curve:
    """The levels of a curve at which all of the paper's early stops come within so many iterations."""
    ended = [latest_early_stop(curve.setup, curve.role, level) <= iterations for level in curve.level]
    return _kept(curve, ended)


def behind_runs(runs: Sequence[Records], column: str) -> list[tuple[str, Curve]]:
    """The same for several runs over each other, each curve once and with its label, no further than the runs go."""
    percents = [100 * float(d) for run in runs for d in run.summary["density"] if d > 0]
    found = dict.fromkeys(curve for run in runs for curve in behind(run.experiment, column))
    several = len({curve.setup for curve in found}) > 1
    label = lambda curve: f"{curve.label} ({curve.setup.said})" if several else curve.label
    parts = [(label(curve), part(curve, percents)) for curve in found] if percents else []
    return [(said, curve) for said, curve in parts if curve.x]


def by_iteration(experiment: Experiment, column: str) -> list[Curve]:
    """The paper's curves of a column of curves.csv by iteration: figures 3 and 11, of lenet alone; each once."""
    found = fit(experiment, setups())
    chosen = {(c.percent, c.role): c for c in curves() if not c.level and (c.setup, c.column) == (found.setup, column)}
    return [] if found.iterations else list(chosen.values())


def part(curve: Curve, percents: Collection[float]) -> Curve:
    """The part of a curve against density that lies within a run's own percents, so that it stretches no axis."""
    least, most = 0.99 * min(percents), 1.01 * max(percents)
    return _kept(curve, [least <= x <= most for x in curve.x])


def _kept(curve: Curve, keep: Sequence[bool]) -> Curve:
    """A curve against density without the points that are not to be kept."""
    parts = {name: getattr(curve, name) for name in ("x", "mean", "low", "high", "level")}
    return replace(curve, **{name: tuple(itertools.compress(values, keep)) for name, values in parts.items()})
