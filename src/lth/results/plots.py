"""Figures of one run, or of several over each other. No torch here, and no state: figures are values until drawn.

A `Series` is what any curve is: a mean between a minimum and a maximum at each x. Panels are functions of axes and
series, so that other figures, such as the paper's, can be put together from them.
"""

from __future__ import annotations

import itertools
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator, NullLocator, StrMethodFormatter

from lth.papers.curves import behind_runs
from lth.results.captions import format_length, format_trials
from lth.results.records import PLACE, Records
from lth.results.statistics import aggregate, branch_order, family, winning_level
from lth.storage.atomic import failures_named

# Okabe and Ito's colours, told apart by the colour-blind, then dark ones of Tol's for large sweeps; no yellow, and no
# grey, which is the paper's curves'. Each with a marker.
LOOKS = [
    *(("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "D"), ("#E69F00", "v")),
    *(("#56B4E9", "P"), ("#000000", "X"), ("#882255", "*"), ("#999933", "p"), ("#332288", "<")),
]
LINES = ["-", "--", ":", "-.", (0, (6, 2, 1, 2, 1, 2)), (0, (1, 3)), (0, (8, 3))]
FAMILIES = ["ticket", "reinit", "random-mask", "continued"]  # keep their looks from figure to figure; others follow
PAPER = {"color": "0.6", "marker": "", "linewidth": 2.5, "zorder": 1}  # a look for the paper's curve, behind ours
FONTS: dict[Any, Any] = {"font.size": 10, "axes.titlesize": 11}
FONTS |= dict.fromkeys(("legend.fontsize", "xtick.labelsize", "ytick.labelsize"), 9)
PANEL = (4.3, 3.4)  # inches
LABEL = 0.38  # inches from one tick's label to the next, at least
MOST_CURVES = 8  # of levels in one panel

QUANTITIES = {  # column -> what its axis says
    "early_stop_iteration": "early-stop iteration",
    "test_accuracy_at_early_stop": "test accuracy at early stop",
    "final_test_accuracy": "test accuracy at the last iteration",
    "train_accuracy_at_early_stop": "training accuracy at early stop",
    "final_train_accuracy": "training accuracy at the last iteration",
    "test_loss": "test loss",
    "test_accuracy": "test accuracy",
    "val_loss": "validation loss",
    "val_accuracy": "validation accuracy",
}
BY_DENSITY = {  # figure -> a panel for each of these columns of summary.csv
    "overview": ["early_stop_iteration", "test_accuracy_at_early_stop", "final_test_accuracy"],
    "early-stop-iteration": ["early_stop_iteration"],
    "test-accuracy-at-early-stop": ["test_accuracy_at_early_stop"],
    "final-test-accuracy": ["final_test_accuracy"],
    "train-accuracy": ["train_accuracy_at_early_stop", "final_train_accuracy"],
}
BY_ITERATION = {  # figure -> this column of curves.csv, a panel for each run
    "test-loss-by-iteration": "test_loss",
    "test-accuracy-by-iteration": "test_accuracy",
    "validation-loss-by-iteration": "val_loss",
}


@dataclass(frozen=True, eq=False)
class Series:
    """A curve: at each x the mean, minimum and maximum of one quantity; `look` is passed on to matplotlib."""

    label: str
    x: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    look: Mapping[str, Any] = field(default_factory=dict)


# ------------------------------------------------------------------------------------------------------ panels (pure)


def draw_bars(axes: Axes, series: Iterable[Series]) -> None:
    """Curves with an error bar from minimum to maximum at each point; none where these are one."""
    for s in series:
        look = {"marker": "o", "markersize": 4.5, "linewidth": 1.3, "capsize": 2, "elinewidth": 0.9, **s.look}
        bars = None if np.array_equal(s.low, s.high) else np.stack([s.mean - s.low, s.high - s.mean])
        axes.errorbar(s.x, s.mean, bars, label=s.label, **look)


def draw_bands(axes: Axes, series: Sequence[Series]) -> None:
    """Curves on a light band from minimum to maximum; their markers are few, and apart from one another's."""
    for i, s in enumerate(series):
        markers = (0.15 * i / len(series), 0.15)  # of the panel's diagonal: first, and from one to the next
        look = {"linewidth": 1.3, "markersize": 4.5, "markevery": markers, **s.look}
        (line,) = axes.plot(s.x, s.mean, label=s.label, **look)
        if not np.array_equal(s.low, s.high):
            axes.fill_between(s.x, s.low, s.high, color=line.get_color(), alpha=0.15, linewidth=0, zorder=1)


def percent_axis(axes: Axes, percents: Iterable[float], log: bool = True) -> None:
    """Make x the percent of weights remaining, falling to the right; ticks at the levels, as many as have room."""
    percents = np.unique([p for p in percents if p > 0])[::-1]
    if not len(percents):
        return
    scale = np.log(percents) if log else percents
    margin = 0.03 * max(scale[0] - scale[-1], 0.5 if log else 5)
    ends = np.array([scale[0] + margin, scale[-1] - margin])
    inches = axes.bbox.transformed(axes.figure.dpi_scale_trans.inverted()).width
    ticks = percents[spaced(scale, (ends[0] - ends[1]) * LABEL / inches)]
    axes.set_xscale("log" if log else "linear")
    axes.set_xlim(*(np.exp(ends) if log else ends))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(ticks, [format_percent(p) for p in ticks])
    axes.set_xlabel("percent of weights remaining")


def spaced(positions: np.ndarray, gap: float) -> list[int]:
    """Which of the falling `positions` to keep so that neighbours are at least `gap` apart; the first is."""
    kept = [0]
    for i, position in enumerate(positions):
        if positions[kept[-1]] - position >= gap:
            kept.append(i)
    return kept


def format_percent(percent: float) -> str:
    return f"{percent:.0f}" if percent > 99.95 else f"{percent:.1f}" if percent >= 0.95 else f"{percent:.2g}"


def focus(axes: Axes, series: Sequence[Series]) -> None:
    """Cut the y axis at the bottom where outlying means would press all others together, and say so.

    Outlying is what lies below Tukey's fence, the first quartile less 1.5 times the quartiles' distance, and below the
    best of every curve; what does not make the panel half as high again is shown all the same.
    """
    means = np.concatenate([s.mean for s in series])
    top, (first, third) = max(s.high.max() for s in series), np.quantile(means, [0.25, 0.75])
    lowest = min(s.mean.max() for s in series)
    fence = min(first - 1.5 * (third - first), lowest - 0.05 * (top - lowest))
    if len(means) >= 12 and top > fence and top - means.min() > 1.5 * (top - fence):
        axes.set_ylim(fence, top + 0.05 * (top - fence))
        axes.text(0.02, 0.02, f"cut; lowest mean: {means.min():.3g}", transform=axes.transAxes, fontsize=8, color="0.3")


def zoom(axes: Axes, series: Sequence[Series], until: float) -> None:
    """Make x the iteration, up to `until`; the first steep moments of training leave the frame.

    So does a curve that ends far from the others, as one at chance would, if they had to share half the panel with it.
    """
    last = max(s.x.max() for s in series)
    until = min(last, until)
    axes.set_xlim(0, 1.01 * until)
    axes.set_xlabel("iteration" if until == last else f"iteration (of {last:,.0f})")
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    seen = [s.mean[s.x <= until] for s in series if s.x[0] <= until]
    later = np.concatenate([s.mean[(s.x > 0.04 * until) & (s.x <= until)] for s in series])
    if len(later) > 2 * len(series):
        first, ends = (np.array([means[at] for means in seen]) for at in (0, -1))
        low, high, few, most = np.quantile(later, [0, 1, 0.05, 0.95])
        if np.median(ends) < np.median(first):
            bottom, top = low, min(max(most, *ends), 2 * most - low)
        else:
            bottom, top = max(min(few, *ends), 2 * few - high), high
        room = 0.06 * (top - bottom or 0.1)
        axes.set_ylim(bottom - room, top + room)


def y_axis(axes: Axes, quantity: str) -> None:
    axes.set_ylabel(said(quantity))
    axes.grid(True, axis="y", color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if quantity.endswith("iteration"):
        top = axes.dataLim.y1
        axes.set_ylim(0, 1.05 * top if top > 0 else None)  # a share of all: what trials differ by may be a few pixels
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    elif "accuracy" in quantity and axes.get_ylim()[1] > 1:
        bottom = axes.get_ylim()[0]
        axes.set_ylim(bottom, 1 + 0.02 * (1 - bottom))  # nothing is above 1, but half a marker


def said(quantity: str) -> str:
    """A column's name in words."""
    kind, _, iteration = quantity.partition("_accuracy_at_")
    if iteration.isdigit():
        return f"{'test' if kind == 'test' else 'validation'} accuracy at iteration {int(iteration):,}"
    return QUANTITIES.get(quantity, quantity.replace("_", " "))


# ------------------------------------------------------------------------------------------------------- data -> series


def density_series(
    run: Records, value: str, looks: Callable[[str], Mapping[str, Any]], prefix: str = ""
) -> list[Series]:
    """A series for the tickets and one for each branch: the column `value` over the percent of weights remaining."""
    table = aggregate(run.summary, value)
    table = table.loc[table["density"] > 0].assign(x=100 * table["density"])
    return [
        _series(prefix + _label(run, name), table.loc[table["family"] == name], looks(name))
        for name in dict.fromkeys(table["family"])
    ]


def iteration_series(run: Records, value: str, levels: Sequence[int], branch: str = "ticket") -> list[Series]:
    """A series for each of `levels`: the column `value` of curves.csv by iteration, diverged trainings left out."""
    curves = run.curves.loc[run.curves["level"].isin(levels) & np.isfinite(run.curves[value])]
    curves = curves.loc[curves["branch"].isin([name for name in set(curves["branch"]) if family(name) == branch])]
    diverged = run.summary.loc[run.summary["status"] == "diverged", list(PLACE)]
    lost = set(diverged.itertuples(index=False, name=None))
    places = curves[list(PLACE)].itertuples(index=False, name=None)
    curves = curves.loc[[place not in lost for place in places]]
    series = []
    for i, level in enumerate(levels):
        rows = curves.loc[curves["level"] == level]
        if len(rows):
            table = rows.groupby("iteration")[value].agg(["mean", "min", "max"]).rename_axis("x").reset_index()
            label = format_percent(100 * float(np.mean(rows["density"])))
            series.append(_series(label, table, level_look(i, len(levels))))
    return series


def pick_levels(levels: Sequence[int], winning: int | None = None, most: int = MOST_CURVES) -> list[int]:
    """As many of the levels as one panel can show, evenly spread: the first, the last, and the winning one."""
    levels = sorted(levels)
    if len(levels) <= most:
        return levels
    picked = [levels[round(i)] for i in np.linspace(0, len(levels) - 1, most)]
    if winning in levels and winning not in picked:
        nearest = min(range(1, most - 1), key=lambda i: abs(picked[i] - levels[levels.index(winning)]))
        picked[nearest] = winning
    return picked


def level_look(i: int, n: int) -> dict[str, Any]:
    """From dark to light, black for the first; yellow is left out, since it does not show on white."""
    colour = mpl.colormaps["viridis"](0.88 * i / max(1, n - 1)) if i else "black"
    return {"color": colour, "marker": LOOKS[i % len(LOOKS)][1], "linestyle": "--" if i == 0 else "-"}


def family_look(name: str, names: Iterable[str] = ()) -> dict[str, Any]:
    """Colour, marker and line of a branch: always the same for the paper's, in order for others among `names`."""
    order = [*FAMILIES, *sorted({*names, name} - {*FAMILIES}, key=branch_order)]
    i = order.index(name)
    return {**_look(i), "linestyle": LINES[i % len(LINES)]}


def run_look(run: int, name: str, names: Iterable[str] = ()) -> dict[str, Any]:
    """The same where several runs are overlaid: colour and marker are the run's, line and filling the branch's."""
    hollow = {} if name == "ticket" else {"markerfacecolor": "white"}
    return {**family_look(name, names), **_look(run), **hollow}


def _look(i: int) -> dict[str, Any]:
    """Colour and marker; after the colours have gone round, the next colour's marker."""
    n = len(LOOKS)
    return {"color": LOOKS[i % n][0], "marker": LOOKS[(i + i // n) % n][1]}


def run_names(runs: Sequence[Records]) -> list[str]:
    """What to call each run in a legend: the experiment's name, or the folder's where names are shared."""
    experiments = [run.experiment for run in runs]
    folders = [run.folder.resolve().name for run in runs]
    for names in ([e.name for e in experiments], [e.folder_name for e in experiments], folders):
        if len({*names}) == len(names):
            return names
    return [str(r.folder) for r in runs]


def _label(run: Records, name: str) -> str:
    count = next((b.count for b in run.experiment.branch if b.name == name), 1)
    return f"{name} ({count} a trial)" if count > 1 else name


def _series(label: str, table: pd.DataFrame, look: Mapping[str, Any]) -> Series:
    x, mean, low, high = table[["x", "mean", "min", "max"]].to_numpy(dtype=float).T
    return Series(label, x, np.clip(mean, low, high), low, high, look)  # rounding can put a mean beside equal values


# -------------------------------------------------------------------------------------------------------------- figures


def figures(runs: Sequence[Records]) -> dict[str, Figure]:
    """All figures of a run, or of several overlaid, by file name; what has no data yet is left out."""
    with mpl.rc_context(FONTS):
        at = sorted({n for run in runs for n in run.experiment.recipe.report_at})
        by_density = BY_DENSITY | ({"test-accuracy-at-iterations": [f"test_accuracy_at_{n}" for n in at]} if at else {})
        drawn = {name: by_density_figure(runs, values) for name, values in by_density.items()}
        drawn |= {name: by_iteration_figure(runs, value) for name, value in BY_ITERATION.items()}
    return {name: figure for name, figure in drawn.items() if figure is not None}


def by_density_figure(runs: Sequence[Records], values: Sequence[str]) -> Figure | None:
    """A panel for each of `values` against the percent of weights remaining: tickets beside branches, run over run."""
    panels = {value: _overlaid(runs, value) for value in values}
    panels = {value: series for value, series in panels.items() if series}
    if not panels:
        return None
    behind = {value: paper_series(runs, value) for value in panels}
    drawn = itertools.chain(*panels.values(), *behind.values())
    labels = list(dict.fromkeys(s.label for s in drawn))
    width = PANEL[0] * len(panels)
    columns = max(1, min(len(labels), int(width / (0.75 + 0.075 * max(map(len, labels))))))
    caption = caption_of(runs, width)
    height = PANEL[1] + 0.22 * -(-len(labels) // columns) + 0.16 * caption.count("\n")
    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.1))
    for axes, (value, series) in zip(figure.subplots(1, len(panels), squeeze=False).flat, panels.items(), strict=True):
        draw_bands(axes, behind[value])
        draw_bars(axes, series)
        y_axis(axes, value)
        if not value.endswith("iteration"):
            focus(axes, series)
        percent_axis(axes, np.concatenate([s.x for s in series]))
    handles = {label: h for axes in figure.axes for h, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    where: dict[str, Any] = {"loc": "outside upper center", "ncols": columns}
    figure.legend([handles[label] for label in labels], labels, frameon=False, handlelength=3.5, **where)
    write_caption(figure, caption)
    return figure


def _reach(run: Records, levels: Sequence[int]) -> float:
    """Up to which iteration to draw curves: well beyond the early stop of each level; 0.3 of training at least."""
    table = aggregate(run.summary.loc[run.summary["level"].isin(levels)], "early_stop_iteration")
    latest = table.loc[table["family"] == "ticket", "mean"].max()
    return np.fmax(0.3 * run.experiment.recipe.iterations, 1.5 * latest)


def _overlaid(runs: Sequence[Records], value: str) -> list[Series]:
    names = {family(label) for run in runs for label in run.summary["branch"].unique()}
    series = []
    for i, (run, name) in enumerate(zip(runs, run_names(runs), strict=True)):
        if value not in run.summary:
            continue
        if len(runs) == 1:
            series += density_series(run, value, lambda branch: family_look(branch, names))
        else:
            series += density_series(run, value, lambda branch, i=i: run_look(i, branch, names), f"{name}: ")
    return series


def paper_series(runs: Sequence[Records], value: str) -> list[Series]:
    """The paper's own curves of a column, where it has this experiment's: grey, and no further than the runs go."""
    found = []
    for label, curve in behind_runs(runs, value):
        x, mean, low, high = map(np.array, (curve.x, curve.mean, curve.low, curve.high))
        found.append(Series(label, x, mean, low, high, paper_look(curve.role)))
    return found


def paper_look(role: str) -> dict[str, Any]:
    """Grey, with the line that the branch of this role has when it is drawn by itself."""
    return {**PAPER, "linestyle": family_look(role)["linestyle"]}


def by_iteration_figure(runs: Sequence[Records], value: str) -> Figure | None:
    """A panel for each run, three in a row, with a curve for each level of its tickets."""
    panels, until = {}, 0.0
    for run, name in zip(runs, run_names(runs), strict=True):
        tickets = run.curves.loc[(run.curves["branch"] == "ticket") & np.isfinite(run.curves[value]), "level"]
        levels = pick_levels([int(level) for level in set(tickets)], winning_level(run.summary))
        if series := iteration_series(run, value, levels):
            panels[name], until = series, max(until, _reach(run, levels))
    if not panels:
        return None
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    width = (PANEL[0] + 1.2) * columns
    caption = caption_of(runs, width)
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


def caption_of(runs: Sequence[Records], width: float) -> str:
    """What was run, over how many trials, at what scale, and what is left out; in lines for `width` inches."""
    lines: dict[str, list[str]] = {}
    for run, name in zip(runs, run_names(runs), strict=True):
        diverged = sum(run.summary["status"] == "diverged")
        counted = (run.summary["branch"] == "ticket") & (run.summary["status"] != "diverged")
        trials = format_trials(list(Counter(run.summary.loc[counted, "level"]).values()))
        left_out = f"; diverged and left out: {diverged} of {len(run.summary)} trainings" if diverged else ""
        lines.setdefault(f"{trials}, {format_length(run.experiment)}{left_out}", []).append(name)
    return "\n".join(
        textwrap.fill(f"{', '.join(names)}: {what}", int(13 * width), break_on_hyphens=False)
        for what, names in lines.items()
    )


def write_caption(figure: Figure, caption: str) -> None:
    figure.supxlabel(caption, x=0.01, ha="left", fontsize=8.5, color="0.25")


def draw(runs: Sequence[Records], folder: str | Path) -> list[Path]:
    """Write all figures into `folder`, each as PNG and SVG; the same runs give the same bytes."""
    folder = Path(folder)
    with failures_named(folder):
        folder.mkdir(parents=True, exist_ok=True)
        return [path for name, figure in figures(runs).items() for path in save(figure, folder / name)]


def save(figure: Figure, path: Path) -> list[Path]:
    """Write PATH.png and PATH.svg, without the date."""
    png, svg = path.with_name(path.name + ".png"), path.with_name(path.name + ".svg")
    with mpl.rc_context({**FONTS, "svg.hashsalt": "lth"}):
        figure.savefig(png, dpi=150)
        figure.savefig(svg, metadata={"Date": None})
    return [png, svg]
