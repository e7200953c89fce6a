"""What is inside the tickets of a run, by layer, so that reports and figures need no tensors.

The table has one row per trial, level and layer, in the network's order:

ticket                    the first digits of the ticket file's checksum
shape, weights, alive     shape such as 300x784; counted weights; surviving weights
units, dead_units         rows or output channels; those that no surviving weight enters
inputs, unread_inputs     columns or input channels; those that no surviving weight leaves
limit, all_starts, alive_starts    the largest absolute initial value of the layer; histograms of the initial
                          values of all weights and of the survivors, in 40 equal bins from -limit to limit
incoming, outgoing        histograms of the fraction of their weights that units, and inputs, keep, in 40 equal bins
                          from 0 to 1
block, pixels             first layer, if inputs are images: surviving weights per pixel, summed over channels, or per
                          place in the kernel of a convolution; images with more than 64 pixels per side are summed in
                          squares of `block` pixels

Numbers in one cell are separated by blanks, rows of pixels by slashes. Only the tickets of the trunk are measured,
because a branch has the ticket's mask or a random one, and draws its own weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from lth.config import Experiment
from lth.measures import beside, tables
from lth.measures.histograms import BINS
from lth.measures.ticket_anatomy import Anatomy, Counts, Layer, dissect
from lth.measures.tickets import Numbers, identity, tickets, trunk
from lth.plan import training_id
from lth.results.records import Place
from lth.storage import layout

COUNTS = ("weights", "alive", "units", "dead_units", "inputs", "unread_inputs")
HISTOGRAMS = ("all_starts", "alive_starts", "incoming", "outgoing")
COLUMNS = ("trial", "level", "ticket", "layer", "shape", *COUNTS, "limit", *HISTOGRAMS, "block", "pixels")

At = tuple[int, int]  # trial, level


def compute(
    folder: Path,
    experiment: Experiment,
    stored: pd.DataFrame | None = None,
    trials: Numbers = None,
    levels: Numbers = None,
) -> pd.DataFrame:
    """`stored` with the missing rows of the tickets of `trials` and `levels` (default: all)."""
    table = _valid(folder, stored)
    measured = set() if table is None else _places(table)
    rows: list[dict[str, Any]] = []
    for place, path in trunk(folder).items():
        if (at := place[:2]) not in measured and (anatomy := beside.read(path)):
            rows += to_rows(at, anatomy, identity(folder, place))
            measured.add(at)
    for place in tickets(folder, trials, levels):
        if (at := place[:2]) not in measured:
            rows += to_rows(at, _of_ticket(folder, place), identity(folder, place))
    return table if table is not None and not rows else tables.joined(table, rows, COLUMNS)


def read(folder: Path) -> dict[At, Anatomy]:
    """The stored anatomy of a run's tickets by trial and level, including that of version 0.1. Computes nothing."""
    table = _valid(folder, tables.read("anatomy", folder))
    anatomies = {} if table is None else of_table(table, folder)
    for trial, level, path in layout.trunk_folders(folder):
        if (trial, level) not in anatomies and (anatomy := beside.read(path)):
            anatomies[trial, level] = anatomy
    return dict(sorted(anatomies.items()))


def _valid(folder: Path, stored: pd.DataFrame | None) -> pd.DataFrame | None:
    """The rows of a stored table whose tickets are still in the folder."""
    if stored is None:
        return None
    tables.check_columns(stored, "anatomy", folder, COLUMNS)
    known = {place[:2]: identity(folder, place) for place in trunk(folder)}
    pairs = zip(_pairs(stored), stored["ticket"], strict=True)
    return stored.loc[[known.get(at, ticket) in ("", ticket) for at, ticket in pairs]].reset_index(drop=True)


def _of_ticket(folder: Path, place: Place) -> Anatomy:
    """The anatomy of a stored ticket, computed from its tensors."""
    from lth.storage.tensors import read_tensors
    from lth.tickets.ticket import read_ticket

    ticket = read_ticket(folder, training_id(*place))
    start = read_tensors(folder, layout.start_name(place.trial))
    mask = {name: layer.numpy() for name, layer in ticket.mask.items()}
    wide = {name: start[name].float() if start[name].element_size() < 4 else start[name] for name in mask}
    values = {name: tensor.numpy() for name, tensor in wide.items()}  # numpy has no bfloat16
    return dissect(mask, values, ticket.origin.get("inputs", ()))


# ---------------------------------------------------------------------------------------------------------------- rows


def to_rows(at: At, anatomy: Anatomy, ticket: str = "") -> list[dict[str, Any]]:
    """The table rows of one ticket."""
    rows = [_row(layer) | {"trial": at[0], "level": at[1], "ticket": ticket} for layer in anatomy.layers]
    if anatomy.pixels:
        rows[0] |= {"block": str(anatomy.block), "pixels": "/".join(map(_joined, anatomy.pixels))}
    return rows


def _row(layer: Layer) -> dict[str, Any]:
    plain = {name: getattr(layer, name) for name in ("layer", "shape", *COUNTS, "limit")}
    return plain | {name: _joined(getattr(layer, name)) for name in HISTOGRAMS} | {"block": "", "pixels": ""}


def _joined(counts: Counts) -> str:
    return " ".join(map(str, counts))


def of_table(table: pd.DataFrame, folder: Path) -> dict[At, Anatomy]:
    """The anatomy of each ticket in a table. Raises UsageError if the table is damaged."""
    rows: dict[At, list[Mapping[str, Any]]] = {}
    try:
        for at, row in zip(_pairs(table), table.to_dict("records"), strict=True):
            rows.setdefault(at, []).append({str(key): value for key, value in row.items()})
        return {at: _of_rows(layers) for at, layers in rows.items()}
    except (ValueError, TypeError) as error:
        raise tables.damaged(layout.measure_path(folder, "anatomy"), error) from None


def _of_rows(rows: Sequence[Mapping[str, Any]]) -> Anatomy:
    block, pixels = str(rows[0]["block"]), str(rows[0]["pixels"])
    grid = tuple(map(_split, pixels.split("/"))) if pixels else ()
    if len({len(row) for row in grid}) > 1:
        raise ValueError("rows of pixels differ in length")
    return Anatomy(tuple(map(_layer, rows)), grid, int(float(block)) if block else 1)


def _layer(row: Mapping[str, Any]) -> Layer:
    weights, alive, units, dead, inputs, unread = (int(row[name]) for name in COUNTS)
    starts, survivors, incoming, outgoing = histograms = [_split(row[name]) for name in HISTOGRAMS]
    if any(len(histogram) not in (0, BINS) for histogram in histograms):
        raise ValueError(f"a histogram has {BINS} counts")
    counts = Layer(row["layer"], row["shape"], weights, alive, units, dead, inputs, unread)
    return replace(
        counts,
        limit=float(row["limit"]),
        all_starts=starts,
        alive_starts=survivors,
        incoming=incoming,
        outgoing=outgoing,
    )


def _split(text: Any) -> Counts:
    return tuple(map(int, str(text).split()))


def _pairs(table: pd.DataFrame) -> list[At]:
    return list(zip(map(int, table["trial"]), map(int, table["level"]), strict=True))


def _places(table: pd.DataFrame) -> set[At]:
    return set(_pairs(table))
