"""Figures of measures."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from lth.measures import anatomy, tables
from lth.measures.histograms import BINS, pooled
from lth.measures.weight_movement import KINDS
from lth.results.captions import caption_of, format_percent
from lth.results.looks import LOOKS
from lth.results.panels import FONTS, PANEL, draw_bars, percent_axis, write_caption
from lth.results.records import Records
from lth.results.series import Series

LABELS = {"movement": "distance of a weight from its start", "growth": "growth of a weight's magnitude"}


def layers(run: Records) -> dict[str, Figure]:
    """Of each layer: the weights that survive, and the units that no surviving weight enters."""
    table = _shares(run)
    with mpl.rc_context(FONTS):
        figure, panels = _figure(run, 2)
        for axes, (value, label) in zip(panels, (("alive", "weights remaining"), ("dead", "dead units")), strict=True):
            draw_bars(axes, list(_by_layer(table, value)))
            axes.set_ylabel(f"{label} in each layer, %")
            axes.set_ylim(0, max(1, 1.05 * axes.dataLim.y1))
            percent_axis(axes, table["percent"])
        panels[-1].legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    return {"layers": figure}


def _shares(run: Records) -> pd.DataFrame:
    """One row per ticket and layer: shares of the layer, and the percent of all weights."""
    rows = []
    for (_, level), ticket in anatomy.read(run.folder).items():
        alive, weights = (sum(getattr(layer, name) for layer in ticket.layers) for name in ("alive", "weights"))
        for layer in ticket.layers:
            shares = (layer.alive / layer.weights, layer.dead_units / layer.units)
            rows.append((level, layer.layer, *shares, 100 * alive / weights))
    table = pd.DataFrame(rows, columns=["level", "layer", "alive", "dead", "percent"])
    return table.loc[table["percent"] > 0]


def _by_layer(table: pd.DataFrame, value: str) -> Iterator[Series]:
    """One series per layer, in percent over the percent of all weights."""
    for i, layer in enumerate(dict.fromkeys(table["layer"])):
        levels = table.loc[table["layer"] == layer].groupby("level")
        stats = levels.agg(x=("percent", "mean"), mean=(value, "mean"), min=(value, "min"), max=(value, "max"))
        x, mean, low, high = stats.to_numpy(dtype=float).T
        colour, marker = LOOKS[i % len(LOOKS)]
        look = {"color": colour, "marker": marker}
        yield Series(plain(layer), x, 100 * np.clip(mean, low, high), 100 * low, 100 * high, look)


def movement(run: Records) -> dict[str, Figure]:
    """How far weights move, and by how much they grow, at each level: one figure per level."""
    table = tables.read("movement", run.folder)
    assert table is not None
    return {f"movement-level-{level:02}": _movement_at(run, table, int(level)) for level in sorted({*table["level"]})}


def _movement_at(run: Records, table: pd.DataFrame, level: int) -> Figure:
    rows = table.loc[table["level"] == level]
    density = run.summary.loc[run.summary["level"] == level, "density"].mean()
    with mpl.rc_context(FONTS):
        figure, panels = _figure(run, len(KINDS))
        for axes, kind in zip(panels, KINDS, strict=True):
            draw_movement(axes, rows, kind)
            axes.set_title(f"{format_percent(100 * density)}% of weights")
        panels[-1].legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    return figure


def draw_movement(axes: Axes, table: pd.DataFrame, kind: str) -> None:
    """Draw the histograms of a kind, trials taken together: a line per layer, dashed for weights not in the ticket."""
    rows = table.loc[table["kind"] == kind]
    for i, ((layer, which), part) in enumerate(rows.groupby(["layer", "which"], sort=False)):
        counts = part[[str(n) for n in range(1, BINS + 1)]].to_numpy(float)
        edges, together = pooled(part["limit"].to_numpy(float), counts, centred=kind != "movement")
        draw_histogram(axes, f"{plain(str(layer))}, {which}", edges, together, i // 2, which != "in the ticket")
    axes.set_xlabel(LABELS[kind])


def draw_histogram(
    axes: Axes, label: str, edges: np.ndarray, counts: np.ndarray, colour: int, dashed: bool = False
) -> None:
    """Draw a histogram as a density: its area is 1."""
    density = counts / (counts.sum() or 1) / np.diff(edges)
    line = "--" if dashed else "-"
    axes.stairs(density, edges, label=label, color=LOOKS[colour % len(LOOKS)][0], linestyle=line, linewidth=1.3)
    axes.set_ylabel("density")
    axes.spines[["top", "right"]].set_visible(False)


def plain(layer: str) -> str:
    """The name of a layer without `.weight`."""
    return layer.removesuffix(".weight")


def _figure(run: Records, count: int) -> tuple[Figure, list[Axes]]:
    """A row of panels with the run's caption."""
    width = PANEL[0] * count + 1.2
    caption = caption_of([run], width)
    size = (width, PANEL[1] + 0.16 * caption.count("\n"))
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.1))
    write_caption(figure, caption)
    return figure, list(figure.subplots(1, count, squeeze=False).flat)
