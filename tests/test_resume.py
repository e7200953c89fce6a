"""Nothing is lost: killed, stopped or extended, a run ends in the same bits as one that was never disturbed."""

from __future__ import annotations

import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pytest

import lth
from lth import config, native
from lth.errors import LthError, UsageError
from lth.storage import runs
from lth.training import loop
from stored_runs import contents

# lth as it is, but writing checkpoints many times a second
EAGER = """
import sys
from lth.training import loop
loop.CHECKPOINT_SECONDS, loop.CHECKPOINT_COST, loop.SLICE_SECONDS = 0.05, 0, 0.01
from lth.execution import running
running.show_results = lambda *_: None
from lth.cli import main
main()
"""


def command(experiment: Path, out: Path, engine: str, workers: int) -> list[str]:
    words = [sys.executable, "-c", EAGER, "run", str(experiment), "--out", str(out), "--engine", engine]
    return [*words, "--workers", str(workers)]


def times(run: Path) -> dict[Path, int]:
    """When each file below was last written; a file may go while this looks."""
    found = {}
    for folder, _, names in os.walk(run):
        for path in (Path(folder, name) for name in names):
            with suppress(FileNotFoundError):
                found[path] = path.stat().st_mtime_ns
    return found


def newest(run: Path) -> int:
    return max((written for path, written in times(run).items() if path.parent != run), default=0)


def has_checkpoint(run: Path) -> bool:
    return any(path.suffix == ".checkpoint" for path in times(run))


def to_file(tables: dict[str, Any], path: Path) -> Path:
    path.write_text(config.to_toml(config.resolve(tables)))
    return path


