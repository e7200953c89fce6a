"""The layout of a figure: size, grid of panels, one legend, caption, and its files."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from lth.storage import atomic

PANEL = (4.6, 3.5)  # in inches, if no width is given
NARROWEST = 1.9  # width of one of several panels in a row, in inches
FORMATS = ("png", "svg", "pdf")
SCREEN, PAPER = 10.0, 8.0  # font size in points, without a width and with one
TEX = {
    "\\": r"\textbackslash{}",
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


@contextmanager
def fonts(width: float | None) -> Iterator[None]:
    """Text sizes: for the screen or, with a width, for print. Text stays text in the files."""
    size = SCREEN if width is None else PAPER
    look: dict[Any, Any] = {"svg.fonttype": "none", "pdf.fonttype": 42, "svg.hashsalt": "lth"}
    look |= {"lines.linewidth": 0.13 * size, "lines.markersize": 0.45 * size, "errorbar.capsize": 0.2 * size}
    look |= dict.fromkeys(("font.size", "axes.titlesize", "axes.labelsize"), size)
    look |= dict.fromkeys(("legend.fontsize", "xtick.labelsize", "ytick.labelsize"), size - 1)
    with mpl.rc_context(look):
        yield


def sheet(panels: int, width: float | None, columns: int = 3) -> tuple[Figure, list[Axes]]:
    """A figure with a grid of `panels`, at most `columns` per row, or fewer if `width` requires it."""
    columns = min(panels, columns)
    if width is not None:
        columns = max(1, min(columns, int(width // NARROWEST)))
    rows = -(-panels // columns)
    across = PANEL[0] * columns if width is None else width
    size = (across, across / columns * PANEL[1] / PANEL[0] * rows)
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.06))
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in grid[panels:]:
        axes.remove()
    return figure, grid[:panels]


def finish(figure: Figure, caption: str, width: float | None, title: str = "", legend_title: str = "") -> None:
    """Add one legend above all panels and, without a width, the title and the caption.

    With a width the figure is meant for a paper, which sets the caption itself; `save` writes it to files.
    """
    figure.set_label(f"{title}. {caption}" if title else caption)
    across = figure.get_figwidth()
    heading = textwrap.fill(title, int(10 * across)) if width is None else ""
    _wrap_titles(figure)
    _legend(figure, heading or legend_title, 1.2 if heading else 1.0)
    if width is not None:
        return
    lines = [textwrap.fill(line, int(13 * across), break_on_hyphens=False) for line in caption.splitlines()]
    _taller(figure, 0.15 * sum(line.count("\n") + 1 for line in lines))
    figure.supxlabel("\n".join(lines), x=0.01, ha="left", fontsize=8.5, color="0.25")


def _wrap_titles(figure: Figure) -> None:
    """Wrap titles that are wider than their panel."""
    for axes in figure.axes:
        place = axes.get_subplotspec()
        inches = place.get_position(figure).width * figure.get_figwidth() if place else PANEL[0]
        axes.set_title(textwrap.fill(axes.get_title(), int(inches / (0.0075 * mpl.rcParams["font.size"]))))


def _legend(figure: Figure, title: str, scale: float) -> None:
    """Add every label once, in as many columns as fit, below a title that is larger by `scale`.

    matplotlib would not lay out a figure title next to a legend outside of the panels.
    """
    handles = {label: h for axes in figure.axes for h, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    size = scale * mpl.rcParams["font.size"]
    _taller(figure, 0.02 * size * (title.count("\n") + 1) * bool(title))
    if len(handles) < 2:
        figure.suptitle(title, fontsize=size)
        return
    letter = 0.0068 * mpl.rcParams["font.size"]  # approximate width of a letter in inches
    columns = max(1, min(len(handles), int(figure.get_figwidth() / (0.65 + letter * max(map(len, handles))))))
    rows = -(-len(handles) // columns)
    columns = -(-len(handles) // rows)
    look = {"loc": "outside upper center", "ncols": columns, "frameon": False, "handlelength": 3.0}
    figure.legend(handles.values(), handles.keys(), title=title or None, title_fontsize=size, **look)
    _taller(figure, 0.018 * mpl.rcParams["font.size"] * rows + 0.1)


def _taller(figure: Figure, inches: float) -> None:
    figure.set_figheight(figure.get_figheight() + inches)


def save(figure: Figure, path: Path) -> list[Path]:
    """Write PATH.png, .svg and .pdf without dates, so that equal figures are equal files, and the caption.

    PATH.txt contains the caption, and PATH.tex includes the PDF with it. Returns the paths of the pictures.
    """
    with fonts(None):  # text properties of the files; sizes were set when the figure was drawn
        pictures = [path.with_name(f"{path.name}.{suffix}") for suffix in FORMATS]
        for picture in pictures:
            date = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(picture.suffix, {})
            figure.savefig(picture, dpi=150, metadata=date)
    caption = str(figure.get_label())
    atomic.write_file(path.with_name(f"{path.name}.txt"), f"{caption}\n".encode())
    atomic.write_file(path.with_name(f"{path.name}.tex"), tex(path.name, caption).encode())
    return pictures


def tex(name: str, caption: str) -> str:
    """A LaTeX figure environment for NAME.pdf with its caption."""
    escaped = re.sub(r"[\\&%$#_{}~^]", lambda match: TEX[match[0]], " ".join(caption.split()))
    lines = (
        r"\begin{figure}",
        r"  \centering",
        rf"  \includegraphics[width=\linewidth]{{{name}.pdf}}",
        rf"  \caption{{{escaped}}}",
        rf"  \label{{fig:{name}}}",
        r"\end{figure}",
    )
    return "\n".join(lines) + "\n"
