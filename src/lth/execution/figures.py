"""A figure of the paper, from its trainings to the picture: `lth figure N`.

needed(figure, version)  the runs that it is made of, each an experiment with a folder
make(number, ...)        trains what is not stored yet, and draws
draw(figure, runs, ...)  the picture, from the runs' tables alone (and, for figures 15 to 24, the CSVs beside them)
listing(...)             a line a figure: what it shows and needs, what is stored, about how long the rest takes
"""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from rich.console import Console

from lth import config
from lth.config import Experiment
from lth.errors import UsageError
from lth.execution import executors
from lth.measures import anatomy, weight_movement
from lth.papers.curves import comparable
from lth.papers.figures import Panel, PaperFigure, Portrait, figures
from lth.papers.setups import Setup, differences, experiment
from lth.plan import Training, plan
from lth.results import plots, records, statistics, tables
from lth.results.records import Records
from lth.storage import atomic, outcomes

FOLDER = "figures"  # of the pictures, beside the runs
WIDE = 58  # letters of a legend's labels that have room side by side below a panel
Runs = Mapping[Setup, Records]


@dataclass(frozen=True)
class Version:
    """How a figure is made otherwise than in the paper: smaller, or with settings of one's own."""

    trials: int | None = None
    levels: int | None = None
    branches: str | None = None
    scale: float | None = None
    settings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        keys = [config.parse_override(setting)[0] for setting in self.settings]
        options = {"trials": "--trials", "levels": "--levels", "branch": "--branches"}
        if taken := [f"give {options[key]} in place of the setting {key}" for key in keys if key in options]:
            raise UsageError("\n".join(taken))

    @property
    def name(self) -> str:
        """Of the folder that keeps it apart from the full one; empty for that."""
        numbers = {"scale": self.scale, "trials": self.trials, "levels": self.levels, "branches": self.branches}
        texts = [
            f"{option}{value:g}" if option == "scale" else f"{option}{value}"
            for option, value in numbers.items()
            if value is not None
        ]
        return re.sub(r"[^A-Za-z0-9.]+", "-", "-".join([*texts, *self.settings])).strip("-.")

    @property
    def said(self) -> str:
        """For the picture: nothing where it is the paper's own size."""
        numbers = {"scale": self.scale, "trials": self.trials, "levels": self.levels, "branches": self.branches}
        texts = [f"{option} {value}" for option, value in numbers.items() if value is not None]
        return f"Not the paper's size: {', '.join([*texts, *self.settings])}. " if self.name else ""


@dataclass(frozen=True)
class Needed:
    """One run of a figure, as `lth run` takes it."""

    setup: Setup
    settings: Mapping[str, Any]
    options: Mapping[str, Any]
    folder: Path

    @property
    def experiment(self) -> Experiment:
        return config.resolve(self.setup.preset, self.settings, **self.options)


def figure_of(number: int) -> PaperFigure:
    """Raises UsageError where the paper has no such figure, or it shows no results."""
    if number not in figures():
        raise UsageError(
            f"figure {number} is not one of the paper's figures of results: 1, and 3 to 45 (lth figure --list)"
        )
    return figures()[number]


def needed(figure: PaperFigure, version: Version, out: Path) -> list[Needed]:
    """The runs of a figure, in the order of its panels; figures share those that are equal.

    Raises UsageError for a setting of what the figure sets itself: its folders and legends would say otherwise.
    """
    if taken := overruled(figure, version):
        raise UsageError("\n".join(_not_here(figure, key, setting) for key, setting in taken.items()))
    found = []
    for of, need in figure.needs().items():
        levels = need.levels if version.levels is None else min(need.levels, version.levels)
        branches = [
            {"name": name, "count": count, "levels": f"1-{min(last, levels)}"}
            for name, (count, last) in need.branches.items()
            if levels
        ]
        name = config.member_name(of.preset, dict(of.settings))
        settings = {"name": name, "branch": branches, **dict(of.settings)}
        settings |= dict(map(config.parse_override, version.settings))
        options = {"trials": version.trials or figure.trials, "levels": levels}
        options |= {"branches": version.branches, "scale": version.scale}
        run = Needed(of, settings, options, Path())
        folder = out / version.name / (name if version.name else run.experiment.folder_name)
        found.append(replace(run, folder=folder))
    return found


