"""Text and HTML representations of tickets, for consoles and notebooks."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from html import escape
from numbers import Real
from typing import TYPE_CHECKING, Any

from lth.pruning import masks
from lth.pruning.masks import Mask
from lth.results.html import html_image, html_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Rows = Sequence[Mapping[str, Any]]
COLUMNS = ("level", "density", "weights", "early_stop_iteration", "score", "status")
SHOWN = 12  # maximum number of rows of a text and of curves in a chart


def ticket_line(mask: Mask, origin: Mapping[str, Any]) -> str:
    """One line on a ticket, for example `Ticket(51.20% of 250 weights in 2 layers; Net, trial 1, level 3)`."""
    alive, size = sum(masks.alive(mask).values()), masks.size(mask)
    layers = f"{len(mask)} layer{'s' * (len(mask) != 1)}"
    model = origin.get("model")
    name = str(model["name"]) if isinstance(model, Mapping) and "name" in model else ""
    where = ", ".join(filter(None, [name, *(f"{k} {origin[k]}" for k in ("trial", "level", "branch") if k in origin)]))
    return f"Ticket({percent(alive / size)} of {size:,} weights in {layers}{'; ' + where if where else ''})"


def ticket_html(mask: Mask, origin: Mapping[str, Any]) -> str:
    """The line of `ticket_line`, and a table of the layers."""
    alive = masks.alive(mask)
    rows = [
        [name, " x ".join(map(str, layer.shape)), f"{alive[name]:,}", percent(alive[name] / layer.numel())]
        for name, layer in mask.items()
    ]
    return f"<div>{escape(ticket_line(mask, origin))}{html_table(['layer', 'shape', 'weights', 'remain'], rows)}</div>"


def levels_text(rows: Rows) -> str:
    """One line per level; if there are many, those in the middle are left out."""
    lines = [
        ", ".join(f"{name} {cell}" for name, cell in zip(_names(rows), _cells(row, rows), strict=True) if cell)
             for row in rows]  # fmt: skip
    if len(lines) > SHOWN:
        lines = [*lines[: SHOWN // 2], "...", *lines[-SHOWN // 2 :]]
    return "\n  ".join([f"Tickets({len(rows)} levels)", *lines])


def levels_html(rows: Rows, curves: Rows) -> str:
    """A table of the levels, and a chart of their curves if they are known."""
    return f"<div>{html_table(_names(rows), [_cells(row, rows) for row in rows])}{_chart(rows, curves)}</div>"


def percent(share: float) -> str:
    return f"{100 * share:.2f}%"


def _names(rows: Rows) -> list[str]:
    present = [name for name in COLUMNS if any(name in row for row in rows)]
    return [name.replace("_", " ").replace("density", "weights remaining") for name in present]


def _cells(row: Mapping[str, Any], rows: Rows) -> list[str]:
    return [_cell(name, row.get(name)) for name in COLUMNS if any(name in other for other in rows)]


def _cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    if name == "density":
        return percent(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, Real) else str(value)


def _chart(rows: Rows, curves: Rows) -> str:
    """An image of one column by iteration with one curve per level; empty if there are no such curves."""
    column = _charted(curves)
    if column is None:
        return ""
    from matplotlib.figure import Figure  # not imported by a search that shows nothing

    figure = Figure(figsize=(5.2, 2.8), layout="constrained")
    _draw(figure.subplots(), rows, curves, column)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=120)
    return html_image(content.getvalue(), f"{column} by iteration")


def _charted(curves: Rows) -> str | None:
    """The column for the chart: of the validation set if possible, and a metric rather than the loss."""
    if not any(_is_number(row.get("iteration")) for row in curves):
        return None
    names = dict.fromkeys(name for row in curves for name, value in row.items() if _is_number(value))
    left = [name for name in names if name not in ("level", "iteration")]
    return min(left, key=lambda name: (not name.startswith("val"), "loss" in name), default=None)


def _draw(axes: Axes, rows: Rows, curves: Rows, column: str) -> None:
    from lth.results.looks import level_look

    step = -(-len(rows) // SHOWN)
    levels = [row for row in rows if row["level"] % step == 0]
    for n, row in enumerate(levels):
        points = [p for p in curves if p["level"] == row["level"] and _is_number(p.get("iteration"))]
        points = [p for p in points if _is_number(p.get(column))]
        look = {**level_look(n, len(levels)), "marker": ""}
        axes.plot([p["iteration"] for p in points], [p[column] for p in points], label=percent(row["density"]), **look)
    axes.set(xlabel="iteration", ylabel=column.replace("_", " "))
    axes.legend(title="weights remaining", fontsize="x-small", title_fontsize="x-small", ncols=2)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
