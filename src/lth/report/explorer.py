"""The small CSVs of a run's tickets -> the values of the ticket explorer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lth.measures import anatomy
from lth.results.records import Records
from lth.results.statistics import winning_level


def data(runs: Sequence[Records]) -> list[dict[str, Any]]:
    """Each run's trials that have something to show, as the script reads them."""
    return [
        {"run": i, "winning": winning_level(run.summary), "trials": trials}
        for i, run in enumerate(runs)
        if (trials := of_run(run.folder))
    ]


def of_run(folder: Path) -> list[dict[str, Any]]:
    found: dict[int, dict[int, anatomy.Anatomy]] = {}
    for path in folder.glob(f"trial-*/level-*/{anatomy.LAYERS}"):
        match = re.fullmatch(r"trial-(\d+)/level-(\d+)", path.parent.relative_to(folder).as_posix())
        if match and (inside := anatomy.read(path.parent)):
            found.setdefault(int(match[1]), {})[int(match[2])] = inside
    return [_trial(number, dict(sorted(levels.items()))) for number, levels in sorted(found.items())]


def _trial(number: int, levels: dict[int, anatomy.Anatomy]) -> dict[str, Any]:
    """A trial: what all its levels share (layers, the distribution of all starts), and each level's own."""
    first = next(iter(levels.values()))
    return {
        "trial": number,
        "layers": [
            {
                "name": layer.layer, "shape": layer.shape, "weights": layer.weights, "units": layer.units,
                "inputs": layer.inputs, "limit": layer.limit, "all": layer.all_starts,
            }
            for layer in first.layers
        ],
        "block": first.block,
        "kernel": first.layers[0].shape.count("x") == 3,
        "levels": [_level(level, inside) for level, inside in levels.items()],
    }  # fmt: skip


def _level(level: int, inside: anatomy.Anatomy) -> dict[str, Any]:
    alive, counted = (sum(getattr(layer, what) for layer in inside.layers) for what in ("alive", "weights"))
    return {
        "level": level,
        "percent": 100 * alive / counted if counted else 0.0,
        "weights": alive,
        "alive": [layer.alive for layer in inside.layers],
        "dead": [layer.dead_units for layer in inside.layers],
        "unread": [layer.unread_inputs for layer in inside.layers],
        "starts": [layer.alive_starts for layer in inside.layers],
        "pixels": inside.pixels,
    }