def overruled(figure: PaperFigure, version: Version) -> dict[str, str]:
    """The settings, by key, of what the figure sets itself, in its setups or by taking presets that differ there.

    Not those of data, whose names and means go with a network: figures 1 and 14 show networks on two datasets.
    """
    first, *others = figure.needs()
    its_own = {"name", *(key for of in (first, *others) for key, _ in of.settings)}
    its_own |= {key for of in others for key in differences(experiment(first), of) if not key.startswith("data.")}
    given = {config.parse_override(setting)[0]: setting for setting in version.settings}
    return {key: setting for key, setting in given.items() if key in its_own}


def _not_here(figure: PaperFigure, key: str, setting: str) -> str:
    preset = min((of.preset for of in figure.needs()), key=len)  # the plain one: variants have longer names
    alone = f"lth run {preset} {shlex.quote(setting)}"
    return f"{key}: figure {figure.number} sets it itself; leave {setting} out, or run it without the figure: {alone}"


def make(
    number: int, version: Version, out: Path, *, console: Console, dry_run: bool = False, **means: Any
) -> list[Path]:
    """Train what figure `number` needs and is not stored below `out` yet, draw it, and return the picture's paths.

    `means`: data_root, engine, device, workers, threads, executor, as `lth.run` takes them.
    """
    from lth.execution import running

    figure = figure_of(number)
    leads, runs = not executors.follows(), needed(figure, version, out)
    for n, run in enumerate(runs, 1):
        if leads:
            console.print(f"figure {number}, run {n} of {len(runs)}: {run.folder}", highlight=False, soft_wrap=True)
        running.run(
            run.setup.preset,
            run.settings,
            out=run.folder,
            dry_run=dry_run,
            pictures=False,
            console=console,
            **run.options,
            **means,
        )
    if dry_run or not leads:
        return []
    found = {run.setup: tables.load(run.folder) for run in runs}
    folder = out / version.name / FOLDER
    atomic.make_folder(folder)
    return plots.save(draw(figure, found, version.said), folder / f"figure-{number:02}")


# ------------------------------------------------------------------------------------------------------------- pictures


def draw(figure: PaperFigure, runs: Runs, note: str = "") -> Figure:
    """The figure's panels, the paper's curve in grey behind ours where it is known."""
    if figure.by_test:
        runs = {of: by_test(run) for of, run in runs.items()}
    count = len(figure.panels) or len(figure.portraits)
    columns = 2 if count in (2, 4) else min(3, count)
    rows = -(-count // columns)
    width = (plots.PANEL[0] + 0.6) * columns
    caption = plots.caption_of(list(runs.values()), width)
    size = (width, (plots.PANEL[1] + 0.9) * rows + 0.5 + 0.16 * caption.count("\n"))
    with mpl.rc_context(plots.FONTS):
        picture = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.1))
        grid = list(picture.subplots(rows, columns, squeeze=False).flat)
        for axes, panel in zip(grid, figure.panels or figure.portraits, strict=False):
            draw_panel(axes, panel, runs) if isinstance(panel, Panel) else draw_portrait(axes, panel, runs)
        for axes in grid[count:]:
            axes.remove()
        longest = max(map(lines_of, picture.axes), default=0)
        picture.set_figheight(size[1] + 0.18 * rows * max(0, longest - 3))
        picture.suptitle(textwrap.fill(f"Figure {figure.number}. {figure.about}", int(9.5 * width)), fontsize=12)
        if figure.portraits:  # histograms have no mean and no error bars
            caption = caption.replace("mean (min-max) of", "taken together:")
        labels = [label for axes in picture.axes for label in axes.get_legend_handles_labels()[1]]
        marked = ", with the markers of ours" if any(map(_marked, figure.panels)) else ""
        there = any(label.startswith("the paper") for label in labels)
        grey = f"Grey: the paper's own curves{marked}. " if there else ""
        stop = "Early stop here: the minimum of test loss, as in the paper. " if figure.by_test else ""
        plots.write_caption(picture, f"{note}{stop}{grey}\n{caption}".strip())
    return picture


