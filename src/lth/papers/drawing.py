"""Draw a paper's figures from the tables of runs or, for the contents of tickets, from their measures."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lth.config import Experiment
from lth.papers.curves import comparable
from lth.papers.figures import Line, Panel, PaperFigure
from lth.papers.portraits import draw_portrait
from lth.papers.setups import Setup, experiment
from lth.results import looks
from lth.results.captions import caption_of, explain, format_percent, quantity_label
from lth.results.panels import (
    draw_bands,
    draw_bars,
    draw_marks,
    draw_nothing,
    focus,
    marked,
    percent_axis,
    y_axis,
    zoom,
)
from lth.results.records import PLACE, Records
from lth.results.series import Series, iteration_series, marks_of, trained_alike
from lth.results.sheets import finish, fonts, sheet
from lth.results.statistics import aggregate

Runs = Mapping[Setup, Records]


class Shown(NamedTuple):
    """The properties of a panel that a caption explains.

    Error bars at every n-th level (0: bands), the lowest mean below a cut axis, the paper's curves, and marks.
    """

    every: int
    lowest: float | None
    paper: str
    marks: str = ""


def draw(figure: PaperFigure, runs: Runs, note: str = "", width: float | None = None) -> Figure:
    """Draw the panels of a figure with the paper's curves behind those of the runs. `note` begins the caption.

    `width` in inches formats it for a paper; see lth.results.sheets.
    """
    if figure.by_test:
        runs = {of: by_test(run) for of, run in runs.items()}
    count = len(figure.panels) or len(figure.portraits)
    styles = line_looks(figure)
    with fonts(width):
        picture, grid = sheet(count, width, columns=2 if count in (2, 4) else 3)
        shown = [
            draw_panel(axes, panel, runs, styles) if isinstance(panel, Panel) else draw_portrait(axes, panel, runs)
            for axes, panel in zip(grid, figure.panels or figure.portraits, strict=True)
        ]
        finish(picture, _caption(figure, runs, note, [panel for panel in shown if panel]), width, _title(figure))
    return picture


def _title(figure: PaperFigure) -> str:
    return f"Figure {figure.number}. {figure.about}"


def _caption(figure: PaperFigure, runs: Runs, note: str, shown: Sequence[Shown]) -> str:
    paper = max((p.paper for p in shown), default="")
    bars = explain([p.every for p in shown if p.every], [p.lowest for p in shown], paper)
    by_test = "Early stop: the minimum of test loss, as in the paper." if figure.by_test else ""
    bands = "Bands: minimum and maximum." if any(panel.every == 0 for panel in shown) else ""
    marks = max((p.marks for p in shown), key=len, default="")
    runs_ = caption_of(list(runs.values()))
    if figure.portraits:  # histograms have no mean
        runs_ = runs_.replace("mean (min-max) of", "taken together:")
    return "\n".join(filter(None, [" ".join(filter(None, [note.strip(), by_test, bars, marks, bands])), runs_]))


def draw_panel(axes: Axes, panel: Panel, runs: Runs, styles: Mapping[str, Mapping[str, Any]]) -> Shown | None:
    """Draw a panel, each line in the style of its label."""
    ours = list(_ours(panel, runs, styles))
    if not ours:
        axes.set_title(panel.title)
        draw_nothing(axes)
        return None
    behind = list(_paper(panel, ours, runs, styles))
    measured = {scaled_column(panel.column, runs[line.setup].experiment) for line in panel.lines}
    quantity = measured.pop() if len(measured) == 1 else panel.column
    paper = "the paper's curves" if behind else ""
    if panel.axis == "iteration":
        draw_bands(axes, [*behind, *ours])
        y_axis(axes, quantity)
        axes.set_ylabel(quantity_label(quantity))
        axes.set_title(_iterations_title(panel))
        zoom(axes, ours, max((c.x[-1] for c in panel.paper), default=np.inf))
        return Shown(0, None, paper)
    draw_bands(axes, behind)
    every = draw_bars(axes, ours)
    draw_marks(axes, ours)
    lowest = None if panel.column.endswith("iteration") else focus(axes, ours)
    y_axis(axes, quantity, panel.title)
    _density_axis(axes, panel, np.concatenate([s.x for s in ours]))
    return Shown(every, lowest, paper, marked(ours))


def _iterations_title(panel: Panel) -> str:
    """`Tickets and reinit, 51.3 to 21.1% of weights`: a panel by iteration."""
    percents = [c.percent or 100.0 for c in panel.paper] or [100.0]
    roles = " and ".join(dict.fromkeys("tickets" if line.role == "ticket" else line.role for line in panel.lines))
    return f"{roles.capitalize()}, {format_percent(max(percents))} to {format_percent(min(percents))}% of weights"


def _density_axis(axes: Axes, panel: Panel, x: np.ndarray) -> None:
    log = not panel.axis.startswith("linear")
    if panel.axis.endswith("percent"):
        percent_axis(axes, x, log=log)
        return
    axes.set_xscale("log" if log else "linear")
    axes.invert_xaxis()
    axes.set_xlabel("thousands of weights remaining")


# --------------------------------------------------------------------------------------------------------------- series


def line_looks(figure: PaperFigure) -> dict[str, dict[str, Any]]:
    """The look of each line by its label, the same in all panels of a figure."""
    levels = sorted({line.level for panel in figure.panels for line in panel.lines if line.level is not None})
    several = any(len({line.setup for line in panel.lines}) > 1 for panel in figure.panels)
    order: dict[str, int] = {}  # the labels of tickets: a branch has the colour of its ticket
    styles: dict[str, dict[str, Any]] = {}
    for panel in figure.panels:
        tickets = {line.setup: line.label for line in panel.lines if line.role == "ticket"}
        for line in panel.lines:
            n = order.setdefault(tickets.get(line.setup, line.label), len(order))
            if line.level is not None:
                dashes = "-" if line.role == "ticket" else "--"
                look = looks.level_look(levels.index(line.level), len(levels)) | {"linestyle": dashes}
            else:
                look = looks.run_look(n, line.role) if several else looks.family_look(line.role)
            styles.setdefault(line.label, look)
    return styles


def _ours(panel: Panel, runs: Runs, styles: Mapping[str, Mapping[str, Any]]) -> Iterator[Series]:
    for line in panel.lines:
        run = runs[line.setup]
        if line.level is not None:
            curves = iteration_series(run, panel.column, [line.level], line.role)
        else:
            curves = _by_density(run, panel, line.role)
        yield from (
            replace(
                curve,
                label=_label(line),
                look=styles[line.label],
            )
            for curve in curves
        )


def _label(line: Line) -> str:
    """A label of the paper's legends without a space before commas, and with a percent sign."""
    label = line.label.replace(" ,", ",")
    return label if line.level is None else re.sub(r"^[\d.]+", r"\g<0>%", label)


