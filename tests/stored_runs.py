"""What a run's folder holds, as tests read and compare it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from lth.storage.tensors import load_tensors
from lth.tickets.ticket import Ticket


def folder_of(run: Path, level: int, branch: str = "", trial: int = 1) -> Path:
    return run / f"trial-{trial}/level-{level:02}" / branch


def ticket(run: Path, level: int, branch: str = "", trial: int = 1) -> Ticket:
    return Ticket.load(folder_of(run, level, branch, trial) / "ticket.safetensors")


def trained(run: Path, level: int, branch: str = "", trial: int = 1) -> dict[str, Tensor]:
    return load_tensors((folder_of(run, level, branch, trial) / "trained.safetensors").read_bytes())


def start(run: Path, trial: int = 1) -> dict[str, Tensor]:
    """The trial's start, theta_0."""
    return load_tensors((run / f"trial-{trial}/start.safetensors").read_bytes())


def summary(run: Path, level: int, branch: str = "", trial: int = 1) -> dict[str, Any]:
    return json.loads((folder_of(run, level, branch, trial) / "summary.json").read_text())


def contents(run: Path) -> dict[str, Any]:
    """All files of trainings and tables, without times and facts about the machine."""
    files: dict[str, Any] = {}
    for path in sorted(run.rglob("*")):
        name = str(path.relative_to(run))
        if (
            path.is_dir()
            or {"figures", "measures"} & {*path.relative_to(run).parts}
            or path.name in (".lock", "environment.json", "manifest.json", "report.html")  # these contain times
        ):
            continue
        if path.name == "summary.json":
            files[name] = {k: v for k, v in json.loads(path.read_text()).items() if k not in ("seconds", "seal")}
        elif path.name == "summary.csv":
            files[name] = [line.rpartition(",")[0] for line in path.read_text().splitlines()]
        else:
            files[name] = path.read_bytes()
    return files
