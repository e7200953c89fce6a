"""Figures of one run, or of several runs overlaid.

Figures are values until they are saved. The curves of papers are drawn behind a run's own by a function that the caller
hands in, such as lth.papers.behind.series: results do not know of papers.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from lth.results import verdict
from lth.results.captions import caption_of, run_names
from lth.results.panels import (
    FONTS,
    PANEL,
    draw_bands,
    draw_bars,
    draw_marks,
    focus,
    marked,
    percent_axis,
    save,
    write_caption,
    y_axis,
    zoom,
)
from lth.results.records import Records
from lth.results.series import Series, iteration_series, overlaid, pick_levels
from lth.results.statistics import aggregate
from lth.storage.atomic import failures_named

Behind = Callable[[Sequence[Records], str], Sequence[Series]]  # runs, a column of summary.csv -> series behind theirs
BY_DENSITY = {  # figure -> its panels, columns of summary.csv
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
    """No curves behind those of the runs."""
    return []


def draw(
    runs: Sequence[Records], folder: str | Path, behind: Behind = nothing, further: Mapping[str, Figure] | None = None
) -> list[Path]:
    """Write all figures, and `further` ones by name, as PNG and SVG into `folder`; equal runs give equal bytes."""
    folder = Path(folder)
    with failures_named(folder):
        folder.mkdir(parents=True, exist_ok=True)
        drawn = figures(runs, behind) | dict(further or {})
        return [path for name, figure in drawn.items() for path in save(figure, folder / name)]


def figures(runs: Sequence[Records], behind: Behind = nothing) -> dict[str, Figure]:
    """All figures of a run, or of several overlaid, by file name; figures without data are left out."""
    with mpl.rc_context(FONTS):
        at = sorted({n for run in runs for n in run.experiment.recipe.report_at})
        by_density = BY_DENSITY | ({"test-accuracy-at-iterations": [f"test_accuracy_at_{n}" for n in at]} if at else {})
        drawn = {name: by_density_figure(runs, values, behind) for name, values in by_density.items()}
        drawn |= {name: by_iteration_figure(runs, value) for name, value in BY_ITERATION.items()}
    return {name: figure for name, figure in drawn.items() if figure is not None}


def by_density_figure(runs: Sequence[Records], values: Sequence[str], behind: Behind = nothing) -> Figure | None:
    """One panel for each of `values` against the percent of weights remaining: tickets, branches, runs overlaid."""
    panels = {value: series for value in values if (series := overlaid(runs, value))}
    if not panels:
        return None
    further = {value: behind(runs, value) for value in panels}
    labels = list(dict.fromkeys(s.label for s in itertools.chain(*panels.values(), *further.values())))
    width = PANEL[0] * len(panels)
    columns = max(1, min(len(labels), int(width / (0.75 + 0.075 * max(map(len, labels))))))
    marks = marked(itertools.chain(*panels.values()))
    caption = "\n".join(filter(None, [caption_of(runs, width), marks]))
    height = PANEL[1] + 0.22 * -(-len(labels) // columns) + 0.16 * caption.count("\n")
    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.1))
    for axes, (value, series) in zip(figure.subplots(1, len(panels), squeeze=False).flat, panels.items(), strict=True):
        draw_bands(axes, further[value])
        draw_bars(axes, series)
        draw_marks(axes, series)
        y_axis(axes, value)
        if not value.endswith("iteration"):
            focus(axes, series)
        percent_axis(axes, np.concatenate([s.x for s in series]))
    _legend_above(figure, labels, columns)
    write_caption(figure, caption)
    return figure


def _legend_above(figure: Figure, labels: Sequence[str], columns: int) -> None:
    """One legend for all panels."""
    handles = {label: h for axes in figure.axes for h, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    look = {"loc": "outside upper center", "ncols": columns, "frameon": False, "handlelength": 3.5}
    figure.legend([handles[label] for label in labels], labels, **look)


def by_iteration_figure(runs: Sequence[Records], value: str) -> Figure | None:
    """One panel per run, three in a row, with one curve per level of its tickets."""
    panels, until = {}, 0.0
    for run, name in zip(runs, run_names(runs), strict=True):
        tickets = run.curves.loc[(run.curves["branch"] == "ticket") & np.isfinite(run.curves[value]), "level"]
        levels = pick_levels([int(level) for level in set(tickets)], verdict.of(run).winning)
        if series := iteration_series(run, value, levels):
            panels[name], until = series, max(until, _reach(run, levels))
    if not panels:
        return None
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    width = (PANEL[0] + 1.2) * columns
    star = any(s.label.endswith("*") for series in panels.values() for s in series)
    caption = caption_of(runs, width) + "\n*: winning level" * star
    height = (PANEL[1] + 0.2) * rows + 0.16 * caption.count("\n")
    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.1))
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, panel in zip_longest(grid.flat, panels.items()):
        if panel is None:
            axes.remove()
            continue
        draw_bands(axes, panel[1])
        axes.set_title(panel[0] if len(panels) > 1 else "")
        y_axis(axes, value)
        zoom(axes, [s for shown in panels.values() for s in shown], until)  # the same frame for all
        axes.legend(title="% of weights", loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    write_caption(figure, caption)
    return figure


def _reach(run: Records, levels: Sequence[int]) -> float:
    """The last iteration that is drawn: well beyond the early stop of each level, and 0.3 of the training at least."""
    table = aggregate(run.summary.loc[run.summary["level"].isin(levels)], "early_stop_iteration")
    latest = table.loc[table["family"] == "ticket", "mean"].max()
    return np.fmax(0.3 * run.experiment.recipe.iterations, 1.5 * latest)