def _by_density(run: Records, panel: Panel, role: str) -> list[Series]:
    """A line of a panel against density: its column over trials, by percentage or thousands of weights."""
    column = scaled_column(panel.column, run.experiment)
    if column not in run.summary or not trained_alike(run, role, column):
        return []
    table = aggregate(run.summary, column)
    table = table.loc[(table["family"] == role) & (table["density"] > 0)]
    x = 100 * table["density"] if panel.axis.endswith("percent") else table["weights"] / 1000
    mean, low, high = (table[name].to_numpy(float) for name in ("mean", "min", "max"))
    marks = marks_of(run, role, column, [int(level) for level in table["level"]])
    return [Series("", x.to_numpy(float), mean, low, high, **marks)] if len(table) else []


def scaled_column(column: str, of: Experiment) -> str:
    """For example, test_accuracy_at_30000 for a run at scale 0.1: test_accuracy_at_3000."""
    kind, at, iteration = column.rpartition("_at_")
    return f"{kind}{at}{max(1, round(int(iteration) * of.scale))}" if iteration.isdigit() else column


def by_test(run: Records) -> Records:
    """The run with early stops at the minimum of the test loss."""
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


def _paper(
    panel: Panel, ours: Sequence[Series], runs: Runs, styles: Mapping[str, Mapping[str, Any]]
) -> Iterator[Series]:
    """The paper's curves within the range of ours, each in a paler version of our line's look; one legend entry."""
    label = f"the paper{_other_length(panel, runs)}"
    low, high = min(s.x.min() for s in ours), max(s.x.max() for s in ours)
    for curve in panel.paper:
        x, mean = np.array(curve.x), np.array(curve.mean)
        shown = (x >= 0.99 * low) & (x <= 1.01 * high)
        if shown.any():
            look = looks.pale(styles.get(curve.series) or looks.family_look(curve.role))
            yield Series(label, x[shown], mean[shown], mean[shown], mean[shown], look)
            label = "_"


def _other_length(panel: Panel, runs: Runs) -> str:
    """The length of the paper's trainings, if ours differ and the panel's column depends on it."""
    pairs = [(experiment(of), runs[of].experiment) for of in {curve.setup for curve in panel.paper} & {*runs}]
    lengths = [
        theirs.recipe.iterations
        for theirs, ours in pairs
        if theirs.recipe.iterations != ours.recipe.iterations
        and panel.axis != "iteration"
        and not comparable(panel.column, True, bool(theirs.recipe.warmup or theirs.recipe.drops))
    ]
    return f", trainings of {' to '.join(f'{n:,}' for n in sorted({min(lengths), max(lengths)}))}" if lengths else ""
