"""Measure the cost of the driver in a big run: the real plan, store, schedule, display and tables, without trainings.

    python benchmarks/scheduling.py [TRAININGS ...] [--workers N] [--seconds S] [--folder DIR]

Each number of trainings (default: 1,000, 10,000 and 100,000) runs in a process of its own, on simulated workers
(default: 1,000): each waits for a random time (on average S seconds, default 2) instead of training, then stores four
small files, as an executor without a shared file system does in the driver. Then the same run is started again, to
measure how long it takes to find that everything is done. Times are processor time of the driver.

- schedule: choosing, submitting, the display, checking for finished and damaged trainings; on the driver's main thread
- store: writing the trainings' folders, safely (fsync), on the threads that wait for the workers
- tables: summary.csv and curves.csv, repeatedly during the run and at its end
- again: a second `lth run`, when everything is done
- memory: peak memory of the process minus that before the run
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from lth.config import Experiment, resolve
from lth.execution import schedule
from lth.execution.executors import Workers
from lth.execution.progress import Display
from lth.plan import Training, digests, trainings
from lth.results import records, tables
from lth.storage import checksums, documents, integrity, layout, outcomes, runs
from lth.storage.retention import Retention

ENVIRONMENT = {"means": {"engine": "native", "precision": "float32"}}
TENSORS = bytes(1000)  # instead of a ticket and of trained weights
PER_TRIAL = 1 + 24 * 4  # levels 0 to 24; from level 1 on, each has 3 branches


def experiment_of(count: int) -> Experiment:
    """An experiment with at most this many trainings, in the shape of the paper's LeNet experiment."""
    trials = max(1, count // PER_TRIAL)
    return resolve("lenet", trials=trials, levels=24, branches="reinit:2,random-mask:1")


class Meter:
    """Processor time of threads, by the kind of their work."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.guard = threading.Lock()

    def add(self, what: str, seconds: float) -> None:
        with self.guard:
            self.seconds[what] = self.seconds.get(what, 0.0) + seconds


def simulated(folder: Path, experiment: Experiment, seconds: float, meter: Meter) -> Workers:
    """Workers that wait instead of training."""
    digest_of = digests(experiment)

    def do(training: Training) -> dict[str, Any]:
        time.sleep(random.Random(training.id).expovariate(1 / seconds))
        began = time.thread_time()
        summary = summary_of(training)
        curve = "".join(f"{i},0.25,0.9375,0.25,0.9375\n" for i in range(1, 2000, 100))
        files = {
            layout.TICKET: TENSORS,
            layout.TRAINED: TENSORS,
            layout.CURVE: (",".join(records.EVALUATION) + "\n" + curve).encode(),
        }
        told = {
            "training": digest_of(training.id),
            "files": outcomes.digests_of(files),
            "made_from": made_from(training),
        }
        outcomes.write_training(folder, training.id, files | {layout.SUMMARY: documents.sealed_json(summary | told)})
        meter.add("store", time.thread_time() - began)
        return summary

    return Workers(do, list, lambda: None)


def made_from(training: Training) -> dict[str, str]:
    named = [f"{need}/{layout.TICKET}" for need in training.needs[:1]]
    return dict.fromkeys(named, checksums.digest(TENSORS))


def summary_of(training: Training) -> dict[str, Any]:
    place = {
        "trial": training.trial,
        "level": training.level,
        "branch": training.branch,
        "density": 0.8**training.level,
    }
    found = dict.fromkeys(records.RESULTS, 0.5) | {"status": "done", "early_stop_iteration": 101, "weights": 100_000}
    return found | place | {"iterations": 2000, "engine": "native", "precision": "float32", "seconds": 2.0}


def drive(experiment: Experiment, folder: Path, workers: int, seconds: float) -> dict[str, float]:
    """The part of `lth run` between loading the data and drawing figures."""
    meter = Meter()
    write = tables.write

    def write_and_measure(folder: Path) -> int:
        began = time.thread_time()
        count = write(folder)
        meter.add("tables", time.thread_time() - began)
        return count

    schedule.tables.write = write_and_measure  # type: ignore[assignment]
    with runs.lock(folder), Path(os.devnull).open("w") as shown:
        began, clock = time.process_time(), time.monotonic()
        outcomes.clear_unfinished(folder)
        runs.open_run(folder, experiment)
        integrity.refuse(folder, experiment, ENVIRONMENT)
        done = total = 0
        retention = Retention(experiment, experiment, folder)
        for training in trainings(experiment):
            total += 1
            done += retention.status(training.id) is not None
        display = Display(Console(file=shown), lambda training: 1.0, done, total, total - done)
        schedule.execute(
            trainings(experiment), retention, simulated(folder, experiment, seconds, meter), workers, display
        )
        integrity.refuse(folder, experiment, ENVIRONMENT)
        spent = {"all": time.process_time() - began, "clock": time.monotonic() - clock}
    parts = {"store": 0.0, "tables": 0.0} | meter.seconds
    return {"trainings": total} | spent | parts | {"schedule": spent["all"] - sum(parts.values())}


def peak() -> float:
    """Peak memory in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def measure(count: int, workers: int, seconds: float, parent: Path | None) -> dict[str, float]:
    """Measure in a process of its own."""
    experiment, before = experiment_of(count), peak()
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        first = drive(experiment, Path(folder), workers, seconds)
        memory = peak() - before
        again = drive(experiment, Path(folder), workers, seconds)
        rows = sum(1 for _ in (Path(folder) / "summary.csv").open()) - 1
        assert rows == first["trainings"], f"{rows} rows of {first['trainings']} trainings"
    return first | {"memory": memory, "again": again["all"]}


def table(results: list[dict[str, float]], workers: int) -> str:
    head = ["trainings", "schedule, ms", "store, ms", "tables, ms", "again, ms", "memory, MiB", "trainings a second"]
    lines = [head, ["---"] * len(head)]
    for found in results:
        each = [f"{1000 * found[part] / found['trainings']:.2f}" for part in ("schedule", "store", "tables", "again")]
        rate = f"{found['trainings'] / found['clock']:,.0f}"
        lines.append([f"{found['trainings']:,}", *each, f"{found['memory']:.0f}", rate])
    about = f"{workers:,} simulated workers; processor time a training; Python {platform.python_version()}."
    return "\n".join([about, "", *(f"| {' | '.join(line)} |" for line in lines)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("counts", nargs="*", type=int, default=[1_000, 10_000, 100_000], metavar="TRAININGS")
    parser.add_argument("--workers", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.alone:
        print(json.dumps(measure(given.counts[0], given.workers, given.seconds, given.folder)))
        return
    options = ["--workers", str(given.workers), "--seconds", str(given.seconds), "--alone"]
    options += ["--folder", str(given.folder)] if given.folder else []
    results = []
    for count in given.counts:
        command = [sys.executable, __file__, str(count), *options]
        results.append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout))
        print(results[-1], flush=True)
    print("\n" + table(results, given.workers))


if __name__ == "__main__":
    main()
