"""Kill a run at random moments, stop it, fill its disk, and compare all files with those of an undisturbed run.

    python benchmarks/crash_safety.py [--kills 50] [--engine native|torch] [--seed 1] [--only kills,stops,...]

Every file of the disturbed run is compared byte by byte with the undisturbed one, except times (`seconds`, and the
checksum of the summary that contains it) and the machine (environment.json). Prints one line per check, and fails if
one fails. Data are generated; it takes about a quarter of an hour on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

# lth with many checkpoints per second, so that kills hit them too; a file, because workers' processes import it
EAGER = """
from lth import cli
from lth.storage import outcomes
from lth.storage import runs
clear = outcomes.clear_unfinished

def hurry():
    from lth.training import loop
    loop.CHECKPOINT_SECONDS, loop.CHECKPOINT_COST, loop.SLICE_SECONDS = 0.3, 0, 0.05

def eager(folder):
    hurry()  # not before main: a signal may come while torch is imported
    clear(folder)

if __name__ == "__main__":
    outcomes.clear_unfinished = eager
    cli.main()
else:
    hurry()
"""
TIMES = {"seconds", "seal"}


@dataclass(frozen=True)
class Place:
    """The folder and options of the checks."""

    folder: Path
    engine: str
    workers: int
    draw: random.Random

    def words(self, out: Path, *more: str) -> list[str]:
        program = [
            sys.executable,
            str(self.folder / "eager.py"),
            "run",
            str(self.folder / "small.toml"),
            "--out",
            str(out),
        ]
        return [*program, "--engine", self.engine, "--workers", str(self.workers), *more]


def lay_out(folder: Path, engine: str) -> None:
    """Write the program, data, and an experiment of 15 trainings of a few seconds each."""
    (folder / "eager.py").write_text(EAGER)
    draw = np.random.default_rng(1)
    labels = draw.integers(0, 4, 2500)
    images = draw.integers(0, 200, (2500, 10, 10))
    for image, label in zip(images, labels, strict=True):
        row, column = divmod(int(label), 2)
        image[5 * row : 5 * row + 5, 5 * column : 5 * column + 5] += 12
    x, n = images.astype(np.uint8), 2000
    np.savez(folder / "data.npz", x_train=x[:n], y_train=labels[:n], x_test=x[n:], y_test=labels[n:])
    iterations = 30_000 if engine == "native" else 5_000
    (folder / "small.toml").write_text(
        f"""name = "small"
