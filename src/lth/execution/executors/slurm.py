"""Slurm, through submitit. Each training is a job on a file system that the nodes share with this machine.

A job reads its inputs from the run's folder and stores its training there. Other messages between job and driver are
small files in `.slurm` in that folder. A job that reaches its time limit, is preempted or loses its node is queued
again and resumes from its checkpoint. Settings such as partition, account and time limit come from sbatch's variables:
SBATCH_PARTITION, SBATCH_ACCOUNT, SBATCH_TIMELIMIT.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import uuid4

from lth.config import Experiment
from lth.config.userfile import accept
from lth.errors import LthError, UsageError
from lth.execution.executors import Executor, Job, Workers
from lth.execution.job import carry_out, keep_start
from lth.execution.resources import Resources, choose
from lth.execution.setup import load_again, set_up, setup_of
from lth.plan import Training
from lth.storage import atomic, layout, outcomes
from lth.training.loop import Hooks, Stopped

CLUSTER = "slurm"  # tests use "local": submitit's local executor, whose jobs are processes of this machine
FOLDER = layout.JOBS  # in the run's folder; one folder per driver session, with the logs of its jobs
JOBS = 64  # default number of jobs that are queued or running at once
MINUTES = 60  # default time limit of a job (SBATCH_TIMELIMIT); a job that needs more is queued again
REQUEUES = 10_000
LOSSES = 10  # failures of a training before the run ends
LOOK_SECONDS = 1.0  # seconds between two checks of a job
TELL_SECONDS = 2.0  # seconds between two messages of a job


@contextmanager
def executor(name: str = "slurm") -> Iterator[Executor]:
    """The Slurm cluster to which this machine submits."""
    if find_spec("submitit") is None:
        raise UsageError("--executor slurm needs submitit, which is not installed; type: pip install 'lth[slurm]'")
    if CLUSTER == "slurm" and not (shutil.which("sbatch") and shutil.which("srun")):
        raise UsageError("--executor slurm: sbatch was not found; run lth where you submit jobs, or give another")
    yield Executor(choose_unseen, lambda resources: JOBS, workers)


def choose_unseen(
    experiment: Experiment, shape: tuple[int, ...], classes: int, engine: str, device: str
) -> tuple[Resources, str]:
    """The resources, chosen here for nodes that are like this machine; a GPU is used if it is requested.

    Raises UsageError also if only the nodes' GPUs could decide the precision.
    """
    if device != "cuda":
        return choose(experiment, shape, classes, engine, "cpu")
    precision = experiment.recipe.precision
    if engine == "native" or precision == "auto":
        wrong = "--engine native runs on the CPU" if engine == "native" else "recipe.precision is auto"
        raise UsageError(f"--executor slurm --device cuda: {wrong}; give --engine torch recipe.precision=float32")
    return Resources("torch", "cuda", precision, threads=1), "asked for"


@contextmanager
def workers(job: Job) -> Iterator[Workers]:
    """Run trainings as jobs."""
    driver = Driver(job)
    try:
        yield Workers(driver.do, driver.news, driver.stop)
    finally:
        driver.close()


class Driver:
    """A session of the driver: its queued jobs, and the folder for messages."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.setup = setup_of(job.experiment, job.resources, job.folder, job.data.train_x.shape[1:], job.data.classes)
        for earlier in (job.folder / FOLDER).glob("*"):
            (earlier / "stop").touch()  # jobs outlive a killed driver; they end and leave their checkpoints
        self.session = (job.folder / FOLDER / uuid4().hex[:8]).resolve()
        self.session.mkdir(parents=True)
        self.submitit: Any = import_module("submitit")
        limits = {f"{CLUSTER}_max_num_timeout": REQUEUES}
        self.executor = self.submitit.AutoExecutor(self.session / "jobs", cluster=CLUSTER, **limits)
        gpu = {"gpus_per_node": 1} if job.resources.device == "cuda" else {}
        self.executor.update_parameters(name="lth", timeout_min=MINUTES, cpus_per_task=job.resources.threads, **gpu)
        self.jobs: dict[str, Any] = {}  # the jobs of queued or running trainings
        self.guard = threading.Lock()  # submitit is not thread-safe
        self.looked, self.failed = 0.0, False

    def do(self, training: Training) -> dict[str, Any]:
        """See `Workers.do`."""
        keep_start(training.trial, self.setup)
        root = self.job.data_root.resolve() if self.job.data_root else None
        job = self.job
        task = Task(job.experiment, job.code, job.resources, job.folder.resolve(), root, self.session, training)
        for loss in range(1, LOSSES + 1):
            if self.stopped():
                break
            try:
                stored = self._attempt(task)
            except self.submitit.core.utils.FailedJobError as error:
                raise self._failure(training, error) from None
            except self.submitit.core.utils.UncompletedJobError as error:
                if not self.stopped():
                    reason = str(error).partition("\n")[0]
                    self.job.say(f"{training.id} was lost and is repeated ({loss} of {LOSSES}): {reason}")
                continue
            if stored and (summary := outcomes.outcome(self.job.folder, training.id)):
                return summary
        if self.stopped():
            raise Stopped("stopped; run the same command again to continue")
        self.failed = True
        raise LthError(f"{training.id} was lost {LOSSES} times; its jobs' logs are in {self.session / 'jobs'}")

    def _attempt(self, task: Task) -> bool:
        """Queue a job and wait for it. Returns False if it was asked to stop."""
        with self.guard:
            job = self.jobs[task.training.id] = self.executor.submit(task)
        try:
            while not self._done(job):
                time.sleep(LOOK_SECONDS)
            return job.result()
        finally:
            del self.jobs[task.training.id]
            task.report_file.unlink(missing_ok=True)

    def _done(self, job: Any) -> bool:
        with self.guard:
            return job.done()

    def _failure(self, training: Training, error: Exception) -> LthError:
        """The error of a job, which submitit returns as the text of a traceback between two rules."""
        self.failed = True
        trace = str(error).partition("-" * 22 + "\n")[2].partition("\n" + "-" * 22)[0].strip()
        reason = trace.rpartition("\n")[2].partition("lth.errors.")[2].partition(": ")[2] or trace.rpartition("\n")[2]
        return LthError(f"{training.id} failed: {reason}; its job's log is in {self.session / 'jobs'}")

    def news(self) -> list[tuple[str, int]]:
        """See `Workers.news`."""
        if time.monotonic() < self.looked + TELL_SECONDS:
            return []
        self.looked = time.monotonic()
        reports = ((name, atomic.read_if_there(report_file(self.session, name))) for name in list(self.jobs))
        return [(name, int(iteration)) for name, iteration in reports if iteration]

    def stop(self) -> None:
        """See `Workers.stop`. Jobs that have not started are cancelled, because they may be queued for hours."""
        (self.session / "stop").touch()
        for name, job in list(self.jobs.items()):
            if not report_file(self.session, name).exists():
                job.cancel(check=False)

    def stopped(self) -> bool:
        return (self.session / "stop").exists()

    def close(self) -> None:
        """Delete all sessions unless a job of this one failed. Jobs that start later find no session and end."""
        (self.session / "stop").touch()
        if not self.failed:
            shutil.rmtree(self.session.parent, ignore_errors=True)


