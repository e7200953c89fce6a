"""The anatomy of a ticket in the files that version 0.1 wrote next to it.

layers.csv   one row per counted layer: its shape and counts
pixels.csv   the map of the first layer; the header is the first pixel of each column
starts.csv   two rows per layer, `all` and `alive`: limit, and the histogram of initial values
degrees.csv  two rows per layer, `incoming` and `outgoing`: 1, and the histogram of fractions
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lth.errors import Damaged, UsageError
from lth.measures.histograms import BINS
from lth.measures.ticket_anatomy import Anatomy, Counts, Layer
from lth.storage import atomic, documents, layout, manifest, outcomes

LAYERS, PIXELS, STARTS, DEGREES = layout.ANATOMY
COUNTS = 6  # columns of layers.csv after the name and the shape
KINDS = ("alive", "incoming", "outgoing")

Histograms = dict[tuple[str, str], tuple[float, Counts]]  # layer, kind -> limit, counts


def read(folder: Path) -> Anatomy | None:
    """The anatomy in a training's folder, or None if its files do not exist. Raises UsageError naming a damaged one."""
    if not (folder / LAYERS).exists():
        return None
    summary = documents.read_json(folder / layout.SUMMARY) or {}
    rows, grid, starts, degrees = (_rows(folder / name, summary) for name in layout.ANATOMY)
    if not rows:
        return None
    try:
        histograms = _histograms(starts[1:]) | _histograms(degrees[1:])
        layers = tuple(_layer(row, histograms) for row in rows[1:])
        if len({len(row) for row in grid}) > 1:
            raise ValueError("rows of pixels differ in length")
        block = int(grid[0][1]) if grid and len(grid[0]) > 1 else 1
        return Anatomy(layers, tuple(tuple(map(int, row)) for row in grid[1:]), block)
    except (ValueError, TypeError, KeyError, IndexError) as error:
        *most, last = layout.ANATOMY
        raise UsageError(
            f"{folder} holds a damaged {', '.join(most)} or {last}: {error}; copy it again, or delete these four"
        ) from None


def _layer(row: Sequence[str], histograms: Histograms) -> Layer:
    name, shape, *counts = row
    limit, starts = histograms.get((name, "all"), (0.0, ()))
    survivors, incoming, outgoing = (histograms.get((name, kind), (0.0, ()))[1] for kind in KINDS)
    weights, alive, units, dead, inputs, unread = _whole(counts, COUNTS)
    layer = Layer(name, shape, weights, alive, units, dead, inputs, unread, limit)
    return replace(layer, all_starts=starts, alive_starts=survivors, incoming=incoming, outgoing=outgoing)


def _histograms(rows: Sequence[Sequence[str]]) -> Histograms:
    return {(row[0], row[1]): (float(row[2]), _whole(row[3:], BINS)) for row in rows}


def _whole(texts: Sequence[str], count: int) -> Counts:
    if len(texts) != count:
        raise ValueError(f"a row has {count} counts")
    return tuple(map(int, texts))


def _rows(path: Path, summary: Mapping[str, Any]) -> list[list[str]]:
    """The rows of a file, verified against the summary next to it; empty if the file does not exist."""
    try:
        content = atomic.read(path)
        fault = outcomes.file_fault(content, summary, path.name) or _other(path, content)
        rows = list(csv.reader(io.StringIO(content.decode(), newline="")))
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} cannot be read: {error}; copy it again, or delete it") from None
    if fault:
        raise Damaged(path, fault, "copy it again, or delete it")
    return rows


def _other(path: Path, content: bytes) -> str | None:
    """Describe what is wrong with a file in a folder of results, according to its manifest."""
    run = layout.run_of(path)
    return manifest.fault_of(run, path.relative_to(run).as_posix(), content)
