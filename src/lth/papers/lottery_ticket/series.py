"""The curves of the paper's figures: the series of reference_curves.csv.gz, and the quantity of each.

reference_curves.md describes the origin of the numbers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from functools import cache
from importlib import resources
from math import isnan
from typing import Any

import pandas as pd

from lth.papers.curves import Curve
from lth.papers.lottery_ticket.setups import NETWORKS, deep
from lth.papers.setups import Setup, setup

FILE = "reference_curves.csv.gz"
SERIES = ("figure", "panel", "metric", "series")
ORDER = (  # order of figures: a curve that several of them show is taken from the first
    *("4", "5", "7", "8", "6", "1", "14", "12", "13", "9", "10", "40", "41", "38", "39"),
    *("32", "33", "34", "35", "36", "42", "43", "44", "45", "3", "11"),
)
BY_TEST = ("17", "18", "25")  # figures in which early stop is at the minimum of the test loss
METRICS = {  # label of an axis -> column of summary.csv, or of curves.csv for the last two
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


@cache
def table() -> pd.DataFrame:
    """All points that were read from the paper's figures, as described in reference_curves.md; read-only."""
    with resources.files("lth.papers.lottery_ticket").joinpath(FILE).open("rb") as file:
        return pd.read_csv(file, compression="gzip", dtype={"figure": str})


@cache
def curves() -> tuple[Curve, ...]:
    """Every series, in the order of the file."""
    groups: dict[tuple[str, ...], list[Any]] = {}
    for row in table().itertuples(index=False):
        groups.setdefault(tuple(getattr(row, name) for name in SERIES), []).append(row)
    return tuple(_curve(name, rows) for name, rows in groups.items())


def _curve(name: tuple[str, ...], rows: list[Any]) -> Curve:
    figure, panel, metric, series = name
    of, role = _shown(figure, panel, series)
    by_iteration = all(isnan(row.level) for row in rows)
    rows = sorted(rows, key=lambda row: row.x if by_iteration else row.level)
    x = tuple(row.x if by_iteration else row.weights_remaining_percent for row in rows)
    mean = tuple(row.mean for row in rows)
    ends = ([row.min for row in rows], [row.max for row in rows])
    low, high = (tuple(m if isnan(end) else end for end, m in zip(these, mean, strict=True)) for these in ends)
    level = () if by_iteration else tuple(int(row.level) for row in rows)
    percent = float(series.split()[0]) if by_iteration else None
    return Curve(figure, panel, series, of, role, _column(metric), x, mean, low, high, level, percent)


def _column(metric: str) -> str:
    at = re.fullmatch(r"(Test|Val\.) Accuracy \((\d+)K\)", metric)
    return f"{at[1].lower().rstrip('.')}_accuracy_at_{at[2]}000" if at else METRICS[metric]


def _shown(figure: str, panel: str, series: str) -> tuple[Setup, str]:
    """The experiment that a series shows, and the role of its trainings."""
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
    of = deep(NETWORKS[network], float(lr), int(warmup or 0)) if lr else Setup(NETWORKS.get(network, "lenet"))
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
    changes = {"32": {"prune.conv_rate": 0.1}, "36": {}}
    changes |= {n: {"prune.conv_rate": 0.1, "recipe.optimizer": o} for n, o in (("33", "sgd"), ("34", "momentum"))}
    return setup(preset, changes[figure] | {"recipe.lr": float(series)}), "ticket"


def _deep_networks(figure: str, panel: str, series: str) -> tuple[Setup, str]:
    network = "vgg19" if figure in ("7", "38", "40", "43", "45") else "resnet18"
    read = re.fullmatch(r"rate ([\d.]+)(?:, warmup (\d+)(K?))?( , rand reinit| \(global\)| \(layerwise\))?", series)
    assert read, series
    lr, warmup = float(read[1]), int(read[2] or 0) * (1000 if read[3] else 1)
    if network == "vgg19" and figure == "38" and warmup:
        lr = 0.1  # the legend's 0.03 is wrong; see reference_curves.md
    layerwise = figure in ("40", "41") or "layerwise" in series
    return deep(network, lr, warmup, layerwise), "reinit" if "reinit" in series else "ticket"


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
