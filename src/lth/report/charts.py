"""The values of the charts as lists and dicts for the page's script, computed from the tables of runs.

Against density: the same means, minima and maxima as in the figures. By iteration: means over trials, thinned to the
resolution of a screen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from lth.config import TASKS
from lth.results import verdict
from lth.results.captions import quantity_label, run_names
from lth.results.early_stops import unreached_at
from lth.results.looks import FAMILIES
from lth.results.metrics import metrics_of
from lth.results.records import PLACE, Records
from lth.results.series import pick_levels
from lth.results.statistics import aggregate, branch_order, family

MOST_POINTS = 120  # maximum number of points of a curve by iteration
BY_ITERATION = ("val_loss", "test_loss", "val_accuracy", "test_accuracy")
LAST = {"final_val_loss": "val_loss", "final_test_loss": "test_loss"}  # computed from the last row of each curve
LABELS = {
    "val_loss_at_early_stop": "validation loss at early stop",
    "final_val_loss": "validation loss at the last iteration",
    "final_test_loss": "test loss at the last iteration",
    "val_accuracy_at_early_stop": "validation accuracy at early stop",
    "final_val_accuracy": "validation accuracy at the last iteration",
    "seconds": "seconds of a training",
}


@dataclass(frozen=True)
class Line:
    """A curve against density: at each percentage of weights, a mean, low and high over n trainings."""

    label: str
    percent: list[float]
    mean: list[float]
    low: list[float]
    high: list[float]
    n: list[int] = field(default_factory=list)
    level: list[int] = field(default_factory=list)
    weights: list[int] = field(default_factory=list)
    run: int = 0
    family: str = ""
    winning: int | None = None  # the winning level, on the tickets' curve
    late: list[int] = field(default_factory=list)  # levels whose early stop was not reached


@dataclass(frozen=True)
class Chart:
    """A panel that shows one of several quantities at a time, with the papers' curves behind it."""

    id: str
    title: str
    about: str
    quantities: tuple[str, ...]


CHARTS = (
    Chart(
        "accuracy",
        "Accuracy",
        "At early stop: with the weights of lowest validation loss, those that would be kept.",
        (
            "test_accuracy_at_early_stop",
            "final_test_accuracy",
            "train_accuracy_at_early_stop",
            "final_train_accuracy",
            "val_accuracy_at_early_stop",
            "final_val_accuracy",
        ),
    ),
    Chart(
        "early-stop",
        "Early stop",
        "The iteration of lowest validation loss: how soon a network has learned what it can.",
        ("early_stop_iteration",),
    ),
    Chart(
        "loss",
        "Loss",
        "{loss}; lower is better.",
        ("test_loss_at_early_stop", "val_loss_at_early_stop", *LAST, "train_loss_at_early_stop", "final_train_loss"),
    ),
    Chart(
        "seconds", "Time", "Seconds that one training took, evaluations included, on the machine below.", ("seconds",)
    ),
)


def label(quantity: str) -> str:
    """A quantity in words."""
    return LABELS.get(quantity) or quantity_label(quantity)


def kind(quantity: str) -> str:
    """The format of a quantity: `accuracy` (a fraction, shown in percent), `iteration`, `seconds` or `loss`."""
    kinds = {"early_stop_iteration": "iteration", "seconds": "seconds"}
    return kinds.get(quantity) or ("accuracy" if "accuracy" in quantity else "loss")


# ------------------------------------------------------------------------------------------------------ against density


def by_density(runs: Sequence[Records]) -> list[tuple[Chart, dict[str, list[Line]]]]:
    """Each chart with the lines of its quantities, without quantities that have no data."""
    at = sorted({n for run in runs for n in run.experiment.recipe.report_at})
    further = {m: tuple(f"{kind}_{m}_at_{n}" for n in at for kind in ("test", "val")) for m in ("accuracy", "loss")}
    summaries = [with_last(run) for run in runs]
    drawn = []
    for chart in charts_of(runs):
        quantities = chart.quantities + further.get(chart.id, ())
        lines = {quantity: overlaid(runs, summaries, quantity) for quantity in quantities}
        if lines := {quantity: some for quantity, some in lines.items() if some}:
            drawn.append((chart, lines))
    return drawn


def charts_of(runs: Sequence[Records]) -> list[Chart]:
    """The charts, beginning with the metric of the runs."""
    first = metrics_of([run.experiment for run in runs])[0].name
    loss = " or ".join(dict.fromkeys(TASKS[run.experiment.data.task].loss for run in runs))
    charts = [replace(chart, about=chart.about.format(loss=loss)) for chart in CHARTS]
    return sorted(charts, key=lambda chart: chart.id != first)


def with_last(run: Records) -> pd.DataFrame:
    """The summary with the losses at the last evaluation of each training."""
    last = run.curves.sort_values("iteration", kind="stable").groupby(list(PLACE))[list(LAST.values())].last()
    known = [name for name in LAST if name in run.summary]  # for a run that is judged by them
    last = last.set_axis(list(LAST), axis=1).drop(columns=known)
    return run.summary.merge(last.reset_index(), "left", list(PLACE))