@pytest.mark.parametrize(("engine", "workers"), [("torch", 1), ("torch", 2), ("native", 2)])
def test_killed_at_any_moment_it_goes_on_to_the_same_bits(
    tiny: dict[str, Any], tmp_path: Path, engine: str, workers: int
) -> None:
    if engine == "native" and not native.available():
        pytest.skip(str(native.why_not()))
    tiny |= {"trials": 2, "levels": 1, "branch": [{"name": "reinit"}]}
    tiny["model"]["dropout"] = 0.2
    tiny["recipe"]["iterations"] = 800 if engine == "torch" else 20000
    experiment = to_file(tiny, tmp_path / "tiny.toml")
    lth.run(experiment, out=tmp_path / "whole", engine=engine, workers=workers)
    expected = contents(tmp_path / "whole")
    moments = random.Random(7)
    eager = engine == "native" or workers == 1  # processes of their own know nothing of EAGER
    killed, kills, resumed_inside = tmp_path / "killed", 0, False
    restarts = 4 if eager else 3
    for _ in range(restarts):
        process = subprocess.Popen(
            command(experiment, killed, engine, workers), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        before = newest(killed)
        while process.poll() is None and newest(killed) == before:  # until it has begun to write
            time.sleep(0.005)
        while eager and process.poll() is None and kills == 0 and not has_checkpoint(killed):
            time.sleep(0.005)  # the first kill is inside a training
        patience = (
            0.01 if kills == 0 else moments.random() * 0.5 if kills < restarts - 1 else 300
        )  # the last may finish
        try:
            _, errors = process.communicate(timeout=patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills += 1
            resumed_inside |= has_checkpoint(killed)
            continue
        assert process.returncode == 0, errors.decode()
        break
    else:
        pytest.fail("undisturbed, it did not come to its end")
    assert kills >= 2 and (resumed_inside or not eager), "the run was too short to be killed: give it more iterations"
    assert contents(killed) == expected


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_stopping_says_how_to_go_on(tiny: dict[str, Any], tmp_path: Path, sent: signal.Signals) -> None:
    tiny["recipe"]["iterations"] = 10**6
    experiment = to_file(tiny, tmp_path / "tiny.toml")
    process = subprocess.Popen(
        command(experiment, tmp_path / "run", "torch", 2), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    until = time.monotonic() + 60
    while not has_checkpoint(tmp_path / "run") and time.monotonic() < until:
        time.sleep(0.1)
    process.send_signal(sent)
    asked = time.monotonic()
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert time.monotonic() - asked < 5
    assert f"lth run {experiment}" in errors and "Traceback" not in errors
    assert has_checkpoint(tmp_path / "run")


@pytest.mark.parametrize("seconds", [0.3, 1.0, 2.0])
def test_ctrl_c_while_workers_start_is_no_traceback(tiny: dict[str, Any], tmp_path: Path, seconds: float) -> None:
    """A terminal sends Ctrl-C to all processes of the group; workers that import torch are among them."""
    tiny["recipe"]["iterations"] = 10**6
    experiment = to_file(tiny | {"trials": 2}, tmp_path / "tiny.toml")
    words = command(experiment, tmp_path / "run", "torch", 2)
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout
    while "side by side" not in (line := process.stdout.readline()):
        assert line or process.poll() is None
    time.sleep(seconds)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.startswith("lth: stopped; ") and errors.count("\n") == 1, errors


@pytest.mark.parametrize("engine", ["torch", "native"] if native.available() else ["torch"])
@pytest.mark.parametrize("apart", [0.0, 0.05, 0.3])
def test_a_second_ctrl_c_is_no_traceback(tiny: dict[str, Any], tmp_path: Path, apart: float, engine: str) -> None:
    tiny["recipe"] |= {"iterations": 10**7, "eval_every": 10**5}
    experiment = to_file(tiny, tmp_path / "tiny.toml")
    words = command(experiment, tmp_path / "run", engine, 1)
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout
    while "side by side" not in (line := process.stdout.readline()):
        assert line or process.poll() is None
    time.sleep(0.5)
    for _ in range(3):
        process.send_signal(signal.SIGINT)
        time.sleep(apart)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.startswith("lth: stopped; ") and errors.count("\n") == 1, errors


def test_a_figure_that_is_stopped_goes_on_as_a_figure(tiny_data: Path, tmp_path: Path) -> None:
    """It is of several runs: the command of one of them would not draw it."""
    words = ["figure", "4", f"data.name={tiny_data}", "model.layers=[12,8]", "data.validation=90", "--trials", "1"]
    words += ["--levels", "1", "--engine", "torch", "--workers", "1", "--out", str(tmp_path / "figures")]
    process = subprocess.Popen(
        [sys.executable, "-c", "from lth.cli import main; main()", *words],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1,
    )  # fmt: skip
    assert process.stdout
    while "side by side" not in (line := process.stdout.readline()):
        assert line or process.poll() is None
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and said.strip().endswith(f"To continue: lth {shlex.join(words)}"), said


def test_what_cannot_stop_by_itself_is_left(tiny: dict[str, Any], tmp_path: Path) -> None:
    """As an evaluation of a large network, which nothing can interrupt; all that is stored is whole anyway."""
    experiment = to_file(tiny, tmp_path / "tiny.toml")
    slow = "import time\nfrom lth.training.torch_engine import TorchEngine\n"
    slow += "TorchEngine.evaluate = lambda self, split: (print('evaluates', flush=True), time.sleep(60))\n"
    words = [sys.executable, "-c", slow + EAGER, *command(experiment, tmp_path / "run", "torch", 1)[3:]]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout
    while "evaluates" not in (line := process.stdout.readline()):
        assert line or process.poll() is None
    process.send_signal(signal.SIGINT)
    asked = time.monotonic()
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130 and time.monotonic() - asked < 10
    assert errors.startswith(f"lth: stopped; finished work is kept. To continue: lth run {experiment} --out ")


def test_workers_of_a_killed_parent_end(tiny: dict[str, Any], tmp_path: Path) -> None:
    tiny |= {"trials": 2}
    tiny["recipe"]["iterations"] = 10**6
    experiment = to_file(tiny, tmp_path / "tiny.toml")
    process = subprocess.Popen(
        command(experiment, tmp_path / "run", "torch", 2), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    until = time.monotonic() + 60
    while not has_checkpoint(tmp_path / "run") and time.monotonic() < until:
        time.sleep(0.1)
    process.kill()
    process.wait()
    with pytest.raises(ProcessLookupError):
        for _ in range(100):
            os.killpg(process.pid, 0)  # is anybody of the family left?
            time.sleep(0.1)
    before = times(tmp_path / "run")
    time.sleep(0.5)
    assert before == times(tmp_path / "run")


@pytest.mark.parametrize("workers", [1, 2])
def test_the_number_of_workers_changes_no_bit(tiny: dict[str, Any], tmp_path: Path, workers: int) -> None:
    tiny |= {"trials": 2, "branch": [{"name": "random-mask"}]}
    lth.run(tiny, out=tmp_path / "one", engine="torch", workers=1)
    experiment = to_file(tiny, tmp_path / "tiny.toml")
    subprocess.run(command(experiment, tmp_path / "some", "torch", workers), check=True, capture_output=True)
    assert contents(tmp_path / "some") == contents(tmp_path / "one")


@pytest.mark.parametrize(
    "first",
    [{"trials": 1}, {"levels": 1}, {"branches": ""}, {"branches": "reinit:1"}, {"trials": 1, "levels": 0}],
    ids=str,
)
def test_a_run_that_was_extended_is_one_that_was_whole(
    tiny: dict[str, Any], tmp_path: Path, first: dict[str, Any]
) -> None:
    whole = {"trials": 2, "levels": 2, "branches": "reinit:2"}
    lth.run(tiny, out=tmp_path / "whole", engine="torch", workers=1, **whole)
    lth.run(tiny, out=tmp_path / "grown", engine="torch", workers=1, **(whole | first))
    lth.run(tiny, out=tmp_path / "grown", engine="torch", workers=1, **whole)
    assert contents(tmp_path / "grown") == contents(tmp_path / "whole")


def test_a_longer_ladder_extends_a_run(tiny: dict[str, Any], tmp_path: Path) -> None:
    tiny["prune"] = {"densities": [0.6, 0.3]}
    lth.run(tiny, out=tmp_path / "whole", engine="torch", workers=1)
    lth.run(tiny | {"levels": 1, "prune": {"densities": [0.6]}}, out=tmp_path / "grown", engine="torch", workers=1)
    lth.run(tiny, out=tmp_path / "grown", engine="torch", workers=1)
    assert contents(tmp_path / "grown") == contents(tmp_path / "whole")


def test_asking_for_less_loses_nothing(tiny: dict[str, Any], tmp_path: Path) -> None:
    lth.run(tiny, out=tmp_path / "run", engine="torch", workers=1, trials=2, branches="reinit")
    before = contents(tmp_path / "run")
    lth.run(tiny, out=tmp_path / "run", engine="torch", workers=1, trials=1, levels=1)
    assert contents(tmp_path / "run") == before


def test_another_experiment_is_refused_and_named(tiny: dict[str, Any], tmp_path: Path) -> None:
    lth.run(tiny, out=tmp_path / "run", engine="torch", workers=1)
    before = contents(tmp_path / "run")
    with pytest.raises(UsageError, match=r"recipe.lr: 0.01 there, 0.02 here(.|\n)*seed: 1 there, 2 here(.|\n)*--out"):
        lth.run(tiny, {"recipe.lr": 0.02, "seed": 2}, out=tmp_path / "run", engine="torch")
    with pytest.raises(UsageError, match=r"begun with --engine torch"):
        lth.run(tiny, out=tmp_path / "run", engine="native")
    with pytest.raises(UsageError, match=r"begun with --threads 1"):
        lth.run(tiny, out=tmp_path / "run", engine="torch", threads=2)
    assert contents(tmp_path / "run") == before


def test_threads_of_a_training_are_kept(tiny: dict[str, Any], tmp_path: Path) -> None:
    lth.run(tiny, out=tmp_path / "run", engine="torch", threads=2, levels=0)
    means = json.loads((tmp_path / "run" / "environment.json").read_text())["means"]
    assert means["threads"] == 2
    summary = json.loads(next((tmp_path / "run").glob("trial-1/level-00/**/summary.json")).read_text())
    assert summary["threads"] == 2
    lth.run(tiny, out=tmp_path / "run")  # goes on as it was begun
    assert len(lth.run(tiny, out=tmp_path / "run").summary) == 3
    lth.run(tiny, out=tmp_path / "straight", engine="torch", threads=2, workers=1)
    assert contents(tmp_path / "run") == contents(tmp_path / "straight")


def test_a_folder_of_other_things_is_refused(tiny: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("precious")
    with pytest.raises(UsageError, match="it is not a run"):
        lth.run(tiny, out=tmp_path / "run", engine="torch")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.txt"]


def test_a_second_process_on_the_same_folder_is_refused(tiny: dict[str, Any], tmp_path: Path) -> None:
    lth.run(tiny, out=tmp_path / "run", engine="torch", workers=1, levels=0)
    with runs.lock(tmp_path / "run"), pytest.raises(UsageError, match="in use by another lth"):
        lth.run(tiny, out=tmp_path / "run", engine="torch", workers=1)
    lth.run(tiny, out=tmp_path / "run", engine="torch", workers=1)


def test_a_full_disk_is_a_clear_line_and_loses_nothing(tiny: dict[str, Any], tmp_path: Path) -> None:
    """Files cannot grow beyond 2 kB: the first training's weights do not fit."""
    experiment = to_file(tiny, tmp_path / "tiny.toml")
    code = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    code += "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n" + EAGER
    words = [sys.executable, "-c", code, *command(experiment, tmp_path / "run", "torch", 1)[3:]]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "could not be written: File too large" in done.stderr and "to go on" in done.stderr
    lth.run(experiment, out=tmp_path / "run", engine="torch", workers=1)
    lth.run(experiment, out=tmp_path / "whole", engine="torch", workers=1)
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")


def test_a_damaged_need_is_named_and_not_trained_on(tiny: dict[str, Any], tmp_path: Path) -> None:
    lth.run(tiny, out=tmp_path / "run", engine="torch", workers=1, levels=1)
    damaged = tmp_path / "run/trial-1/level-01/trained.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.raises(LthError, match=r"level-01/trained\.safetensors is damaged"):
        lth.run(tiny, out=tmp_path / "run", engine="torch", workers=1)


def saves_of(monkeypatch: pytest.MonkeyPatch, takes: Callable[[int], float]) -> tuple[list[int], float]:
    """The iterations at which checkpoints were made, and the seconds that all took; one update takes a second."""
    clock, saves = [0.0], []

    class Steady:
        iteration = 0

        def advance(self, until: int) -> None:
            clock[0] += until - self.iteration
            self.iteration = until

        def state(self) -> dict[str, Any]:
            return {}

    def save(checkpoint: loop.Checkpoint) -> None:
        clock[0] += takes(len(saves))
        saves.append(checkpoint.iteration)

    monkeypatch.setattr(loop.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(loop.time, "perf_counter", lambda: clock[0])
    loop.Session(cast(loop.Engine, Steady()), loop.Hooks(save=save), 10_000).advance(10_000)
    return saves, clock[0]


@pytest.mark.parametrize(("takes", "share"), [(0.0, 0.0), (0.1, 0.02), (2.0, 0.02), (20.0, 0.02)])
def test_checkpoints_take_a_fiftieth_of_the_time_at_most(
    monkeypatch: pytest.MonkeyPatch, takes: float, share: float
) -> None:
    saves, seconds = saves_of(monkeypatch, lambda number: takes)
    assert len(saves) * takes <= share * seconds + takes
    least = max(loop.CHECKPOINT_SECONDS, loop.CHECKPOINT_COST * takes)
    assert len(saves) >= 10_000 / (2 * least + 2) - 1


def test_a_machine_that_slept_while_a_checkpoint_was_written_soon_makes_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    saves, _ = saves_of(monkeypatch, lambda number: 8 * 3600 if number == 1 else 0.1)
    assert saves[2] - saves[1] <= loop.CHECKPOINT_PAUSE + 5
    assert saves[3] - saves[2] <= 10