def draw_panel(axes: Axes, panel: Panel, runs: Runs) -> None:
    ours = list(_ours(panel, runs))
    axes.set_title(panel.title)
    if not ours:
        axes.text(0.5, 0.5, "nothing stored yet", ha="center", va="center", transform=axes.transAxes, color="0.4")
        return
    behind = list(_paper(panel, ours, runs))
    measured = {scaled_column(panel.column, runs[line.setup].experiment) for line in panel.lines}
    quantity = measured.pop() if len(measured) == 1 else panel.column
    if panel.axis == "iteration":
        plots.draw_bands(axes, [*behind, *ours])
        plots.y_axis(axes, quantity)
        plots.zoom(axes, ours, max((c.x[-1] for c in panel.paper), default=np.inf))
    else:
        plots.draw_bars(axes, [*behind, *ours])
        plots.y_axis(axes, quantity)
        if not panel.column.endswith("iteration"):
            plots.focus(axes, ours)
        _density_axis(axes, panel, np.concatenate([s.x for s in ours]))
    legend(axes, handlelength=3)


def legend(axes: Axes, **look: Any) -> None:
    """Below a panel; in one column where its labels leave no room for two."""
    handles, labels = axes.get_legend_handles_labels()
    labels = [label.replace(" ,", ",") for label in labels]  # the paper's own spelling
    look |= {"loc": "upper center", "bbox_to_anchor": (0.5, -0.17), "frameon": False}
    axes.legend(handles, labels, ncols=_columns(labels), **look)


