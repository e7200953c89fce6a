"""Legends below the panels of a figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes

WIDE = 58  # letters of labels that have room side by side below a panel


def legend(axes: Axes, **look: Any) -> None:
    """Draw the legend below a panel, in one column if its labels leave no room for two."""
    handles, labels = axes.get_legend_handles_labels()
    labels = [label.replace(" ,", ",") for label in labels]  # the paper's own spelling
    look |= {"loc": "upper center", "bbox_to_anchor": (0.5, -0.17), "frameon": False}
    axes.legend(handles, labels, ncols=_columns(labels), **look)


def lines_of(axes: Axes) -> int:
    """The number of lines of a panel's legend."""
    labels = axes.get_legend_handles_labels()[1]
    return -(-len(labels) // _columns(labels))


def _columns(labels: Sequence[str]) -> int:
    half = -(-len(labels) // 2)
    return 1 if sum(max(map(len, column), default=0) for column in (labels[:half], labels[half:])) > WIDE else 2
