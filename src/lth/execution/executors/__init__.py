"""Where trainings run. An executor is a context manager that yields three functions.

    schedule.execute --- do(training), from one thread per parallel training ---> an executor

`do` carries out one training somewhere and returns when it is stored in the run's folder. It is called from a thread of
its own, so it may block. The scheduler decides which training is next, shows progress and handles failures.
docs/extending.md explains how to add an executor.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lth.config import Experiment, nearest
from lth.config.registry import EXECUTORS
from lth.errors import UsageError
from lth.plan import Training

if TYPE_CHECKING:
    from lth.data import Data
    from lth.execution.resources import Resources

ADDRESSED = ("ray",)  # executors that take an address: NAME://ADDRESS


@dataclass(frozen=True)
class Job:
    """What all trainings of a run share; an executor sends it to its workers once."""

    experiment: Experiment
    resources: Resources  # also decides the threads and the GPU of a training
    folder: Path  # the run's folder on the machine of the driver
    data: Data
    data_root: Path | None
    count: int  # maximum number of parallel trainings
    say: Callable[[str], None]
    code: dict[str, bytes] = field(default_factory=dict)  # the user's approved files, as bytes for the workers


@dataclass(frozen=True)
class Workers:
    """The interface of an active executor to the scheduler."""

    do: Callable[[Training], dict[str, Any]]  # carry out a training whose needs are stored; returns its summary
    news: Callable[[], list[tuple[str, int]]]  # (training id, iteration) since the last call; returns at once
    stop: Callable[[], None]  # ask all trainings to write a checkpoint and raise Stopped; returns at once


@dataclass(frozen=True)
class Executor:
    """A place where trainings can run."""

    choose: Callable[
        [Experiment, tuple[int, ...], int, str, str], tuple[Resources, str]
    ]  # lth.execution.resources.choose, or a function with its signature
    room: Callable[[Resources], int]  # default number of parallel trainings
    open: Callable[[Job], AbstractContextManager[Workers]]


def wrong_name(name: str, insecure: bool = False) -> str | None:
    """What is wrong with the values of --executor and --insecure; None if nothing is."""
    kind, addressed, address = name.partition("://")
    if kind not in EXECUTORS:
        return f"--executor takes {', '.join(EXECUTORS)}; not {name!r}{nearest(kind, EXECUTORS)}"
    if addressed and kind not in ADDRESSED:
        return f"--executor {kind} takes no address; give --executor {kind}"
    if addressed and not address:
        return f"--executor {name}: the address is missing; give one such as {kind}://head:10001, or {kind} alone"
    if insecure and kind not in ADDRESSED:
        return f"--insecure is for a Ray cluster without a token (--executor ray), not for {kind}; leave it out"
    return None


def executor(name: str, insecure: bool = False) -> AbstractContextManager[Executor]:
    """The executor with a name such as local. Raises UsageError if it is not available.

    `insecure`: also join a cluster that requires no token.
    """
    if wrong := wrong_name(name, insecure):
        raise UsageError(wrong)
    kind, _, _ = name.partition("://")
    if processes() > 1:
        if kind not in ("local", "torchrun"):
            raise UsageError(f"--executor {name} and torchrun both distribute a run; choose one of them")
        kind = "torchrun"
    elif kind == "torchrun":
        raise UsageError("--executor torchrun: start it with torchrun --nproc-per-node N --no-python lth run ...")
    return EXECUTORS[kind].load()(name, **({"insecure": True} if insecure else {}))


def processes() -> int:
    """The number of processes that torchrun started for this run; 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def follows() -> bool:
    """Return whether this is a process of torchrun other than the driver."""
    return processes() > 1 and os.environ["RANK"] != "0"
