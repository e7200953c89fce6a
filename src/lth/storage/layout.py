"""The names and paths in a run's folder. No other module spells out a path.

    experiment.toml, environment.json       of the run
    manifest.json                           checksums of the tables, and a copy of the experiment
    ticket.safetensors                      the experiment's ticket file, if it has one
    trial-1/start.safetensors               start of a trial
    trial-1/level-03/                       a training: ticket, trained weights, curve, summary
    trial-1/level-03/reinit-2/              a branch
    trial-1/.level-04.checkpoint            checkpoint of an unfinished training
    summary.csv, curves.csv                 tables of all trainings
    measures/anatomy.csv                    output of `lth measure`
    figures/, report.html, tensorboard/     made from the tables
    damaged/                                files that `lth repair` moved away

Names that begin with a dot are unfinished or temporary.
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
PACKED_CURVES = "curves.csv.gz"  # replaces curves.csv in results/
ANATOMY = ("layers.csv", "pixels.csv", "starts.csv", "degrees.csv")  # next to the tickets of version 0.1; now a measure
FIGURES, REPORT, TENSORBOARD, MEASURES = "figures", "report.html", "tensorboard", "measures"
ASIDE, LOCK, JOBS = "damaged", ".lock", ".slurm"
CHECKPOINT, UNFINISHED = ".checkpoint", ".unfinished"


def file_of(artifact: Artifact) -> str:
    """The path of an artifact, relative to the run's folder."""
    return f"{artifact.owner}/{artifact.kind}.safetensors".removeprefix("/")


def start_name(trial: int) -> str:
    return f"trial-{trial}/{START}"


def trial_of(name: str) -> int:
    """The trial of a training, or of a file in its folder."""
    return int(name.partition("/")[0].removeprefix("trial-"))


def starts(folder: Path) -> list[Path]:
    """The start files of all trials in a run's folder."""
    return sorted(folder.glob(f"trial-*/{START}"))


def training_folders(folder: Path) -> Iterator[tuple[str, Path]]:
    """All folders of a run that may hold a training, with the training's id, sorted by id."""
    patterns = ("trial-*/level-*", "trial-*/level-*/*")
    folders = {path.relative_to(folder).as_posix(): path for pattern in patterns for path in folder.glob(pattern)}
    for name, path in sorted(folders.items()):
        if re.fullmatch(r"trial-\d+/level-\d+(/[a-z][^/]*)?", name) and path.is_dir():
            yield name, path


def trunk_folders(folder: Path) -> Iterator[tuple[int, int, Path]]:
    """Trial, level and folder of each trunk training that a run's folder may hold, in order."""
    for name, path in training_folders(folder):
        if match := re.fullmatch(r"trial-(\d+)/level-(\d+)", name):
            yield int(match[1]), int(match[2]), path


def run_of(path: Path) -> Path:
    """The run's folder that contains a file of a training."""
    return next(parent.parent for parent in path.parents if re.fullmatch(r"trial-\d+", parent.name))


def measure_path(folder: Path, name: str) -> Path:
    """The path of a measure's table."""
    return folder / MEASURES / f"{name}.csv"


def first_measure_path(folder: Path, name: str) -> Path:
    """The path at which version 0.1 wrote a measure's table."""
    return folder / f"{name}.csv"


def checkpoint_path(folder: Path, training_id: str) -> Path:
    target = folder / training_id
    return target.parent / f".{target.name}{CHECKPOINT}"


def checkpoints(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"trial-*/**/.*{CHECKPOINT}"))


def checkpointed(path: Path) -> str:
    """The name of the training's folder that a checkpoint belongs to."""
    return path.stem.removeprefix(".")


def unfinished(path: Path) -> Path:
    """A temporary name next to a file or folder, unique among all processes on all machines."""
    return path.parent / f".{path.name}.{uuid4().hex[:12]}{UNFINISHED}"


def is_unfinished(name: str) -> bool:
    return name.startswith(".") and name.endswith(UNFINISHED)


def quoted(path: Path) -> str:
    """A path, quoted for a shell."""
    return shlex.quote(str(path))


def mended_by(folder: Path) -> str:
    """The command that repairs a run's folder."""
    return f"`lth repair {quoted(folder)}` shows what can be done"
