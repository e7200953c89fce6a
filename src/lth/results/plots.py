"""Figures of one run, or of several runs overlaid.

Figures are values until they are saved. The caller may pass a function such as lth.papers.behind.series that returns a
paper's curves; this package does not import papers.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from lth.results import verdict
from lth.results.captions import caption_of, explain, run_names
from lth.results.looks import level_look
from lth.results.metrics import ACCURACY, LOSS, metrics_of
from lth.results.panels import draw_bands, draw_bars, draw_marks, focus, marked, percent_axis, y_axis, zoom
from lth.results.records import Records
from lth.results.series import Series, iteration_series, overlaid, pick_levels
from lth.results.sheets import finish, fonts, save, sheet
from lth.results.statistics import aggregate
from lth.storage.atomic import failures_named

Behind = Callable[
    [Sequence[Records], str], Sequence[Series]
]  # (runs, a column of summary.csv) -> series drawn behind those of the runs
BY_DENSITY = {  # figure -> its panels, which are columns of summary.csv; other metrics in `by_density`
    "overview": ["early_stop_iteration", "test_accuracy_at_early_stop", "final_test_accuracy"],
    "early-stop-iteration": ["early_stop_iteration"],
    "test-accuracy-at-early-stop": ["test_accuracy_at_early_stop"],
    "final-test-accuracy": ["final_test_accuracy"],
    "train-accuracy": ["train_accuracy_at_early_stop", "final_train_accuracy"],
}
BY_ITERATION = {  # figure -> a column of curves.csv; one panel per run
    "test-loss-by-iteration": "test_loss",
    "test-accuracy-by-iteration": "test_accuracy",
    "validation-loss-by-iteration": "val_loss",
}


def nothing(runs: Sequence[Records], value: str) -> list[Series]:
    """No additional curves."""
    return []


def draw(
    runs: Sequence[Records],
    folder: str | Path,
    behind: Behind = nothing,
    further: Mapping[str, Figure] | None = None,
    width: float | None = None,
) -> list[Path]:
    """Write all figures, and `further` ones by name, into `folder`. Equal runs give equal bytes.

    `width` in inches formats them for a paper; see lth.results.sheets.
    """
    folder = Path(folder)
    with failures_named(folder):
        folder.mkdir(parents=True, exist_ok=True)
        drawn = figures(runs, behind, width) | dict(further or {})
        return [path for name, figure in drawn.items() for path in save(figure, folder / name)]


def figures(runs: Sequence[Records], behind: Behind = nothing, width: float | None = None) -> dict[str, Figure]:
    """All figures of a run, or of several overlaid, by file name, without those that have no data."""
    with fonts(width):
        drawn = {name: by_density_figure(runs, values, behind, width) for name, values in by_density(runs).items()}
        drawn |= {name: by_iteration_figure(runs, value, width) for name, value in BY_ITERATION.items()}
    return {name: figure for name, figure in drawn.items() if figure is not None}


def by_density(runs: Sequence[Records]) -> dict[str, list[str]]:
    """The figures against density and their panels, for the metrics of the runs."""
    at = sorted({n for run in runs for n in run.experiment.recipe.report_at})
    reported = {"test-accuracy-at-iterations": [f"test_accuracy_at_{n}" for n in at]} if at else {}
    panels: dict[str, dict[str, None]] = {}
    for metric in metrics_of([run.experiment for run in runs]):
        for name, values in (BY_DENSITY | reported).items():
            panels.setdefault(metric.column(name), {}).update(dict.fromkeys(map(metric.column, values)))
    return {name: list(values) for name, values in panels.items()}


def by_density_figure(
    runs: Sequence[Records], values: Sequence[str], behind: Behind = nothing, width: float | None = None
) -> Figure | None:
    """One panel for each of `values` against the percentage of weights: tickets and branches, runs overlaid."""
    panels = {value: series for value in values if (series := overlaid(runs, value))}
    if not panels:
        return None
    figure, grid = sheet(len(panels), width)
    lowest, every, paper = [], [], ""
    for axes, (value, series) in zip(grid, panels.items(), strict=True):
        further = behind(runs, value)
        paper = paper or ("the paper's curves" if further else "")
        draw_bands(axes, further)
        every.append(draw_bars(axes, series))
        draw_marks(axes, series)
        lowest.append(None if value == "early_stop_iteration" else focus(axes, series, falling="loss" in value))
        y_axis(axes, value)
        percent_axis(axes, np.concatenate([s.x for s in series]))
    metric = LOSS if any("loss" in value for value in panels) else ACCURACY
    explained = f"{explain(every, lowest, paper, metric)} {marked(itertools.chain(*panels.values()))}".strip()
    finish(figure, f"{caption_of(runs)}\n{explained}", width)
    return figure


def by_iteration_figure(runs: Sequence[Records], value: str, width: float | None = None) -> Figure | None:
    """One panel per run, three in a row, with one curve per level of its tickets."""
    panels, until = {}, 0.0
    for run, name in zip(runs, run_names(runs), strict=True):
        tickets = run.curves.loc[(run.curves["branch"] == "ticket") & np.isfinite(run.curves[value]), "level"]
        levels = pick_levels([int(level) for level in set(tickets)], verdict.of(run).winning)
        if series := iteration_series(run, value, levels):
            panels[name], until = series, max(until, _reach(run, levels))
    if not panels:
        return None
    percent = lambda label: float(label.removesuffix(" *"))
    labels = sorted({s.label for series in panels.values() for s in series}, key=percent, reverse=True)
    figure, grid = sheet(len(panels), width)
    for axes, (name, series) in zip(grid, panels.items(), strict=True):
        draw_bands(axes, [replace(s, look=level_look(labels.index(s.label), len(labels))) for s in series])
        y_axis(axes, value, name if len(panels) > 1 else "")
        zoom(axes, [s for shown in panels.values() for s in shown], until)  # the same limits for all panels
    bands = "Bands: minimum and maximum." if any(len({*run.summary["trial"]}) > 1 for run in runs) else ""
    star = " *: the winning level." if any(label.endswith("*") for label in labels) else ""
    finish(figure, f"{caption_of(runs)} {bands}{star}".strip(), width, legend_title="percent of weights remaining")
    return figure


def _reach(run: Records, levels: Sequence[int]) -> float:
    """The last iteration to draw: well after the early stop of each level, and at least 0.3 of the training."""
    table = aggregate(run.summary.loc[run.summary["level"].isin(levels)], "early_stop_iteration")
    latest = table.loc[table["family"] == "ticket", "mean"].max()
    return np.fmax(0.3 * run.experiment.recipe.iterations, 1.5 * latest)