def _columns(labels: Sequence[str]) -> int:
    half = -(-len(labels) // 2)
    return 1 if sum(max(map(len, column), default=0) for column in (labels[:half], labels[half:])) > WIDE else 2


def lines_of(axes: Axes) -> int:
    """How many lines a panel's legend has."""
    labels = axes.get_legend_handles_labels()[1]
    return -(-len(labels) // _columns(labels))


def _density_axis(axes: Axes, panel: Panel, x: np.ndarray) -> None:
    log = not panel.axis.startswith("linear")
    if panel.axis.endswith("percent"):
        plots.percent_axis(axes, x, log=log)
        return
    axes.set_xscale("log" if log else "linear")
    axes.invert_xaxis()
    axes.set_xlabel("thousands of weights remaining")


def _ours(panel: Panel, runs: Runs) -> Iterator[plots.Series]:
    several = len({line.setup for line in panel.lines}) > 1
    setups = list(dict.fromkeys(line.setup for line in panel.lines))
    for i, line in enumerate(panel.lines):
        run = runs[line.setup]
        if line.level is not None:
            look = plots.level_look(i, len(panel.lines)) | {"linestyle": "-" if line.role == "ticket" else "--"}
            found = plots.iteration_series(run, panel.column, [line.level], line.role)
            yield from (replace(series, label=line.label, look=look) for series in found)
            continue
        look = plots.run_look(setups.index(line.setup), line.role) if several else plots.family_look(line.role)
        series = _by_density(run, panel, line.role)
        if series is not None:
            yield replace(series, label=line.label, look=look)


def _by_density(run: Records, panel: Panel, role: str) -> plots.Series | None:
    """A line of a panel against density: its column over trials, at percent or thousands of weights remaining."""
    column = scaled_column(panel.column, run.experiment)
    if column not in run.summary:
        return None
    table = statistics.aggregate(run.summary, column)
    table = table.loc[(table["family"] == role) & (table["density"] > 0)]
    if not len(table):
        return None
    x = 100 * table["density"] if panel.axis.endswith("percent") else table["weights"] / 1000
    mean, low, high = (table[name].to_numpy(float) for name in ("mean", "min", "max"))
    return plots.Series("", x.to_numpy(float), mean, low, high)


def scaled_column(column: str, of: Experiment) -> str:
    """test_accuracy_at_30000 of a run at scale 0.1: test_accuracy_at_3000."""
    kind, at, iteration = column.rpartition("_at_")
    return f"{kind}{at}{max(1, round(int(iteration) * of.scale))}" if iteration.isdigit() else column


def _paper(panel: Panel, ours: Sequence[plots.Series], runs: Runs) -> Iterator[plots.Series]:
    """The paper's curves within our own range, each with our line's marker where there are several experiments.

    They have one entry in the legend.
    """
    markers = {series.label: series.look["marker"] for series in ours} if _marked(panel) else {}
    low, high = min(s.x.min() for s in ours), max(s.x.max() for s in ours)
    label = f"the paper{_other_length(panel, runs)}"
    for curve in panel.paper:
        x, mean = np.array(curve.x), np.array(curve.mean)
        kept = (x >= 0.99 * low) & (x <= 1.01 * high)
        if kept.any():
            look = plots.PAPER | {"linestyle": "-" if curve.role == "ticket" else "--", "linewidth": 1.8}
            look |= {"marker": markers.get(curve.series, "")}
            yield plots.Series(label, x[kept], mean[kept], mean[kept], mean[kept], look)
            label = "_"


def _marked(panel: Panel) -> bool:
    """Whether the paper's lines need markers to tell their experiments apart."""
    return len({curve.setup for curve in panel.paper}) > 1


def _other_length(panel: Panel, runs: Runs) -> str:
    """How long the paper's trainings are, where ours are not and what the panel shows hangs on it."""
    pairs = [(experiment(of), runs[of].experiment) for of in {curve.setup for curve in panel.paper} & {*runs}]
    lengths = [
        theirs.recipe.iterations
        for theirs, ours in pairs
        if theirs.recipe.iterations != ours.recipe.iterations
        and panel.axis != "iteration"
        and not comparable(panel.column, True, bool(theirs.recipe.warmup or theirs.recipe.drops))
    ]
    return f", trainings of {' to '.join(f'{n:,}' for n in sorted({min(lengths), max(lengths)}))}" if lengths else ""


def by_test(run: Records) -> Records:
    """The run with early stop at the minimum of test loss, as figures 17, 18 and 25 have it."""
    curves = run.curves.dropna(subset=["test_loss"])
    best = curves.loc[curves.groupby(list(records.PLACE))["test_loss"].idxmin()]
    best = best[[*records.PLACE, "iteration", "test_accuracy"]]
    merged = run.summary.merge(best, on=list(records.PLACE), how="left")
    summary = run.summary.assign(
        early_stop_iteration=merged["iteration"].to_numpy(float),
        test_accuracy_at_early_stop=merged["test_accuracy"].to_numpy(float),
    )
    return replace(run, summary=summary)


# ------------------------------------------------------------------------------------------------- inside the tickets


SAID = {
    "starts": "first value of surviving weights",
    "movement": "distance of a weight from its start",
    "growth": "growth of a weight's magnitude",
    "incoming": "share of a unit's incoming weights that survive",
    "outgoing": "share of a unit's outgoing weights that survive",
}


def draw_portrait(axes: Axes, portrait: Portrait, runs: Runs) -> None:
    """Densities (area 1), a line a layer: trials taken together."""
    run = runs[portrait.setup]
    drawn = list(_histograms(portrait, run))
    density = run.summary.loc[run.summary["level"] == portrait.level, "density"]
    if not drawn:
        axes.text(0.5, 0.5, "nothing stored yet", ha="center", va="center", transform=axes.transAxes, color="0.4")
        return
    axes.set_title(f"{plots.format_percent(100 * density.mean())}% of weights")
    for i, (label, edges, counts, dashed) in enumerate(drawn):
        colour = plots.LOOKS[(i // 2 if portrait.kind in weight_movement.KINDS else i) % len(plots.LOOKS)][0]
        share = counts / (counts.sum() or 1) / np.diff(edges)
        axes.stairs(share, edges, label=label, color=colour, linestyle="--" if dashed else "-", linewidth=1.3)
    axes.set_xlabel(SAID[portrait.kind])
    axes.set_ylabel("density")
    axes.spines[["top", "right"]].set_visible(False)
    legend(axes)


def _histograms(portrait: Portrait, run: Records) -> Iterator[tuple[str, np.ndarray, np.ndarray, bool]]:
    """(label, edges of bins, counts over trials, whether out of the ticket) of each line."""
    trials = sorted(run.summary.loc[run.summary["level"] == portrait.level, "trial"].unique())
    if portrait.kind in weight_movement.KINDS:
        table = weight_movement.load(run.folder, portrait.level, trials)
        table = table.loc[table["kind"] == portrait.kind]
        for (layer, which), rows in table.groupby(["layer", "which"], sort=False):
            counts = rows[[str(n) for n in range(1, anatomy.BINS + 1)]].to_numpy(float)
            edges, counts = pooled(rows["limit"].to_numpy(float), counts, centred=portrait.kind != "movement")
            yield f"{_plain(layer)}, {which}", edges, counts, which != "in the ticket"
        return
    file, which = (anatomy.STARTS, "alive") if portrait.kind == "starts" else (anatomy.DEGREES, portrait.kind)
    folders = [run.folder / f"trial-{trial}/level-{portrait.level:02}" for trial in trials]
    found = [histograms for folder in folders if (histograms := anatomy.histograms(folder, file))]
    for layer in dict.fromkeys(layer for histograms in found for layer, _ in histograms):
        limits, counts = zip(*(histograms[layer, which] for histograms in found), strict=True)
        edges, together = pooled(limits, counts, centred=file != anatomy.DEGREES)
        yield _plain(layer), edges, together, False


def pooled(
    limits: Sequence[float] | np.ndarray, counts: Sequence[Sequence[float]] | np.ndarray, centred: bool
) -> tuple[np.ndarray, np.ndarray]:
    """One histogram of several: the edges of its bins, and what falls into each.

    Each of the several has equal bins, from minus its limit (or from 0, where not `centred`) to its limit. What one of
    them has in a bin is taken to lie there evenly.
    """
    edges = lambda limit: np.linspace(-limit if centred else 0, limit, anatomy.BINS + 1)
    common = edges(max(limits))
    below = [np.interp(common, edges(limit), [0.0, *np.cumsum(own)]) for limit, own in zip(limits, counts, strict=True)]
    return common, np.diff(np.sum(below, axis=0))


def _plain(layer: str) -> str:
    return layer.removesuffix(".weight")


# -------------------------------------------------------------------------------------------------------------- listing


def listing(
    version: Version, out: Path, seconds: Callable[[Experiment, Training], float] | None = None
) -> Iterator[str]:
    """A line a figure, beginning with its number. `seconds` estimates one training of an experiment at each level."""
    for number, figure in figures().items():
        if taken := overruled(figure, version):
            yield f"{number:<2}  {figure.about}: it sets {', '.join(taken)} itself"
        else:
            yield _line(number, figure, needed(figure, version, out), seconds)


def _line(number: int, figure: PaperFigure, runs: Sequence[Needed], seconds: Any) -> str:
    total = done = 0
    left = 0.0
    for run in runs:
        of = run.experiment
        trainings = plan(of)
        todo = [t for t in trainings if not (run.folder.exists() and outcomes.is_done(run.folder, t.id))]
        total, done = total + len(trainings), done + len(trainings) - len(todo)
        if seconds and todo:
            left += sum(seconds(of, t) for t in todo)
    from lth.execution.progress import duration

    time = f"about {duration(left)} here" if left else "nothing left to train"
    count = f"{len(runs)} run{'s' * (len(runs) > 1)}, {total:,} trainings, {done:,} stored"
    return f"{number:<2}  {figure.about}: {count}; {time}"
