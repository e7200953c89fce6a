"""A Ray cluster. Each training is a task that gets stored files as arguments and returns the files of the training.

Only the driver, the process of `lth run`, writes into the run's folder, so no shared file system is needed. A task that
is lost with its node or worker resumes from the last checkpoint that reached the driver. If the cluster is lost, the
run ends with one line, and the same command continues it.
"""

from __future__ import annotations

import atexit
import queue
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields
from functools import lru_cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import uuid4

from lth.config import Experiment, approved_code
from lth.errors import LthError, UsageError
from lth.execution.executors import Executor, Job, Workers
from lth.execution.executors.local import drain
from lth.execution.executors.ray_connection import connect, library, lost, missed
from lth.execution.executors.ray_task import BEGUN, Box, Shared, choose_there, perform_there, versions
from lth.execution.job import keep, keep_start, needed_names
from lth.execution.resources import Resources
from lth.execution.setup import setup_of, splits_of
from lth.plan import Training
from lth.storage import atomic, layout, outcomes
from lth.training.loop import Stopped

LOSSES = 10  # losses of a training before the run ends: the training itself may kill its workers
CHECKPOINT_SECONDS = 300.0  # seconds between a task's checkpoints, which travel to the driver
WATCH_SECONDS = 2.0  # seconds between checks of the cluster
MISSES = 6  # two refusals, or half a minute of silence: before Ray ends this process with its own message
LEAVE_SECONDS = 2.0  # seconds to leave a lost cluster
LOOK_SECONDS = 0.5  # seconds between the driver's reads of the box
KEPT_FILES = 16  # number of stored files that stay in the object store after their last use


# ----------------------------------------------------------------------------------------------------------- connecting


class ClusterLost(LthError):
    """The cluster is lost. Lost workers and nodes raise other errors."""

    def __init__(self) -> None:
        super().__init__(
            "the Ray cluster was lost: its head node, or the connection to it. Finished trainings are kept",
            cure="start the cluster again, and run the same command to continue",
        )


@contextmanager
def executor(name: str, insecure: bool = False) -> Iterator[Executor]:
    """The cluster of `ray://ADDRESS`; for `ray`, the cluster on this machine, or one that is started here.

    A cluster without a token is refused unless `insecure`. A program that has joined a cluster itself keeps it.
    """
    if find_spec("ray") is None:
        raise UsageError(f"--executor {name} needs Ray, which is not installed; type: pip install 'lth[ray]'")
    ray = library()
    if ray.is_initialized():  # in a program that calls lth.run
        yield Executor(choose, room, workers)
        return
    heard, gone = signal.getsignal(signal.SIGTERM), False
    try:
        addresses = connect(name, insecure)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, heard)  # Ray's own handler would leave no time for checkpoints
        yield Executor(choose, room, partial(workers, addresses=addresses))
    except ClusterLost:
        gone = True
        raise
    except Exception as error:
        if isinstance(error, LthError) or ray.is_initialized():
            raise
        gone = True  # whichever call failed when Ray's client gave up
        raise ClusterLost from None
    finally:
        leave(gone)


def leave(gone: bool) -> None:
    """Leave the cluster without waiting for a lost head, neither now nor when this process ends."""
    ray = library()

    if not gone:
        ray.shutdown()
        return
    leaving = threading.Thread(target=ray.shutdown, daemon=True)
    leaving.start()
    leaving.join(LEAVE_SECONDS)
    if leaving.is_alive():
        atexit.unregister(ray.shutdown)


def room(resources: Resources) -> int:
    """The number of trainings that fit on the cluster's CPUs and GPUs.

    Raises UsageError if no node has room for one.
    """
    ray = library()

    largest = max((int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]), default=0)
    if resources.threads > largest:
        raise UsageError(
            f"--threads {resources.threads}: the largest node of the Ray cluster has {largest} CPUs; "
            f"give at most {largest}"
        )
    cluster = ray.cluster_resources()
    places = cluster.get("CPU", 0) // resources.threads
    return int(min(places, cluster.get("GPU", 0)) if resources.device == "cuda" else places)


def choose(
    experiment: Experiment, shape: tuple[int, ...], classes: int, engine: str, device: str
) -> tuple[Resources, str]:
    """The resources, chosen by a node of the cluster.

    Raises UsageError also if a node has other versions than the driver, or the cluster has no resources.
    """
    ray = library()

    cluster = ray.cluster_resources()
    if not cluster.get("CPU"):
        raise UsageError("the Ray cluster has no CPU for trainings; start a node: ray start --address=HEAD:6379")
    if device == "cuda" and not cluster.get("GPU"):
        raise UsageError("--device cuda: the Ray cluster has no GPU; give --device cpu")
    gpu = bool(cluster.get("GPU")) and device != "cpu" and engine != "native"
    task = ray.remote(num_cpus=1, num_gpus=int(gpu), max_retries=LOSSES)(choose_there)
    return _result(task.remote(versions(), approved_code(experiment), experiment, shape, classes, engine, device))


def _result(reference: Any) -> Any:
    """The result of a task. Raises the exception that the task raised, if any."""
    ray = library()

    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, ModuleNotFoundError):
            raise LthError(f"a node of the cluster lacks {error.cause.name}; install the same lth there") from None
        raise error.cause from None


# -------------------------------------------------------------------------------------------------------- in the driver


