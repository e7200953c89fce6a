"""Check long runs: growth of memory with the number of trainings, open files, and the time of a large report.

    python benchmarks/long_run.py [memory] [report]

- memory: 500 small trainings with each engine, two in parallel; the main process is sampled every 50 trainings
- report: `lth report` on a folder of 3,025 trainings of 501 evaluations each, with and without its tables
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lth import plan
from lth.config import resolve
from lth.measures import anatomy, tables
from lth.measures.ticket_anatomy import dissect
from lth.storage import documents, layout, outcomes, runs

LTH = [sys.executable, "-c", "from lth.cli import main; main()"]


def experiment(folder: Path, trials: int, levels: int, branches: str = "", iterations: int = 100) -> Path:
    path = folder / "long.toml"
    tables = "".join(f'[[branch]]\nname = "{name}"\ncount = {n}\n' for name, n in counts(branches).items())
    path.write_text(
        f"""name = "long"
trials = {trials}
levels = {levels}
data = {{ name = "{folder / "data.npz"}", validation = 100 }}
model = {{ name = "lenet", layers = [30, 20] }}
recipe = {{ optimizer = "adam", lr = 0.001, iterations = {iterations}, batch = 50, eval_every = {iterations // 10} }}
prune = {{ rate = 0.05 }}
{tables}"""
    )
    return path


def counts(branches: str) -> dict[str, int]:
    return {name: int(n) for name, _, n in (part.partition(":") for part in branches.split(",") if part)}


# --------------------------------------------------------------------------------------------------------------- memory


def memory(folder: Path) -> None:
    draw = np.random.default_rng(1)
    x, y = draw.integers(0, 255, (1200, 12, 12)).astype(np.uint8), draw.integers(0, 4, 1200)
    np.savez(folder / "data.npz", x_train=x[:1000], y_train=y[:1000], x_test=x[1000:], y_test=y[1000:])
    path = experiment(folder, trials=20, levels=24)
    for engine in ("native", "torch"):
        words = [*LTH, "run", str(path), "--out", str(folder / engine), "--engine", engine, "--workers", "2"]
        began = time.monotonic()
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
        seen = list(samples(process, folder / engine))
        took = time.monotonic() - began
        assert process.returncode == 0
        print(f"{engine}: 500 trainings in {took:.0f} s; the main process by trainings done:")
        for done, mib, files in seen:
            print(f"  {done:4}: {mib:7.1f} MiB resident, {files} open files")


def samples(process: subprocess.Popen[bytes], run: Path, step: int = 50) -> Iterator[tuple[int, float, int]]:
    """Finished trainings, resident memory and open files of a process, sampled every `step` trainings."""
    due = step
    while process.poll() is None:
        time.sleep(0.2)
        done = sum(1 for _ in run.glob("trial-*/level-*/summary.json"))
        if done < due:
            continue
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
            files = len(list(Path(f"/proc/{process.pid}/fd").iterdir()))
        except OSError:
            return
        resident = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        yield done, int(resident.split()[1]) / 1024, files
        due = done - done % step + step
    process.wait()


# --------------------------------------------------------------------------------------------------------------- report


def report(folder: Path) -> None:
    run = folder / "large"
    path = experiment(folder, 25, 24, "reinit:3,random-mask:1", iterations=50_000)
    trainings = lay_out(run, path)
    for what, lost in (("with its tables", ()), ("where they are lost", ("summary.csv", "curves.csv"))):
        for name in lost:
            (run / name).unlink()
        began, worked = time.monotonic(), work()
        subprocess.run([*LTH, "report", str(run)], check=True, stdout=subprocess.DEVNULL)
        took = time.monotonic() - began
        print(f"lth report on {trainings} trainings, {what}: {took:.1f} s, {work() - worked:.1f} s of them at work")
    most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"  {most:,.0f} MiB at most; report.html has {(run / 'report.html').stat().st_size / 2**20:.1f} MiB")


def work() -> float:
    """Processor time of all children so far: the time on an otherwise idle machine."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def lay_out(run: Path, path: Path) -> int:
    """Write the folder of a finished run with all files that a report reads. Returns the number of trainings."""
    whole = resolve(path)
    runs.open_run(run, whole)
    digest_of, draw = plan.digests(whole), np.random.default_rng(1)
    start = {"fc1.weight": draw.normal(size=(300, 784)).astype(np.float32)}
    anatomies = []
    for training in plan.plan(whole):
        density = 0.8**training.level
        curve = curve_of(training.level, draw)
        files = {"curve.csv": curve.encode()}
        if training.branch == "ticket":
            mask = {name: draw.random(weights.shape) < density for name, weights in start.items()}
            anatomies += anatomy.to_rows((training.trial, training.level), dissect(mask, start, (1, 28, 28)))
        summary = {
            "trial": training.trial, "level": training.level, "branch": training.branch, "density": density,
            "weights": int(266_200 * density), "status": "done", "early_stop_iteration": 4001 + 100 * training.level,
            "val_loss_at_early_stop": 0.07, "val_accuracy_at_early_stop": 0.979, "test_accuracy_at_early_stop": 0.98,
            "train_accuracy_at_early_stop": 0.999, "final_test_accuracy": 0.981, "final_train_accuracy": 1.0,
            "final_val_accuracy": 0.98, "iterations": 50_000, "engine": "native", "precision": "float32",
            "seconds": 60.5, "device": "cpu", "threads": 1, "training": digest_of(training.id),
            "files": outcomes.digests_of(files),
        }  # fmt: skip
        for name, content in {**files, layout.SUMMARY: documents.sealed_json(summary)}.items():
            target = run / training.id / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
    tables.write("anatomy", run, tables.joined(None, anatomies, anatomy.COLUMNS))
    return len(plan.plan(whole))


def curve_of(level: int, draw: np.random.Generator) -> str:
    losses = 0.05 + 2 / (1 + np.arange(501)) + 0.01 * draw.random((2, 501))
    rows = [
        f"{100 * i + 1},{a!r},{1 - a / 3!r},{b!r},{1 - b / 3!r}"
        for i, (a, b) in enumerate(zip(*losses.tolist(), strict=True))
    ]
    return "\n".join(["iteration,val_loss,val_accuracy,test_loss,test_accuracy", *rows]) + "\n"


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="lth-long-") as folder:
        for name in sys.argv[1:] or ["memory", "report"]:
            {"memory": memory, "report": report}[name](Path(folder))


if __name__ == "__main__":
    main()
