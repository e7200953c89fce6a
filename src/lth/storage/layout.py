"""The names and paths of a run's folder: no other module spells one."""

from __future__ import annotations

import shlex
from pathlib import Path

EXPERIMENT, ENVIRONMENT, SUMMARY = "experiment.toml", "environment.json", "summary.json"
CURVE = "curve.csv"  # the evaluations of a training
FIGURES, REPORT = "figures", "report.html"
SUMMARY_TABLE, CURVES_TABLE = "summary.csv", "curves.csv"  # the tables of a run
PACKED_CURVES = "curves.csv.gz"  # in place of curves.csv in the folders of kept results


ANATOMY = ("layers.csv", "pixels.csv", "starts.csv", "degrees.csv")  # of version 0.1, beside a ticket; see measures
TICKET, TRAINED = "ticket.safetensors", "trained.safetensors"  # a training's; the run's own TICKET is what it was given


def start_name(trial: int) -> str:
    return f"trial-{trial}/start.safetensors"


def measure_path(folder: Path, name: str) -> Path:
    """The table of a measure."""
    return folder / "measures" / f"{name}.csv"


def first_measure_path(folder: Path, name: str) -> Path:
    """The table of a measure where version 0.1 wrote it."""
    return folder / f"{name}.csv"


def checkpoint_path(folder: Path, training_id: str) -> Path:
    target = folder / training_id
    return target.parent / f".{target.name}.checkpoint"


def quoted(path: Path) -> str:
    """A path as a command line takes it."""
    return shlex.quote(str(path))


def mended_by(folder: Path) -> str:
    """The command for a run's folder in which something is damaged."""
    return f"`lth repair {quoted(folder)}` says what can be done"