trials = 3
levels = 2
data = {{ name = "{folder / "data.npz"}", validation = 300 }}
model = {{ name = "lenet", layers = [60, 30], dropout = 0.1 }}
recipe = {{ optimizer = "adam", lr = 0.001, iterations = {iterations}, batch = 50, eval_every = {iterations // 10} }}
[[branch]]
name = "reinit"
"""
    )


def contents(run: Path) -> dict[str, Any]:
    """Every file of a finished run, except times and facts about the machine."""
    found: dict[str, Any] = {}
    for path in sorted(path for path in run.rglob("*") if path.is_file()):
        name = str(path.relative_to(run))
        if name in (".lock", "environment.json", "manifest.json"):  # it contains the checksum of summary.csv
            continue
        content: Any = path.read_bytes()
        if path.name == "summary.json":
            content = {k: v for k, v in json.loads(content).items() if k not in TIMES}
        elif path.name == "summary.csv":  # its last column is `seconds`
            content = [line.rpartition(b",")[0] for line in content.splitlines()]
        elif name == "report.html":
            content = None  # it shows `seconds`; only its existence is compared
        found[name] = content
    return found


def differences(run: Path, whole: dict[str, Any]) -> list[str]:
    found = contents(run)
    return sorted(
        name for name in {*found, *whole} if name not in found or name not in whole or found[name] != whole[name]
    )


def written(run: Path) -> dict[Path, int]:
    """The modification time of each file in the folder."""
    found = {}
    for folder, _, names in os.walk(run):
        for path in (Path(folder, name) for name in names):
            with suppress(FileNotFoundError):
                found[path] = path.stat().st_mtime_ns
    return found


def start(words: list[str], **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True, **options
    )


def wait_for(done: Callable[[], bool], seconds: float) -> bool:
    until = time.monotonic() + seconds
    while not (met := done()) and time.monotonic() < until:
        time.sleep(0.01)
    return met


def family_gone(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def checkpoints(run: Path) -> int:
    return sum(path.suffix == ".checkpoint" for path in written(run))


# --------------------------------------------------------------------------------------------------------------- checks


def kills(place: Place, whole: dict[str, Any], count: int) -> str:
    """SIGKILL to the main process at random moments, most of them during trainings."""
    run = place.folder / "killed"
    begun = inside = again = 0
    longest = 0.0
    while begun < count:
        before = written(run)
        process = start(place.words(run))
        if place.draw.random() < 0.85:  # otherwise at any moment, including the start
            wait_for(lambda: process.poll() is not None or written(run) != before, 120)  # noqa: B023
        with suppress(subprocess.TimeoutExpired):
            process.wait(place.draw.uniform(0, 2.5))
        if process.poll() is not None:
            _, errors = process.communicate()
            assert process.returncode == 0, errors
            assert not (wrong := differences(run, whole)), f"after {begun} kills these differ: {wrong}"
            shutil.rmtree(run)
            again += 1
            continue
        process.kill()
        killed = time.monotonic()
        process.wait()
        begun += 1
        inside += checkpoints(run) > 0
        assert wait_for(lambda: family_gone(process.pid), 30), "a worker outlives its parent"  # noqa: B023
        longest = max(longest, time.monotonic() - killed)
        settled = written(run)
        time.sleep(0.2)
        assert settled == written(run), "something is written after all have gone"
        with suppress(ValueError):
            process.stderr and process.stderr.close()
    subprocess.run(place.words(run), check=True, capture_output=True)
    assert not (wrong := differences(run, whole)), f"these differ: {wrong}"
    return (
        f"{count} kills over {again + 1} runs, {inside} of them with checkpoints on disk: every file equal to the "
        f"byte; the last worker was gone after {longest:.1f} s at most"
    )


def stops(place: Place, whole: dict[str, Any], count: int) -> str:
    """Ctrl-C (to the whole group, as a terminal does it) and SIGTERM (to the main process) at random moments."""
    run = place.folder / "stopped"
    waited: list[float] = []
    while len(waited) < count:
        before = written(run)
        process = start(place.words(run))
        sent = place.draw.choice([signal.SIGINT, signal.SIGTERM])
        if place.draw.random() < 0.7:
            wait_for(lambda: process.poll() is not None or written(run) != before, 120)  # noqa: B023
            time.sleep(place.draw.uniform(0, 2))
        else:
            time.sleep(place.draw.uniform(1.0, 4.0))  # while it imports torch
        if process.poll() is not None:
            assert process.returncode == 0
            process.communicate()
            shutil.rmtree(run)
            continue
        os.killpg(process.pid, sent) if sent == signal.SIGINT else process.send_signal(sent)
        asked = time.monotonic()
        _, errors = process.communicate(timeout=60)
        if process.returncode == 0:  # it had finished
            continue
        waited.append(time.monotonic() - asked)
        assert process.returncode == 130, (sent, process.returncode, errors)
        assert "stopped; " in errors and "Traceback" not in errors, errors
        assert wait_for(lambda: family_gone(process.pid), 30), "a worker outlives its parent"  # noqa: B023
    subprocess.run(place.words(run), check=True, capture_output=True)
    assert not (wrong := differences(run, whole)), f"these differ: {wrong}"
    return (
        f"{count} times Ctrl-C or SIGTERM: exit code 130 after {statistics.median(waited):.2f} s (median), "
        f"{max(waited):.2f} s at most; every file equal to the byte"
    )


def full_disk(place: Place, whole: dict[str, Any]) -> str:
    """RLIMIT_FSIZE, raised step by step: each time another file is the first that does not fit."""
    run = place.folder / "full"
    lines = set()
    for size in (100, 500, 1000, 2000, 5000, 10_000, 20_000, 40_000, 80_000, 200_000):
        limit = lambda: (
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))  # noqa: B023
        )  # fmt: skip
        done = subprocess.run(place.words(run), capture_output=True, text=True, preexec_fn=limit)
        if done.returncode:
            assert done.returncode == 1 and "Traceback" not in done.stderr, (size, done.stderr)
            assert "could not be written: File too large" in done.stderr, done.stderr
            lines.add(Path(done.stderr.partition(" could not")[0].rpartition(" ")[2]).name)
    subprocess.run(place.words(run), check=True, capture_output=True)
    assert not (wrong := differences(run, whole)), f"these differ: {wrong}"
    return f"ten limits on the size of files: a clear line each ({len(lines)} different files), then every file equal"


def small_disk(place: Place, whole: dict[str, Any]) -> str:
    """A file system that is too small from the start, and one that others fill during the run, three times."""
    disk = place.folder / "disk"
    disk.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(disk)], capture_output=True, text=True
    )
    if made.returncode:
        return f"not done here: {made.stderr.strip()}"
    run = disk / "run"
    try:
        done = subprocess.run(place.words(run), capture_output=True, text=True)
        assert done.returncode == 2 and "are free there; give an --out on another disk" in done.stderr, done.stderr
        subprocess.run(["mount", "-o", "remount,size=40m", str(disk)], check=True, capture_output=True)
        for _ in range(3):
            before = len(list(run.rglob("summary.json")))
            process = start(place.words(run))
            assert wait_for(lambda: len(list(run.rglob("summary.json"))) > before, 120)  # noqa: B023
            fill(disk / "filler")
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 1 and "No space left on device" in errors, errors
            assert "Traceback" not in errors, errors
            (disk / "filler").unlink()
        subprocess.run(place.words(run), check=True, capture_output=True)
        assert not (wrong := differences(run, whole)), f"these differ: {wrong}"
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    return (
        "a disk too small is refused at once; one that filled up three times: a clear line each, then all files equal"
    )


def fill(path: Path) -> None:
    """Write until the disk is full."""
    with suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def read_only(place: Place, whole: dict[str, Any]) -> str:
    """A run's folder that cannot be written."""
    run = place.folder / "read-only"
    shutil.copytree(place.folder / "whole", run)
    for path in [run, *run.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    words = place.words(run, "--trials", "4")
    if os.geteuid() == 0:  # root may write everywhere, unless this right is dropped
        if not shutil.which("setpriv"):
            return "not done here: there is no setpriv to drop root's right to write everywhere"
        words = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", *words]
    done = subprocess.run(words, capture_output=True, text=True)
    for path in [run, *run.rglob("*")]:
        path.chmod(0o755)
    assert done.returncode == 2 and "cannot be written: Permission denied; give another --out" in done.stderr, done
    assert not (wrong := differences(run, whole)), f"these differ: {wrong}"
    return "a folder that cannot be written: a clear line, exit code 2, nothing changed"


def two_at_once(place: Place, whole: dict[str, Any]) -> str:
    """A second process on the same folder is refused; the lock of a killed process is free at once."""
    run = place.folder / "two"
    first = start(place.words(run))
    assert wait_for(lambda: checkpoints(run) > 0, 120)
    second = subprocess.run(place.words(run), capture_output=True, text=True)
    assert second.returncode == 2 and "is in use by another lth" in second.stderr, second.stderr
    first.kill()
    first.communicate()
    subprocess.run(place.words(run), check=True, capture_output=True)
    assert not (wrong := differences(run, whole)), f"these differ: {wrong}"
    return "two processes on one folder: the second is refused; after a kill of the first, the lock is free at once"


def clock_set_back(place: Place, whole: dict[str, Any]) -> str:
    """A stopped run all of whose files have dates in the next year."""
    run = place.folder / "clock"
    process = start(place.words(run))
    assert wait_for(lambda: checkpoints(run) > 0 and len(list(run.rglob("summary.json"))) > 3, 120)
    process.kill()
    process.communicate()
    future = time.time() + 365 * 86400
    for path in [run, *run.rglob("*")]:
        os.utime(path, (future, future))
    subprocess.run(place.words(run), check=True, capture_output=True)
    assert not (wrong := differences(run, whole)), f"these differ: {wrong}"
    return "the clock set back by a year in the middle: every file equal to the byte"


@contextmanager
def workplace() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="lth-crash-") as folder:
        yield Path(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--stops", type=int, default=20)
    parser.add_argument("--engine", choices=("native", "torch"), default="native")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", help="such as kills,stops: leave the other checks out")
    given = parser.parse_args()
    with workplace() as folder:
        place = Place(folder, given.engine, given.workers, random.Random(given.seed))
        lay_out(folder, given.engine)
        began = time.monotonic()
        subprocess.run(place.words(folder / "whole"), check=True, capture_output=True)
        whole = contents(folder / "whole")
        took = time.monotonic() - began
        print(f"{given.engine}, {given.workers} workers: undisturbed, {len(whole)} files in {took:.0f} s", flush=True)
        checks: dict[str, Callable[[], str]] = {
            "kills": lambda: kills(place, whole, given.kills),
            "stops": lambda: stops(place, whole, given.stops),
            "full": lambda: full_disk(place, whole),
            "disk": lambda: small_disk(place, whole),
            "read-only": lambda: read_only(place, whole),
            "two": lambda: two_at_once(place, whole),
            "clock": lambda: clock_set_back(place, whole),
        }
        for name in given.only.split(",") if given.only else checks:
            began = time.monotonic()
            print(f"{name}: {checks[name]()} [{time.monotonic() - began:.0f} s]", flush=True)


if __name__ == "__main__":
    main()
