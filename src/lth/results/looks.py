"""Colours, markers and line styles of curves: the same for a branch in every figure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import matplotlib as mpl
from matplotlib.colors import to_rgb

from lth.results.statistics import branch_order

# Okabe and Ito's colours, which the colour-blind can tell apart, then dark ones of Tol's for large sweeps, each with a
# marker. Yellow is left out, as it does not show on white.
LOOKS = [
    *(("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "D"), ("#E69F00", "v")),
    *(("#56B4E9", "P"), ("#000000", "X"), ("#882255", "*"), ("#999933", "p"), ("#332288", "<")),
]
LINES = ["-", "--", ":", "-.", (0, (6, 2, 1, 2, 1, 2)), (0, (1, 3)), (0, (8, 3))]
FAMILIES = ["ticket", "reinit", "random-mask", "continued"]  # these look the same in every figure; others follow


def level_look(i: int, n: int) -> dict[str, Any]:
    """The look of curve `i` of `n`: from dark to light, black for the first."""
    colour = mpl.colormaps["viridis"](0.88 * i / max(1, n - 1)) if i else "black"
    return {"color": colour, "marker": LOOKS[i % len(LOOKS)][1], "linestyle": "--" if i == 0 else "-"}


def family_look(name: str, names: Iterable[str] = ()) -> dict[str, Any]:
    """Colour, marker and line style of a branch: fixed for FAMILIES, by their order in `names` for others."""
    order = [*FAMILIES, *sorted({*names, name} - {*FAMILIES}, key=branch_order)]
    i = order.index(name)
    return {**_look(i), "linestyle": LINES[i % len(LINES)]}


def run_look(run: int, name: str, names: Iterable[str] = ()) -> dict[str, Any]:
    """The look if several runs are overlaid: the run decides colour and marker, the branch line style and filling."""
    hollow = {} if name == "ticket" else {"markerfacecolor": "white"}
    return {**family_look(name, names), **_look(run), **hollow}


def _look(i: int) -> dict[str, Any]:
    """Colour and marker; after one round of colours, each colour takes the next marker."""
    n = len(LOOKS)
    return {"color": LOOKS[i % n][0], "marker": LOOKS[(i + i // n) % n][1]}


def pale(look: Mapping[str, Any]) -> dict[str, Any]:
    """The look of a paper's curve behind a run's: a paler colour, a wide line, no markers."""
    red, green, blue = (0.4 * part + 0.6 for part in to_rgb(look["color"]))
    width = mpl.rcParams["lines.linewidth"]
    return {**look, "color": (red, green, blue), "marker": "", "linewidth": 3 * width, "zorder": 1}


def paper_look(role: str) -> dict[str, Any]:
    """The paler look of the branch with this role."""
    return pale(family_look(role))
