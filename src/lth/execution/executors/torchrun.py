"""All processes of torchrun on one training at a time, for a network too large for one trial per GPU.

    torchrun --standalone --nproc-per-node 4 --no-python lth run vgg19

Process 0 is the driver: only it reads and writes the run's folder and the data, and it tells the others what to do. The
sums of a batch are divided among the processes, so their number is one of the run's resources.
"""

from __future__ import annotations

import atexit
import gc
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from lth.config import Experiment
from lth.config.userfile import accept
from lth.errors import UsageError
from lth.execution.executors import Executor, Job, Workers
from lth.execution.executors.local import drain, queue
from lth.execution.job import carry_out, follow_training
from lth.execution.resources import Resources, choose
from lth.execution.setup import Setup, setup_of, splits_of
from lth.plan import Training
from lth.training.distributed import hear, tell
from lth.training.loop import Hooks

PATIENCE = timedelta(days=30)  # time for which a process waits for a command of process 0


@contextmanager
def executor(name: str = "torchrun") -> Iterator[Executor]:
    """The side of process 0; the others call `follow`."""
    _join()
    try:
        yield Executor(choose_for_all, lambda resources: 1, workers)
    finally:
        with suppress(RuntimeError):  # the other processes may have ended
            tell("over")


def follow() -> None:
    """The work of every process except 0 during a run."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # process 0 receives them too and announces the end
    _join()
    setup: Setup | None = None
    while (message := hear())[0] != "over":
        if message[0] == "set up":
            _, code, *shared = message
            accept(code)
            setup = setup_of(*shared)
        elif message[0] == "train":
            assert setup is not None
            _, training, stored = message
            follow_training(training, stored, setup)


def _join() -> None:
    """Join the process group until the process ends.

    The runs of a sweep share it, because it can be joined only once.
    """
    if dist.is_initialized():
        return
    if (
        os.environ.get("LOCAL_WORLD_SIZE") == os.environ["WORLD_SIZE"]
    ):  # if all are on this machine, use the loopback interface
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
    if torch.cuda.is_available():
        _take_gpu()
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)
    atexit.register(_leave)


def _leave() -> None:
    gc.collect()  # users of the connections are closed first
    dist.destroy_process_group()


def _take_gpu() -> None:
    """Select this process's GPU; needed in each thread that uses it."""
    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())


def choose_for_all(
    experiment: Experiment, shape: tuple[int, ...], classes: int, engine: str, device: str
) -> tuple[Resources, str]:
    """The resources: always the torch engine and float32. Raises UsageError if something else was requested."""
    wrong = {
        "--engine native": engine == "native",
        "recipe.precision=bfloat16": experiment.recipe.precision == "bfloat16",
        "recipe.compile": experiment.recipe.compile,
    }
    if asked := [name for name, given in wrong.items() if given]:
        raise UsageError(f"torchrun trains with the torch engine in float32; leave out {', '.join(asked)}")
    resources, _ = choose(experiment, shape, classes, "torch", device)
    count = dist.get_world_size()
    return replace(resources, precision="float32", processes=count), f"torchrun, {count} processes per training"


@contextmanager
def workers(job: Job) -> Iterator[Workers]:
    """One training at a time."""
    if job.count != 1:
        raise UsageError(f"--workers {job.count}: torchrun's processes share one training at a time; leave it out")
    splits = splits_of(job.experiment, job.data)
    shared = (job.experiment, job.resources, job.folder, job.data.train_x.shape[1:], job.data.classes, splits)
    tell("set up", job.code, *shared)
    setup = setup_of(*shared)
    stop, news = threading.Event(), queue.SimpleQueue()

    def do(training: Training) -> dict[str, Any]:
        if job.resources.device == "cuda":
            _take_gpu()
        hooks = Hooks(report=lambda i: news.put((training.id, i)), stopped=stop.is_set)
        try:
            return carry_out(training, setup, hooks, before=lambda stored: tell("train", training, stored))
        finally:
            tell("end")

    yield Workers(do, drain(news), stop.set)
