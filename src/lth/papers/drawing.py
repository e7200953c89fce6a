"""Pictures of a paper's figures, from the tables of runs and, for what is inside tickets, their measures alone."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from lth.config import Experiment
from lth.papers.curves import comparable
from lth.papers.figures import Panel, PaperFigure
from lth.papers.legends import legend, lines_of
from lth.papers.portraits import draw_portrait
from lth.papers.setups import Setup, experiment
from lth.results import looks
from lth.results.captions import caption_of
from lth.results.panels import FONTS, PANEL, draw_bands, draw_bars, focus, percent_axis, write_caption, y_axis, zoom
from lth.results.records import PLACE, Records
from lth.results.series import Series, iteration_series
from lth.results.statistics import aggregate

Runs = Mapping[Setup, Records]


def draw(figure: PaperFigure, runs: Runs, note: str = "") -> Figure:
    """The panels of a figure, the paper's curves in grey behind those of the runs; `note` begins the caption."""
    if figure.by_test:
        runs = {of: by_test(run) for of, run in runs.items()}
    count = len(figure.panels) or len(figure.portraits)
    columns = 2 if count in (2, 4) else min(3, count)
    rows = -(-count // columns)
    width = (PANEL[0] + 0.6) * columns
    caption = caption_of(list(runs.values()), width)
    size = (width, (PANEL[1] + 0.9) * rows + 0.5 + 0.16 * caption.count("\n"))
    with mpl.rc_context(FONTS):
        picture = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.1))
        grid = list(picture.subplots(rows, columns, squeeze=False).flat)
        for axes, panel in zip(grid, figure.panels or figure.portraits, strict=False):
            draw_panel(axes, panel, runs) if isinstance(panel, Panel) else draw_portrait(axes, panel, runs)
        for axes in grid[count:]:
            axes.remove()
        longest = max(map(lines_of, picture.axes), default=0)
        picture.set_figheight(size[1] + 0.18 * rows * max(0, longest - 3))
        picture.suptitle(textwrap.fill(f"Figure {figure.number}. {figure.about}", int(9.5 * width)), fontsize=12)
        write_caption(picture, f"{note}{_explained(figure, picture)}\n{_of(figure, caption)}".strip())
    return picture


def _of(figure: PaperFigure, caption: str) -> str:
    """A caption; histograms have no mean and no error bars."""
    return caption.replace("mean (min-max) of", "taken together:") if figure.portraits else caption


def _explained(figure: PaperFigure, picture: Figure) -> str:
    """What differs from other figures of runs: early stop by test loss, and grey curves."""
    labels = [label for axes in picture.axes for label in axes.get_legend_handles_labels()[1]]
    marked = ", with the markers of ours" if any(map(_marked, figure.panels)) else ""
    grey = any(label.startswith("the paper") for label in labels)
    stop = "Early stop here: the minimum of test loss, as in the paper. " if figure.by_test else ""
    return stop + (f"Grey: the paper's own curves{marked}. " if grey else "")


def draw_panel(axes: Axes, panel: Panel, runs: Runs) -> None:
    """Draw a panel, with its legend below."""
    ours = list(_ours(panel, runs))
    axes.set_title(panel.title)
    if not ours:
        axes.text(0.5, 0.5, "nothing stored yet", ha="center", va="center", transform=axes.transAxes, color="0.4")
        return
    behind = list(_paper(panel, ours, runs))
    measured = {scaled_column(panel.column, runs[line.setup].experiment) for line in panel.lines}
    quantity = measured.pop() if len(measured) == 1 else panel.column
    (draw_bands if panel.axis == "iteration" else draw_bars)(axes, [*behind, *ours])
    y_axis(axes, quantity)
    if panel.axis == "iteration":
        zoom(axes, ours, max((c.x[-1] for c in panel.paper), default=np.inf))
    else:
        if not panel.column.endswith("iteration"):
            focus(axes, ours)
        _density_axis(axes, panel, np.concatenate([s.x for s in ours]))
    legend(axes, handlelength=3)


def _density_axis(axes: Axes, panel: Panel, x: np.ndarray) -> None:
    log = not panel.axis.startswith("linear")
    if panel.axis.endswith("percent"):
        percent_axis(axes, x, log=log)
        return
    axes.set_xscale("log" if log else "linear")
    axes.invert_xaxis()
    axes.set_xlabel("thousands of weights remaining")


