"""The values of the ticket explorer, from the anatomy of a run's tickets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lth.measures.ticket_anatomy import Anatomy
from lth.results import verdict
from lth.results.records import Records

Tickets = Mapping[tuple[int, int], Anatomy]  # by trial and level


def data(runs: Sequence[Records], tickets: Sequence[Tickets]) -> list[dict[str, Any]]:
    """The trials of each run that have an anatomy, in the script's format."""
    return [
        {"run": i, "winning": verdict.of(run).winning, "trials": trials}
        for i, (run, anatomies) in enumerate(zip(runs, tickets, strict=True))
        if (trials := trials_of(anatomies))
    ]


def trials_of(anatomies: Tickets) -> list[dict[str, Any]]:
    """Each trial with its levels, in order."""
    trials: dict[int, dict[int, Anatomy]] = {}
    for (trial, level), anatomy in sorted(anatomies.items()):
        trials.setdefault(trial, {})[level] = anatomy
    return [_trial(number, levels) for number, levels in trials.items()]


def _trial(number: int, levels: dict[int, Anatomy]) -> dict[str, Any]:
    """A trial: the data that its levels share (layers, histogram of all initial values), and each level."""
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


def _level(level: int, inside: Anatomy) -> dict[str, Any]:
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
