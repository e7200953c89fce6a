"""What is inside a ticket, as four small CSVs beside the training's summary, so that reports need no tensors.

layers.csv   a row a counted layer, in the network's order. `shape` as in 300x784; `weights` counted, `alive` of them;
             `units` (rows, or channels out) and `dead_units`, which no surviving weight enters; `inputs` (columns, or
             channels in) and `unread_inputs`, which no surviving weight leaves.
pixels.csv   where the inputs are images: how many weights of the first layer survive, by the pixel that they read, all
             channels together; for a convolution by their place in the kernel. A row a row of pixels; the header is the
             column's first pixel, for images of more than 64 pixels a side are summed in square blocks.
starts.csv   two rows a layer, `all` and `alive`: how many weights have their start in each of 40 equal bins from -limit
             to limit, the largest absolute value in the layer; the bins are numbered from 1.
degrees.csv  two rows a layer: of how many units what share of the weights survives that enter them (`incoming`), and of
             how many of the layer's inputs that leave them (`outgoing`), in 40 equal bins from 0 to 1.

Only the trunk's tickets have them: a branch wears the ticket's own mask, or a random one, and draws its weights anew.
All counts are whole and made on the CPU, so equal tickets give equal bytes.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from lth.errors import UsageError
from lth.storage import documents, layout, outcomes

LAYERS, PIXELS, STARTS, DEGREES = layout.ANATOMY
COLUMNS = ("layer", "shape", "weights", "alive", "units", "dead_units", "inputs", "unread_inputs")
BINS = 40
MOST_PIXELS = 64  # a side


@dataclass(frozen=True)
class Layer:
    """One row of layers.csv, with its histograms of starts where these are stored."""

    layer: str
    shape: str
    weights: int
    alive: int
    units: int
    dead_units: int
    inputs: int
    unread_inputs: int
    limit: float = 0.0
    all_starts: tuple[int, ...] = ()
    alive_starts: tuple[int, ...] = ()


@dataclass(frozen=True)
class Anatomy:
    """One ticket: its layers, and the map of its first, `block` pixels a side of a cell; empty where there is none."""

    layers: tuple[Layer, ...]
    pixels: tuple[tuple[int, ...], ...]
    block: int


# -------------------------------------------------------------------------------------------------------------- writing


def files(mask: Mapping[str, np.ndarray], start: Mapping[str, np.ndarray], shape: Sequence[int]) -> dict[str, bytes]:
    """The files of a ticket: bool masks of its layers, their starts before masking, the shape of one input."""
    found = {
        LAYERS: _csv(COLUMNS, (_layer_row(name, layer) for name, layer in mask.items())),
        STARTS: _csv(
            ("layer", "weights", "limit", *range(1, BINS + 1)),
            (row for name, layer in mask.items() for row in _start_rows(name, layer, start[name])),
        ),
        DEGREES: _csv(
            ("layer", "which", "limit", *range(1, BINS + 1)),
            (row for name, layer in mask.items() for row in _degree_rows(name, layer)),
        ),
    }
    grid = pixel_map(next(iter(mask.values())), shape) if mask else None
    if grid is not None:
        block = -(-max(grid.shape) // MOST_PIXELS)
        coarse = _in_blocks(grid, block)
        found[PIXELS] = _csv(range(0, grid.shape[1], block), coarse.tolist())
    return found


def pixel_map(first: np.ndarray, shape: Sequence[int]) -> np.ndarray | None:
    """Surviving weights of the first layer by pixel (height, width), or by place in the kernel; None without images."""
    if len(shape) != 3:
        return None
    if first.ndim == 4:
        return first.sum(axis=(0, 1))
    if first.ndim == 2 and first.shape[1] == prod(shape):
        return first.reshape(-1, *shape).sum(axis=(0, 1))
    return None


def _in_blocks(grid: np.ndarray, block: int) -> np.ndarray:
    rows, columns = (-size % block for size in grid.shape)
    padded = np.pad(grid, ((0, rows), (0, columns)))
    return padded.reshape(padded.shape[0] // block, block, -1, block).sum(axis=(1, 3))


def _layer_row(name: str, layer: np.ndarray) -> list[Any]:
    by_unit = layer.reshape(layer.shape[0], layer.shape[1], -1)
    entered, left = by_unit.any(axis=(1, 2)), by_unit.any(axis=(0, 2))
    shape = "x".join(map(str, layer.shape))
    dead, unread = (used.size - int(used.sum()) for used in (entered, left))
    return [name, shape, layer.size, int(layer.sum()), entered.size, dead, left.size, unread]


def _start_rows(name: str, layer: np.ndarray, start: np.ndarray) -> list[list[Any]]:
    finite = np.isfinite(start)
    values = start.astype(np.float64)
    limit = float(np.abs(values[finite]).max(initial=0.0))
    edges = np.linspace(-1, 1, BINS + 1) * (limit or 1.0)
    counts = {"all": np.histogram(values[finite], edges)[0], "alive": np.histogram(values[finite & layer], edges)[0]}
    return [[name, which, limit, *count.tolist()] for which, count in counts.items()]


def _degree_rows(name: str, layer: np.ndarray) -> list[list[Any]]:
    by_unit = layer.reshape(layer.shape[0], layer.shape[1], -1)
    shares = {"incoming": by_unit.mean(axis=(1, 2)), "outgoing": by_unit.mean(axis=(0, 2))}
    return [[name, which, 1.0, *np.histogram(share, BINS, (0, 1))[0].tolist()] for which, share in shares.items()]


def _csv(header: Iterable[Any], rows: Iterable[Iterable[Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().encode()


# -------------------------------------------------------------------------------------------------------------- reading


def read(folder: Path) -> Anatomy | None:
    """What the CSVs in a training's folder hold; None where there are none. Raises UsageError naming a damaged one."""
    told = documents.read_json(folder / layout.SUMMARY) or {}
    rows = _rows(folder / LAYERS, told)
    if not rows:
        return None
    grid = _rows(folder / PIXELS, told)
    histograms = _rows(folder / STARTS, told)[1:]
    try:
        starts = {(row[0], row[1]): tuple(map(int, row[3:])) for row in histograms}
        limits = {row[0]: float(row[2]) for row in histograms}
        layers = tuple(
            Layer(
                row[0],
                row[1],
                *_whole(row[2:], len(COLUMNS) - 2),
                limit=limits.get(row[0], 0.0),
                all_starts=starts.get((row[0], "all"), ()),
                alive_starts=starts.get((row[0], "alive"), ()),
            )
            for row in rows[1:]
        )
        block = int(grid[0][1]) if grid and len(grid[0]) > 1 else 1
        pixels = tuple(tuple(map(int, row)) for row in grid[1:])
        if len({len(row) for row in grid}) > 1:
            raise ValueError("rows of pixels differ in length")
        return Anatomy(layers, pixels, block)
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise UsageError(
            f"{folder} holds a damaged {LAYERS}, {PIXELS} or {STARTS}: {error}; copy it again, or delete these three"
        ) from None


def histograms(folder: Path, file: str) -> dict[tuple[str, str], tuple[float, np.ndarray]]:
    """By (layer, which) of starts.csv or degrees.csv, the limit and the counts in its bins; empty without the file."""
    rows = _rows(folder / file, documents.read_json(folder / layout.SUMMARY) or {})[1:]
    try:
        return {(row[0], row[1]): (float(row[2]), np.array(_whole(row[3:], BINS))) for row in rows}
    except (ValueError, IndexError) as error:
        raise UsageError(f"{folder / file} is damaged: {error}; copy it again, or delete it") from None


def _whole(texts: Sequence[str], count: int) -> tuple[int, ...]:
    if len(texts) != count:
        raise ValueError(f"a row has {count} counts")
    return tuple(map(int, texts))


def _rows(path: Path, summary: Mapping[str, Any]) -> list[list[str]]:
    try:
        content = path.read_bytes()
        fault = outcomes.file_fault(content, summary, path.name)
        rows = list(csv.reader(io.StringIO(content.decode(), newline="")))
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} cannot be read: {error}; copy it again, or delete it") from None
    if fault:
        raise UsageError(f"{path} is damaged: {fault}; copy it again, or delete it")
    return rows