# --------------------------------------------------------------------------------------------------------------- series


def _ours(panel: Panel, runs: Runs) -> Iterator[Series]:
    setups = list(dict.fromkeys(line.setup for line in panel.lines))
    for i, line in enumerate(panel.lines):
        run = runs[line.setup]
        if line.level is not None:
            look = looks.level_look(i, len(panel.lines)) | {"linestyle": "-" if line.role == "ticket" else "--"}
            curves = iteration_series(run, panel.column, [line.level], line.role)
        else:
            several, n = len(setups) > 1, setups.index(line.setup)
            look = looks.run_look(n, line.role) if several else looks.family_look(line.role)
            curves = _by_density(run, panel, line.role)
        yield from (replace(curve, label=line.label, look=look) for curve in curves)


def _by_density(run: Records, panel: Panel, role: str) -> list[Series]:
    """A line of a panel against density: its column over trials, at percent or thousands of weights remaining."""
    column = scaled_column(panel.column, run.experiment)
    if column not in run.summary:
        return []
    table = aggregate(run.summary, column)
    table = table.loc[(table["family"] == role) & (table["density"] > 0)]
    x = 100 * table["density"] if panel.axis.endswith("percent") else table["weights"] / 1000
    mean, low, high = (table[name].to_numpy(float) for name in ("mean", "min", "max"))
    return [Series("", x.to_numpy(float), mean, low, high)] if len(table) else []


def scaled_column(column: str, of: Experiment) -> str:
    """test_accuracy_at_30000 of a run at scale 0.1: test_accuracy_at_3000."""
    kind, at, iteration = column.rpartition("_at_")
    return f"{kind}{at}{max(1, round(int(iteration) * of.scale))}" if iteration.isdigit() else column


def by_test(run: Records) -> Records:
    """The run with early stop at the minimum of test loss."""
    curves = run.curves.dropna(subset=["test_loss"])
    best = curves.loc[curves.groupby(list(PLACE))["test_loss"].idxmin()]
    best = best[[*PLACE, "iteration", "test_accuracy"]]
    merged = run.summary.merge(best, on=list(PLACE), how="left")
    summary = run.summary.assign(
        early_stop_iteration=merged["iteration"].to_numpy(float),
        test_accuracy_at_early_stop=merged["test_accuracy"].to_numpy(float),
    )
    return replace(run, summary=summary)


# -------------------------------------------------------------------------------------------------- the paper's curves


def _paper(panel: Panel, ours: Sequence[Series], runs: Runs) -> Iterator[Series]:
    """The paper's curves within the range of ours, with one entry in the legend.

    Where there are several experiments, each curve has the marker of our line.
    """
    markers = {series.label: series.look["marker"] for series in ours} if _marked(panel) else {}
    low, high = min(s.x.min() for s in ours), max(s.x.max() for s in ours)
    label = f"the paper{_other_length(panel, runs)}"
    for curve in panel.paper:
        x, mean = np.array(curve.x), np.array(curve.mean)
        shown = (x >= 0.99 * low) & (x <= 1.01 * high)
        if shown.any():
            look = looks.PAPER | {"linestyle": "-" if curve.role == "ticket" else "--", "linewidth": 1.8}
            look |= {"marker": markers.get(curve.series, "")}
            yield Series(label, x[shown], mean[shown], mean[shown], mean[shown], look)
            label = "_"


def _marked(panel: Panel) -> bool:
    """Whether the paper's curves need markers to tell their experiments apart."""
    return len({curve.setup for curve in panel.paper}) > 1


def _other_length(panel: Panel, runs: Runs) -> str:
    """The length of the paper's trainings, if ours are of another and the panel's column depends on it."""
    pairs = [(experiment(of), runs[of].experiment) for of in {curve.setup for curve in panel.paper} & {*runs}]
    lengths = [
        theirs.recipe.iterations
        for theirs, ours in pairs
        if theirs.recipe.iterations != ours.recipe.iterations
        and panel.axis != "iteration"
        and not comparable(panel.column, True, bool(theirs.recipe.warmup or theirs.recipe.drops))
    ]
    return f", trainings of {' to '.join(f'{n:,}' for n in sorted({min(lengths), max(lengths)}))}" if lengths else ""
