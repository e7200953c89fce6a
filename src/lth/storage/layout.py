"""The names and paths of a run's folder: no other module spells one.

experiment.toml, environment.json       the run's
ticket.safetensors                      the experiment's ticket file, where it has one
trial-1/start.safetensors               a trial's start
trial-1/level-03/                       a training: ticket, trained weights, curve, summary
trial-1/level-03/reinit-2/              a branch
summary.csv, curves.csv                 tables of all trainings
"""

from __future__ import annotations

import shlex
from pathlib import Path

from lth.plan import Artifact

EXPERIMENT, ENVIRONMENT, SUMMARY = "experiment.toml", "environment.json", "summary.json"


ANATOMY = ("layers.csv", "pixels.csv", "starts.csv", "degrees.csv")  # small tables that only reports read
TICKET, TRAINED = "ticket.safetensors", "trained.safetensors"  # a training's; the run's own TICKET is what it was given


CURVE = "curve.csv"
PACKED_CURVES = "curves.csv.gz"  # in place of curves.csv, where results are kept


def file_of(artifact: Artifact) -> str:
    """Where an artifact is stored, below the run's folder."""
    return f"{artifact.owner}/{artifact.kind}.safetensors".removeprefix("/")


def start_name(trial: int) -> str:
    return f"trial-{trial}/start.safetensors"


def checkpoint_path(folder: Path, training_id: str) -> Path:
    target = folder / training_id
    return target.parent / f".{target.name}.checkpoint"


def quoted(path: Path) -> str:
    """A path as a command line takes it."""
    return shlex.quote(str(path))


def mended_by(folder: Path) -> str:
    """The command for a run's folder in which something is damaged."""
    return f"`lth repair {quoted(folder)}` says what can be done"
