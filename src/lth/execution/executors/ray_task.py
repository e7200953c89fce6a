"""A task of a Ray cluster: one training on a node, and its communication with the driver."""

from __future__ import annotations

import time
import warnings
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lth import native
from lth.config import Experiment
from lth.config.userfile import accept
from lth.data import Splits
from lth.errors import LthError, UsageError
from lth.execution.checkpoints import checkpoint_bytes, from_checkpoint_bytes
from lth.execution.executors.ray_connection import library
from lth.execution.job import identity_of, perform
from lth.execution.resources import Resources, choose
from lth.execution.setup import Setup, setup_of
from lth.plan import Training
from lth.training.loop import Checkpoint, Hooks, Stopped

TELL_SECONDS = 1.0  # seconds between two messages of a task
BEGUN = -1  # a task's first message, instead of an iteration


@dataclass(frozen=True)
class Shared:
    """What all tasks of a run share: stored once in the object store, and read from there without a copy."""

    token: str
    experiment: Experiment
    code: dict[str, bytes]  # the user's approved files
    resources: Resources
    folder: Path
    shape: tuple[int, ...]
    classes: int
    splits: dict[str, np.ndarray]
    save_every: float


# ------------------------------------------------------------------------------------------------------ between the two


class Box:
    """An actor next to the driver with the tasks' messages and checkpoints, and whether they should stop."""

    def __init__(self) -> None:
        self.news: list[tuple[str, int]] = []
        self.checkpoints: dict[str, bytes] = {}
        self.stop = False

    def tell(self, name: str, iteration: int) -> bool:
        self.news.append((name, iteration))
        return self.stop

    def keep(self, name: str, checkpoint: bytes) -> None:
        self.checkpoints[name] = checkpoint

    def take(self, stop: bool) -> tuple[list[tuple[str, int]], dict[str, bytes]]:
        taken = self.news, self.checkpoints
        self.news, self.checkpoints, self.stop = [], {}, stop
        return taken


class Line:
    """A task's connection to the box; no call waits."""

    def __init__(self, box: Any, name: str) -> None:
        self.box, self.name, self.due, self.stop = box, name, 0.0, False
        self.answer = box.tell.remote(name, BEGUN)

    def report(self, iteration: int) -> None:
        if time.monotonic() >= self.due:
            self.answer = self.box.tell.remote(self.name, iteration)
            self.due = time.monotonic() + TELL_SECONDS

    def stopped(self) -> bool:
        ray = library()

        if self.answer is not None and ray.wait([self.answer], timeout=0)[0]:
            with suppress(ray.exceptions.RayError):  # the box died and restarts
                self.stop = ray.get(self.answer)
            self.answer = None
        return self.stop


# ------------------------------------------------------------------------------------------------------------ on a node

_setups: dict[str, Setup] = {}  # of the run that this process works for


def perform_there(
    shared: Shared, box: Any, training: Training, checkpoint: bytes | None, names: list[str], *contents: bytes
) -> tuple[dict[str, bytes] | None, bytes | None]:
    """The task: returns a training's files or, if it was asked to stop, None and its checkpoint."""
    line, latest = Line(box, training.id), checkpoint
    setup, stored = _setup(shared), dict(zip(names, contents, strict=True))
    identity = identity_of(training, setup, stored)

    def save(progress: Checkpoint) -> None:
        nonlocal latest
        latest = checkpoint_bytes(progress, identity)
        if not line.stopped():
            box.keep.remote(training.id, latest)

    load = lambda: from_checkpoint_bytes(checkpoint, identity)
    hooks = Hooks(load, save, line.report, line.stopped, shared.save_every)
    try:
        return perform(training, setup, stored, hooks), None
    except Stopped:
        return None, latest


def _setup(shared: Shared) -> Setup:
    """Set up once per process, directly on the memory of the object store."""
    if shared.token not in _setups:
        accept(shared.code)
        if shared.resources.engine == "native" and (lacking := native.why_not()):
            raise LthError(f"on a node of the cluster, {lacking}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch has no read-only tensors; nothing writes to these
            splits = Splits(**{name: torch.from_numpy(array) for name, array in shared.splits.items()})
        _setups.clear()
        _setups[shared.token] = setup_of(
            shared.experiment, shared.resources, shared.folder, shared.shape, shared.classes, splits
        )
    return _setups[shared.token]


def versions() -> dict[str, str]:
    """The versions that determine the bits."""
    return {name: version(name) for name in ("lth", "torch", "numpy")}


def choose_there(expected: dict[str, str], code: dict[str, bytes], *asked: Any) -> tuple[Resources, str]:
    if differing := [
        f"{name} {version}, not {expected[name]}" for name, version in versions().items() if version != expected[name]
    ]:
        raise UsageError(f"a node of the cluster has {', '.join(differing)}; install the same versions everywhere")
    accept(code)
    return choose(*asked)