@contextmanager
def workers(job: Job, addresses: tuple[str, ...] = ()) -> Iterator[Workers]:
    """Run trainings as tasks of the cluster, and watch its addresses."""
    driver = Driver(job)
    looking = threading.Thread(target=driver.look, daemon=True)
    looking.start()
    if addresses:
        threading.Thread(target=driver.watch, args=(addresses,), daemon=True).start()
    try:
        yield Workers(driver.do, drain(driver.news), driver.stop)
    finally:
        driver.close()
        looking.join(LEAVE_SECONDS if driver.gone.is_set() else None)


class Driver:
    """The driver's side of the communication with its tasks."""

    def __init__(self, job: Job) -> None:
        ray = library()

        self.job = job
        self.setup = setup_of(job.experiment, job.resources, job.folder, job.data.train_x.shape[1:], job.data.classes)
        self.shared = ray.put(_shared(job))
        here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=False
        )
        self.box = ray.remote(num_cpus=0, max_restarts=-1, scheduling_strategy=here)(Box).remote()
        gpus = int(job.resources.device == "cuda")
        self.task = ray.remote(num_cpus=job.resources.threads, num_gpus=gpus, max_retries=0)(perform_there)
        self.placed = lru_cache(KEPT_FILES)(lambda name: ray.put(outcomes.read_file(job.folder, name)))
        self.news: queue.SimpleQueue[tuple[str, int]] = queue.SimpleQueue()
        self.stopping, self.closed, self.gone = threading.Event(), threading.Event(), threading.Event()
        self.guard = threading.Lock()
        self.running: set[str] = set()  # trainings whose checkpoints are wanted
        self.waiting: dict[str, Any] = {}  # trainings that have not reported anything yet, and their tasks

    def do(self, training: Training) -> dict[str, Any]:
        """See `Workers.do`."""
        keep_start(training.trial, self.setup)
        for loss in range(1, LOSSES + 1):
            try:
                files, checkpoint = self._attempt(training)
            except lost() as error:
                if isinstance(error, ConnectionError):
                    self.gone.set()
                if self.gone.wait(loss - 1):  # the watch may not have noticed yet
                    raise ClusterLost from None
                if self.stopping.is_set():
                    break
                reason = str(error).partition("\n")[0]
                self.job.say(f"{training.id} was lost with its worker and is repeated ({loss} of {LOSSES}): {reason}")
                continue
            if files is not None:
                return keep(training, self.job.folder, files)
            if checkpoint is not None:
                atomic.write_file(self._checkpoint_path(training.id), checkpoint)
            break
        else:
            raise LthError(f"{training.id} was lost {LOSSES} times; it may need more memory than a worker has")
        raise Stopped("stopped; run the same command again to continue")

    def _attempt(self, training: Training) -> tuple[dict[str, bytes] | None, bytes | None]:
        """The result of `perform_there`. Raises RayError or ConnectionError if the task was lost."""
        names = needed_names(training, self.job.folder)
        checkpoint = atomic.read_if_there(self._checkpoint_path(training.id))
        self.running.add(training.id)
        task = self.task.remote(self.shared, self.box, training, checkpoint, names, *map(self.placed, names))
        self.waiting[training.id] = task
        if self.stopping.is_set():
            self.stop()  # set a moment before this task began
        try:
            return self._result(task)
        finally:
            self.waiting.pop(training.id, None)
            with self.guard:
                self.running.discard(training.id)

    def _result(self, task: Any) -> Any:
        """The result of a task. Raises ConnectionError if the cluster is lost, because Ray would wait for it."""
        ray = library()

        while not ray.wait([task], timeout=WATCH_SECONDS)[0]:
            if self.gone.is_set():
                raise ConnectionError
        return _result(task)

    def _checkpoint_path(self, training_id: str) -> Path:
        return layout.checkpoint_path(self.job.folder, training_id)

    def stop(self) -> None:
        """See `Workers.stop`. Tasks that have not started are cancelled, because they may wait for hours."""
        ray = library()

        self.stopping.set()
        for task in [] if self.gone.is_set() else list(self.waiting.values()):
            with suppress(*lost()):
                ray.cancel(task)

    def watch(self, addresses: tuple[str, ...]) -> None:
        """Notice when the cluster is lost."""
        misses = 0
        while misses < MISSES:
            if self.closed.wait(WATCH_SECONDS):
                return
            miss = max(map(missed, addresses))
            misses = misses + miss if miss else 0
        self.gone.set()

    def look(self) -> None:
        """Read news and checkpoints from the box, and pass stop requests into it, until the end."""
        ray = library()

        while not self.closed.wait(LOOK_SECONDS) and not self.gone.is_set():
            try:
                news, checkpoints = ray.get(self.box.take.remote(self.stopping.is_set()))
            except lost():
                continue  # the box restarts; if the cluster is lost, the tasks report it
            except Exception:
                if ray.is_initialized():
                    raise
                return  # Ray's client has given up
            for name, iteration in news:
                self.waiting.pop(name, None)
                if iteration != BEGUN:
                    self.news.put((name, iteration))
            for name, checkpoint in checkpoints.items():
                with self.guard:
                    if name in self.running:
                        atomic.write_file(self._checkpoint_path(name), checkpoint)

    def close(self) -> None:
        ray = library()

        self.closed.set()
        if not self.gone.is_set():
            with suppress(*lost()):
                ray.kill(self.box)


def _shared(job: Job) -> Shared:
    splits = splits_of(job.experiment, job.data)
    arrays = {field.name: getattr(splits, field.name).numpy() for field in fields(splits)}
    shape = job.data.train_x.shape[1:]
    return Shared(
        uuid4().hex,
        job.experiment,
        job.code,
        job.resources,
        job.folder,
        shape,
        job.data.classes,
        arrays,
        CHECKPOINT_SECONDS,
    )
