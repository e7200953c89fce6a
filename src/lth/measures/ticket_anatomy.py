"""The anatomy of one ticket: its layers, and the surviving weights of the first layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from lth.measures.histograms import BINS

MOST_PIXELS = 64  # pixels per side

Counts = tuple[int, ...]


@dataclass(frozen=True)
class Layer:
    """One counted layer; see lth.measures.anatomy for the fields. Unknown histograms are empty."""

    layer: str
    shape: str
    weights: int
    alive: int
    units: int
    dead_units: int
    inputs: int
    unread_inputs: int
    limit: float = 0.0
    all_starts: Counts = ()
    alive_starts: Counts = ()
    incoming: Counts = ()
    outgoing: Counts = ()


@dataclass(frozen=True)
class Anatomy:
    """One ticket: its layers, and the map of its first layer in squares of `block` pixels; empty if inputs are not
    images.
    """

    layers: tuple[Layer, ...]
    pixels: tuple[Counts, ...] = ()
    block: int = 1


def dissect(mask: Mapping[str, np.ndarray], start: Mapping[str, np.ndarray], shape: Sequence[int]) -> Anatomy:
    """The anatomy of a ticket, given the masks and unmasked initial values of its layers and the shape of one input."""
    layers = tuple(_layer(name, layer, start[name]) for name, layer in mask.items())
    grid = pixel_map(next(iter(mask.values())), shape) if mask else None
    if grid is None:
        return Anatomy(layers)
    block = -(-max(grid.shape) // MOST_PIXELS)
    return Anatomy(layers, tuple(map(tuple, _in_blocks(grid, block).tolist())), block)


def pixel_map(first: np.ndarray, shape: Sequence[int]) -> np.ndarray | None:
    """Surviving weights of the first layer per pixel (height, width) or place in the kernel; None if inputs are not
    images.
    """
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


def _layer(name: str, mask: np.ndarray, start: np.ndarray) -> Layer:
    by_unit = mask.reshape(mask.shape[0], mask.shape[1], -1)
    entered, left = by_unit.any(axis=(1, 2)), by_unit.any(axis=(0, 2))
    dead, unread = (used.size - int(used.sum()) for used in (entered, left))
    limit, *starts = _starts(mask, start)
    degrees = (_histogram(by_unit.mean(axis=axis), (0, 1)) for axis in ((1, 2), (0, 2)))
    shape, alive = "x".join(map(str, mask.shape)), int(mask.sum())
    return Layer(name, shape, mask.size, alive, entered.size, dead, left.size, unread, limit, *starts, *degrees)


def _starts(mask: np.ndarray, start: np.ndarray) -> tuple[float, Counts, Counts]:
    """The limit of initial values, and the histograms of all and of surviving ones."""
    finite, values = np.isfinite(start), start.astype(np.float64)
    limit = float(np.abs(values[finite]).max(initial=0.0))
    span = np.linspace(-1, 1, BINS + 1) * (limit or 1.0)
    return limit, _counts(values[finite], span), _counts(values[finite & mask], span)


def _histogram(values: np.ndarray, span: tuple[float, float]) -> Counts:
    return tuple(np.histogram(values, BINS, span)[0].tolist())


def _counts(values: np.ndarray, edges: np.ndarray) -> Counts:
    return tuple(np.histogram(values, edges)[0].tolist())
