"""Figures of measures."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lth.measures import anatomy, tables
from lth.measures.histograms import BINS, pooled
from lth.measures.weight_movement import KINDS
from lth.results.captions import caption_of, format_percent
from lth.results.looks import LOOKS
from lth.results.panels import draw_bars, percent_axis
from lth.results.records import Records
from lth.results.series import Series
from lth.results.sheets import finish, fonts, sheet

LABELS = {"movement": "distance of a weight from its start", "growth": "growth of a weight's magnitude"}


def layers(run: Records, width: float | None = None) -> dict[str, Figure]:
    """The surviving weights of each layer, and its units that no surviving weight enters."""
    table = _shares(run)
    with fonts(width):
        figure, panels = sheet(2, width)
        for axes, (value, label) in zip(panels, (("alive", "weights remaining"), ("dead", "dead units")), strict=True):
            draw_bars(axes, list(_by_layer(table, value)))
            axes.set_title(f"{label.capitalize()} in each layer")
            axes.set_ylabel(f"percent of {'weights' if value == 'alive' else 'units'}")
            axes.set_ylim(0, max(1, 1.05 * axes.dataLim.y1))
            percent_axis(axes, table["percent"])
        finish(figure, caption_of([run]), width)
    return {"layers": figure}


def _shares(run: Records) -> pd.DataFrame:
    """One row per ticket and layer: percentages of the layer and of all weights."""
    rows = []
    for (_, level), ticket in anatomy.read(run.folder).items():
        alive, weights = (sum(getattr(layer, name) for layer in ticket.layers) for name in ("alive", "weights"))
        for layer in ticket.layers:
            shares = (layer.alive / layer.weights, layer.dead_units / layer.units)
            rows.append((level, layer.layer, *shares, 100 * alive / weights))
    table = pd.DataFrame(rows, columns=["level", "layer", "alive", "dead", "percent"])
    return table.loc[table["percent"] > 0]


def _by_layer(table: pd.DataFrame, value: str) -> Iterator[Series]:
    """One series per layer, in percent, against the percentage of all weights."""
    for i, layer in enumerate(dict.fromkeys(table["layer"])):
        levels = table.loc[table["layer"] == layer].groupby("level")
        stats = levels.agg(x=("percent", "mean"), mean=(value, "mean"), min=(value, "min"), max=(value, "max"))
        x, mean, low, high = stats.to_numpy(dtype=float).T
        colour, marker = LOOKS[i % len(LOOKS)]
        look = {"color": colour, "marker": marker}
        yield Series(plain(layer), x, 100 * np.clip(mean, low, high), 100 * low, 100 * high, look)


def movement(run: Records, width: float | None = None) -> dict[str, Figure]:
    """How far weights move and by how much they grow, at each level: one figure per level."""
    table = tables.read("movement", run.folder)
    assert table is not None
    return {
        f"movement-level-{level:02}": _movement_at(run, table, int(level), width) for level in sorted({*table["level"]})
    }


def _movement_at(run: Records, table: pd.DataFrame, level: int, width: float | None) -> Figure:
    rows = table.loc[table["level"] == level]
    density = run.summary.loc[run.summary["level"] == level, "density"].mean()
    with fonts(width):
        figure, panels = sheet(len(KINDS), width)
        for axes, kind in zip(panels, KINDS, strict=True):
            draw_movement(axes, rows, kind)
            axes.set_title(f"{kind.capitalize()} at {format_percent(100 * density)}% of weights")
        finish(figure, caption_of([run]), width)
    return figure


def draw_movement(axes: Axes, table: pd.DataFrame, kind: str) -> None:
    """Draw the histograms of a kind over all trials: one line per layer, dashed for weights outside the ticket."""
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