def overlaid(runs: Sequence[Records], summaries: Sequence[pd.DataFrame], quantity: str) -> list[Line]:
    """The lines of a quantity: for each run, one for the tickets and one per branch."""
    lines = []
    for i, (name, summary) in enumerate(zip(run_names(runs), summaries, strict=True)):
        if quantity not in summary:
            continue
        table = aggregate(summary, quantity)
        winning = verdict.of(runs[i]).winning
        unreached = unreached_at(summary) if "early_stop" in quantity else {}
        for branch in dict.fromkeys(table["family"]):
            rows = table.loc[(table["family"] == branch) & (table["density"] > 0)]
            late = [level for level in rows["level"].tolist() if branch in unreached.get(level, ())]
            columns = {c: rows[c].tolist() for c in ("mean", "min", "max", "n", "level", "weights")}
            lines.append(
                Line(
                    label=branch if len(runs) == 1 else f"{name}: {branch}",
                    percent=[100 * density for density in rows["density"]],
                    mean=columns["mean"],
                    low=columns["min"],
                    high=columns["max"],
                    n=columns["n"],
                    level=columns["level"],
                    weights=[round(w) for w in columns["weights"]],
                    run=i,
                    family=branch,
                    winning=winning if branch == "ticket" else None,
                    late=late,
                )
            )
    return lines


def looks(runs: Sequence[Records]) -> dict[str, dict[str, Any]]:
    """The series of the page: `RUN/BRANCH` -> its name and the numbers of its colour, marker and line style.

    The branch decides the colour. If runs are overlaid, the run decides the colour and the branch the line style.
    """
    names = sorted({family(b) for run in runs for b in run.summary["branch"].unique()}, key=branch_order)
    order = [name for name in FAMILIES if name in names] + [name for name in names if name not in FAMILIES]
    fixed = {name: FAMILIES.index(name) if name in FAMILIES else len(FAMILIES) + order.index(name) for name in order}
    series = {}
    for i, (run, run_name) in enumerate(zip(runs, run_names(runs), strict=True)):
        present = {family(b) for b in run.summary["branch"].unique()}
        for name in (name for name in order if name in present):
            colour = fixed[name] if len(runs) == 1 else i
            shown = name if len(runs) == 1 else f"{run_name}: {name}"
            series[f"{i}/{name}"] = {"name": shown, "colour": colour, "line": fixed[name]}
    return series


def data_by_density(runs: Sequence[Records], paper: Mapping[str, Sequence[Line]]) -> list[dict[str, Any]]:
    """The charts against density, in the script's format."""
    return [
        {
            "id": chart.id,
            "quantities": {
                quantity: {
                    "label": label(quantity),
                    "kind": kind(quantity),
                    "lines": [asdict(line) for line in drawn],
                    "paper": [asdict(line) for line in paper.get(quantity, ())],
                }
                for quantity, drawn in lines.items()
            },
        }
        for chart, lines in by_density(runs)
    ]


# --------------------------------------------------------------------------------------------------------- by iteration


def data_by_iteration(runs: Sequence[Records]) -> list[dict[str, Any]]:
    """The curves of each run and branch in the script's format: iterations, and the means of each level."""
    parts = []
    for i, run in enumerate(runs):
        lost = run.summary.loc[run.summary["status"] == "diverged", list(PLACE)].assign(lost=True)
        curves = run.curves.merge(lost, "left", list(PLACE))
        curves = curves.loc[curves["lost"].isna()]
        families = curves["branch"].map({b: family(b) for b in curves["branch"].unique()})
        winning = verdict.of(run).winning
        for name in sorted(families.unique(), key=branch_order):
            parts += _curves(i, str(name), curves.loc[families == name], winning)
    return parts


def _curves(run: int, branch: str, curves: pd.DataFrame, winning: int | None) -> list[dict[str, Any]]:
    """One branch of one run: thinned iterations and, by quantity, one list per level, null where not evaluated."""
    shown = thinned(np.unique(curves["iteration"])).tolist()
    points = curves.loc[curves["iteration"].isin(shown)]
    levels = sorted(int(level) for level in points["level"].unique())
    groups = points.groupby(["level", "iteration"])[list(BY_ITERATION)].agg(["mean", "min", "max"])
    densities = points.groupby("level")["density"].mean()
    quantities: dict[str, Any] = {}
    for quantity in BY_ITERATION:
        table = groups[quantity].unstack("iteration").reindex(levels)
        parts = {c: _short(table[c].reindex(columns=shown)) for c in ("mean", "min", "max")}
        if any(value is not None for row in parts["mean"] for value in row):
            bands = {"low": parts["min"], "high": parts["max"]} if parts["min"] != parts["max"] else {}
            quantities[quantity] = {"label": label(quantity), "kind": kind(quantity), "mean": parts["mean"], **bands}
    if not quantities:
        return []
    return [
        {
            "key": f"{run}/{branch}",
            "run": run,
            "family": branch,
            "iterations": shown,
            "levels": levels,
            "percents": [100 * float(densities[level]) for level in levels],
            "winning": winning,
            "shown": pick_levels(levels, winning, most=6),
            "quantities": quantities,
        }
    ]


def thinned(iterations: np.ndarray, most: int = MOST_POINTS) -> np.ndarray:
    """At most `most` of the sorted iterations, including the first and the last; dense where curves are steep."""
    last = len(iterations) - 1
    if last < most:
        return iterations
    even = np.linspace(0, last, most - most // 3)
    early = np.geomspace(1, last, most // 3)
    return iterations[np.unique(np.round(np.concatenate([even, early])).astype(int))]


def _short(table: pd.DataFrame) -> list[list[float | None]]:
    """Numbers rounded to five digits, more than a screen can show. NaN is written as null."""
    return [[float(f"{v:.5g}") if np.isfinite(v) else None for v in row] for row in table.to_numpy(dtype=float)]
