"""Panels on the contents of tickets: histograms over all trials."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from matplotlib.axes import Axes

from lth.measures import anatomy, tables
from lth.measures.figures import draw_histogram, draw_movement, plain
from lth.measures.histograms import pooled
from lth.papers.figures import Portrait
from lth.papers.setups import Setup
from lth.results.captions import format_percent
from lth.results.panels import draw_nothing
from lth.results.records import Records

LABELS = {
    "starts": "first value of surviving weights",
    "incoming": "share of a unit's incoming weights that survive",
    "outgoing": "share of a unit's outgoing weights that survive",
}
FIELDS = {"starts": "alive_starts", "incoming": "incoming", "outgoing": "outgoing"}  # column of a layer's anatomy


def draw_portrait(axes: Axes, portrait: Portrait, runs: Mapping[Setup, Records]) -> None:
    """Draw densities (of area 1), one line per layer."""
    run = runs[portrait.setup]
    (_draw_movement if portrait.measure == "movement" else _draw_anatomy)(axes, portrait, run)
    if not axes.patches:
        draw_nothing(axes, f"level {portrait.level} is not stored")
        return
    density = run.summary.loc[run.summary["level"] == portrait.level, "density"]
    axes.set_title(f"{format_percent(100 * density.mean())}% of weights")


def _draw_movement(axes: Axes, portrait: Portrait, run: Records) -> None:
    table = tables.read("movement", run.folder)
    if table is not None and len(rows := table.loc[table["level"] == portrait.level]):
        draw_movement(axes, rows, portrait.kind)


def _draw_anatomy(axes: Axes, portrait: Portrait, run: Records) -> None:
    for i, (layer, edges, counts) in enumerate(_histograms(portrait, run)):
        draw_histogram(axes, plain(layer), edges, counts, i)
        axes.set_xlabel(LABELS[portrait.kind])


def _histograms(portrait: Portrait, run: Records) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """The histogram of each layer: its name, the edges of its bins, the counts over trials."""
    tickets = [ticket for (_, level), ticket in anatomy.read(run.folder).items() if level == portrait.level]
    for layers in zip(*(ticket.layers for ticket in tickets), strict=True):
        starts = portrait.kind == "starts"
        limits = [layer.limit if starts else 1.0 for layer in layers]
        counts = [getattr(layer, FIELDS[portrait.kind]) for layer in layers]
        if all(counts):
            yield layers[0].layer, *pooled(limits, counts, centred=starts)
