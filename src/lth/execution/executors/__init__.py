"""Where trainings run. An executor is a context manager that yields three functions, and nothing else to know.

    schedule.execute --- do(training), from as many threads as trainings may run side by side ---> an executor

`do` carries out one training somewhere, returns when it is stored in the run's folder, and is called from a thread of
its own, so that it may simply wait. Which training is next, what is shown and what happens after a failure is not the
executor's business. docs/extending.md says how to add one.
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

ADDRESSED = ("ray",)  # those that take an address: NAME://ADDRESS


@dataclass(frozen=True)
class Job:
    """What all trainings of a run have in common: an executor tells its workers once."""

    experiment: Experiment
    resources: Resources  # also: the threads, and whether it is a GPU, that a training needs
    folder: Path  # the run's, on the machine of the driver
    data: Data
    data_root: Path | None
    count: int  # trainings side by side, at most
    say: Callable[[str], None]
    code: dict[str, bytes] = field(default_factory=dict)  # the user's approved files: workers run these bytes


@dataclass(frozen=True)
class Workers:
    """What the scheduler sees of an executor at work."""

    do: Callable[[Training], dict[str, Any]]  # from stored needs to stored training; its summary
    news: Callable[[], list[tuple[str, int]]]  # (training id, iteration) since the last call; at once
    stop: Callable[[], None]  # ask all trainings to write a checkpoint and raise Stopped; at once


@dataclass(frozen=True)
class Executor:
    """A place where trainings can run."""

    choose: Callable[
        [Experiment, tuple[int, ...], int, str, str], tuple[Resources, str]
    ]  # lth.execution.job.choose, there
    room: Callable[[Resources], int]  # trainings side by side unless --workers says another number
    open: Callable[[Job], AbstractContextManager[Workers]]


def wrong_name(name: str, insecure: bool = False) -> str | None:
    """What is wrong with the value of --executor, and --insecure beside it, in a line; None if nothing is."""
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
    """The executor of a name such as local; raises UsageError if it cannot be had.

    `insecure`: join a cluster that asks for no token, too.
    """
    if wrong := wrong_name(name, insecure):
        raise UsageError(wrong)
    kind, _, _ = name.partition("://")
    if processes() > 1:
        if kind not in ("local", "torchrun"):
            raise UsageError(f"--executor {name} and torchrun are two ways to spread a run; choose one of them")
        kind = "torchrun"
    elif kind == "torchrun":
        raise UsageError("--executor torchrun: start it with torchrun --nproc-per-node N --no-python lth run ...")
    return EXECUTORS[kind].load()(name, **({"insecure": True} if insecure else {}))


def processes() -> int:
    """How many processes torchrun has started for this run; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def follows() -> bool:
    """Whether this process is one of torchrun's, but not the driver."""
    return processes() > 1 and os.environ["RANK"] != "0"
