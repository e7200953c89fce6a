"""The panels of a figure: draw curves and axes into matplotlib Axes."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator, StrMethodFormatter

from lth.results.captions import format_percent, quantity_label
from lth.results.series import Series

LABEL = 0.38  # minimum distance between two tick labels, in inches
MOST_BARS = 40  # maximum number of error bars in a panel: more hide the means
UNITS = ("iteration", "accuracy", "loss")  # quantity -> label of the y axis


def draw_bars(axes: Axes, series: Sequence[Series]) -> int:
    """Draw curves with error bars from minimum to maximum, unless these are equal everywhere.

    If there would be more than MOST_BARS, each curve has error bars at every n-th point only, at other points than its
    neighbour. Returns n.
    """
    every = bars_every([len(s.x) for s in series if not np.array_equal(s.low, s.high)])
    for i, s in enumerate(series):
        look = {"marker": "o", "elinewidth": 0.7 * mpl.rcParams["lines.linewidth"], **s.look}
        bars = None if np.array_equal(s.low, s.high) else np.stack([s.mean - s.low, s.high - s.mean])
        axes.errorbar(s.x, s.mean, bars, label=s.label, errorevery=(i % every, every), **look)
    return every


def bars_every(points: Sequence[int]) -> int:
    """The smallest n for which curves with so many points have at most MOST_BARS error bars, at every n-th point."""
    return next(n for n in itertools.count(1) if sum(-(-count // n) for count in points) <= max(MOST_BARS, len(points)))


def draw_nothing(axes: Axes, why: str = "nothing stored yet") -> None:
    """Write into an empty panel why it is empty."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, why, ha="center", va="center", transform=axes.transAxes, color="0.4")


def draw_marks(axes: Axes, series: Iterable[Series]) -> None:
    """Mark the winning level of each curve with a ring, and early stops that were not reached with a cross."""
    for s in series:
        look = {"linestyle": "", "color": s.look.get("color", "black"), "zorder": 4}
        if s.winning is not None:
            at = slice(s.winning, s.winning + 1)
            axes.plot(s.x[at], s.mean[at], marker="o", markersize=12, markerfacecolor="none", **look)
        if s.late:
            axes.plot(s.x[[*s.late]], s.mean[[*s.late]], marker="x", markersize=9, **look)


def marked(series: Iterable[Series]) -> str:
    """The sentences of a caption that explain these marks; empty if there are none."""
    series = list(series)
    ring = ["Ring: the winning level."] if any(s.winning is not None for s in series) else []
    return " ".join(ring + (["Cross: an early stop that was not reached."] if any(s.late for s in series) else []))


def draw_bands(axes: Axes, series: Sequence[Series]) -> None:
    """Draw curves on a light band from minimum to maximum, with few markers, at different points for each curve."""
    for i, s in enumerate(series):
        markers = (
            0.15 * i / len(series),
            0.15,
        )  # fractions of the panel's diagonal; the first is the distance
        look = {"markevery": markers, **s.look}
        (line,) = axes.plot(s.x, s.mean, label=s.label, **look)
        if not np.array_equal(s.low, s.high):
            axes.fill_between(s.x, s.low, s.high, color=line.get_color(), alpha=0.15, linewidth=0, zorder=1)


def percent_axis(axes: Axes, percents: Iterable[float], log: bool = True) -> None:
    """Make x the percentage of weights remaining, decreasing to the right, with as many level ticks as fit."""
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
    """The indices of decreasing `positions` that are at least `gap` apart, beginning with the first."""
    picked = [0]
    for i, position in enumerate(positions):
        if positions[picked[-1]] - position >= gap:
            picked.append(i)
    return picked


def focus(axes: Axes, series: Sequence[Series], falling: bool = False) -> float | None:
    """Cut the y axis at the bottom (at the top if `falling`) if outlying means would compress all others.

    A mean is outlying if it is below Tukey's fence (the first quartile minus 1.5 interquartile ranges) and below the
    best mean of every curve. The axis is cut only if showing these means would increase its range by more than half. A
    triangle marks each mean that is cut off. Returns the lowest (highest) mean if the axis was cut. With `falling`,
    lower is better, so everything is mirrored.
    """
    sign = -1 if falling else 1
    curves = [(sign * s.mean, (sign * (s.low if falling else s.high)).max()) for s in series]
    means = np.concatenate([mean for mean, _ in curves])
    top, (first, third) = max(high for _, high in curves), np.quantile(means, [0.25, 0.75])
    lowest = min(mean.max() for mean, _ in curves)
    fence = min(first - 1.5 * (third - first), lowest - 0.05 * (top - lowest))
    if len(means) < 12 or top <= fence or top - means.min() <= 1.5 * (top - fence):
        return None
    axes.set_ylim(*sorted((sign * fence, sign * (top + 0.05 * (top - fence)))))
    for s, (mean, _) in zip(series, curves, strict=True):
        if len(cut := s.x[mean < fence]):
            look = {"marker": "^" if falling else "v", "linestyle": "", "color": s.look.get("color"), "clip_on": False}
            (line,) = axes.plot(cut, np.full(len(cut), sign * fence), **look)
            line.set_in_layout(False)
    return float(sign * means.min())


def zoom(axes: Axes, series: Sequence[Series], until: float) -> None:
    """Make x the iteration, up to `until`. The steep beginning of the curves is outside of the frame.

    A curve that ends far from the others, such as one at chance, is outside too if it would take half of the panel.
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


def y_axis(axes: Axes, quantity: str, subject: str = "") -> None:
    """Set a panel's title to its quantity (a column of a table) and `subject`, and label and limit its y axis."""
    label = quantity_label(quantity)
    title = f"{subject}: {label}" if subject else label
    axes.set_title(title[:1].upper() + title[1:])
    axes.set_ylabel(next((unit for unit in UNITS if unit in label.partition(" at ")[0]), label))
    axes.grid(True, axis="y", color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if quantity.endswith("iteration"):
        top = axes.dataLim.y1
        axes.set_ylim(0, 1.05 * top if top > 0 else None)  # from 0, because trials may differ by only a few iterations
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    elif "accuracy" in quantity:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{round(100 * share, 6):g}%"))
        bottom, top = axes.get_ylim()
        if top > 1:
            axes.set_ylim(bottom, 1 + 0.02 * (1 - bottom))  # accuracies end at 1, plus half a marker
