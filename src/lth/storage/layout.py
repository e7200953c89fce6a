"""The names and paths of a run's folder: no other module spells one.

    experiment.toml, environment.json       the run's
    manifest.json                           the checksums of its tables, and a copy of its experiment
    ticket.safetensors                      the experiment's ticket file, where it has one
    trial-1/start.safetensors               a trial's start
    trial-1/level-03/                       a training: ticket, trained weights, curve, summary
    trial-1/level-03/reinit-2/              a branch
    trial-1/.level-04.checkpoint            the middle of a training
    summary.csv, curves.csv                 tables of all trainings
    measures/anatomy.csv                    what `lth measure` computed
    figures/, report.html, tensorboard/     what is made from the tables
    damaged/                                what `lth repair` set aside

What begins with a dot is unfinished, or of this moment only.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

from lth.plan import Artifact

EXPERIMENT, ENVIRONMENT, MANIFEST = "experiment.toml", "environment.json", "manifest.json"
TICKET, TRAINED, CURVE, SUMMARY = "ticket.safetensors", "trained.safetensors", "curve.csv", "summary.json"
START = "start.safetensors"
SUMMARY_TABLE, CURVES_TABLE = "summary.csv", "curves.csv"
PACKED_CURVES = "curves.csv.gz"  # in place of curves.csv, where results are kept
ANATOMY = ("layers.csv", "pixels.csv", "starts.csv", "degrees.csv")  # beside the tickets of version 0.1; now a measure
FIGURES, REPORT, TENSORBOARD, MEASURES = "figures", "report.html", "tensorboard", "measures"
ASIDE, LOCK, JOBS = "damaged", ".lock", ".slurm"
CHECKPOINT, UNFINISHED = ".checkpoint", ".unfinished"


def file_of(artifact: Artifact) -> str:
    """Where an artifact is stored, below the run's folder."""
    return f"{artifact.owner}/{artifact.kind}.safetensors".removeprefix("/")


def start_name(trial: int) -> str:
    return f"trial-{trial}/{START}"


def trial_of(name: str) -> int:
    """The trial of a training, or of a file below its folder."""
    return int(name.partition("/")[0].removeprefix("trial-"))


def starts(folder: Path) -> list[Path]:
    """The trials' starts in a run's folder."""
    return sorted(folder.glob(f"trial-*/{START}"))


def training_folders(folder: Path) -> Iterator[tuple[str, Path]]:
    """Every folder below a run's that may be a training's, with the training's id, sorted by it."""
    patterns = ("trial-*/level-*", "trial-*/level-*/*")
    found = {path.relative_to(folder).as_posix(): path for pattern in patterns for path in folder.glob(pattern)}
    for name, path in sorted(found.items()):
        if re.fullmatch(r"trial-\d+/level-\d+(/[a-z][^/]*)?", name) and path.is_dir():
            yield name, path


def trunk_folders(folder: Path) -> Iterator[tuple[int, int, Path]]:
    """Trial, level and folder of each training of the trunk that may be in a run's folder, in order."""
    for name, path in training_folders(folder):
        if match := re.fullmatch(r"trial-(\d+)/level-(\d+)", name):
            yield int(match[1]), int(match[2]), path


def run_of(path: Path) -> Path:
    """The run's folder of a file in a training's folder."""
    return next(parent.parent for parent in path.parents if re.fullmatch(r"trial-\d+", parent.name))


def measure_path(folder: Path, name: str) -> Path:
    """The table of a measure."""
    return folder / MEASURES / f"{name}.csv"


def first_measure_path(folder: Path, name: str) -> Path:
    """The table of a measure where version 0.1 wrote it."""
    return folder / f"{name}.csv"


def checkpoint_path(folder: Path, training_id: str) -> Path:
    target = folder / training_id
    return target.parent / f".{target.name}{CHECKPOINT}"


def checkpoints(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"trial-*/**/.*{CHECKPOINT}"))


def checkpointed(path: Path) -> str:
    """The name of the folder beside a checkpoint that its training will have."""
    return path.stem.removeprefix(".")


def unfinished(path: Path) -> Path:
    """Where a file or folder is written first: a name that no other process has, on this machine or another."""
    return path.parent / f".{path.name}.{uuid4().hex[:12]}{UNFINISHED}"


def is_unfinished(name: str) -> bool:
    return name.startswith(".") and name.endswith(UNFINISHED)


def quoted(path: Path) -> str:
    """A path as a command line takes it."""
    return shlex.quote(str(path))


def mended_by(folder: Path) -> str:
    """The command for a run's folder in which something is damaged."""
    return f"`lth repair {quoted(folder)}` says what can be done"