def report_file(session: Path, training_id: str) -> Path:
    """The file in which a job reports its iteration."""
    return session / f"{training_id.replace('/', '.')}.iteration"


# ------------------------------------------------------------------------------------------------------------ on a node


@dataclass(frozen=True)
class Task:
    """The work of a job."""

    experiment: Experiment
    code: dict[str, bytes]  # the user's approved files
    resources: Resources
    folder: Path
    data_root: Path | None
    session: Path
    training: Training

    @property
    def report_file(self) -> Path:
        return report_file(self.session, self.training.id)

    def __call__(self) -> bool:
        """Carry the training out. Returns False if the driver asked to stop."""
        stop, due = self.session / "stop", 0.0

        def report(iteration: int) -> None:
            nonlocal due
            if time.monotonic() >= due:
                atomic.write_file(self.report_file, str(iteration).encode())
                due = time.monotonic() + TELL_SECONDS

        try:
            if stop.exists() or not self.session.exists():
                return False
            accept(self.code)
            data = load_again(self.experiment, self.data_root, print)
            setup = set_up(self.experiment, self.resources, self.folder, data)
            carry_out(self.training, setup, Hooks(report=report, stopped=stop.exists))
        except Stopped:
            return False
        return True

    def checkpoint(self) -> Any:
        """The job that submitit queues when the time limit is reached: the same one, which finds its checkpoint."""
        return import_module("submitit").helpers.DelayedSubmission(self)
