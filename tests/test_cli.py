"""The commands as a person types them: what they print, what they write, and how they end."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

import lth
from conftest import tiny_arrays
from lth import config
from lth.cli import main
from lth.config import resolve, to_toml
from lth.data.examples import from_arrays
from lth.execution import pace
from lth.execution.estimates import Pace
from lth.storage import runs

QUICK = ("--engine", "torch", "--workers", "1")


@dataclasses.dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


Cli = Callable[..., Ended]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Cli:
    """Types `lth ...` in an empty folder; figures are left out."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)

    def call(*arguments: Any) -> Ended:
        monkeypatch.setattr(sys, "argv", ["lth", *map(str, arguments)])
        code: Any = 0
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        return Ended(code, *capsys.readouterr())

    return call


@pytest.fixture
def tiny_toml(tiny: dict[str, Any], tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(to_toml(resolve(tiny | {"levels": 1})))
    return path


@pytest.fixture
def finished(tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a finished run of tiny.toml."""
    return lth.run(tiny | {"levels": 1}, out=tmp_path / "finished", engine="torch", workers=1).folder


def everything(folder: Path) -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


def refused(ended: Ended, *said: str, code: int = 2) -> None:
    """One message on stderr, which begins with lth: or is typer's own, and no traceback."""
    assert ended.code == code, ended
    assert "Traceback" not in ended.err and ended.err.strip()
    assert ended.err.count("lth:") == 1 or ended.err.startswith("Usage: lth")
    for part in said:
        assert part in ended.err


# ------------------------------------------------------------------------------------------------------------- tickets


def test_a_ticket_is_shown_exported_and_trained_again(
    finished: Path, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = cli("export", finished, "--trial", 1, "--level", 1, "--to", "t.safetensors")
    said = "t.safetensors: the ticket of trial 1, level 1, 80.71% of weights, with its start\n"
    assert (ended.code, ended.out) == (0, said)
    shown = cli("ticket", "t.safetensors").out
    assert "weights     452 of 560 remain: 80.71%" in shown and "place       trial 1, level 1, branch ticket" in shown
    ended = cli("run", "--ticket", "t.safetensors", "recipe.iterations=20", "recipe.lr=0.02", *QUICK)
    assert ended.code == 0 and "[1/1] trial 1 level 0 ticket: 80.71% of weights" in ended.out
    assert list(lth.Run(Path("runs/ticket-t")).summary["iterations"]) == [20]
    stored = cli("run", "--ticket", finished / "trial-1/level-01/ticket.safetensors", "--dry-run")
    assert stored.out.rstrip().endswith("into runs/ticket-finished-trial-1-level-01")
    dry = cli("run", "--ticket", "t.safetensors", "--levels", 1, "--dry-run", "--out", "other")
    assert re.search(r"0 +452 +80\.71 +1 ticket", dry.out) and re.search(r"1 +365 +65\.18 +1 ticket", dry.out)
    assert not Path("other").exists()
    ended = cli("export", finished, "--level", 1, "--to", "w.pt", "--compact")
    assert ended.code == 0 and "times as fast" in ended.out and "of the compact network" in ended.out
    refused(cli("export", finished, "--level", 7, "--to", "w.pt"), "it has trials 1 and levels 0 to 1")
    refused(cli("ticket", "w.pt"), "w.pt is not a ticket file, or it is damaged")
    refused(cli("run", "--ticket", "w.pt"), "w.pt is not a ticket file, or it is damaged")


# ------------------------------------------------------------------------------------------------------------- lth run


def test_run_trains_draws_and_says_where(tiny_toml: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # with figures
    monkeypatch.chdir(tiny_toml.parent)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tiny_toml.parent / "cache"))
    ended = cli("run", tiny_toml, *QUICK)
    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert lines[0].startswith("engine torch on cpu, float32, 1 thread per training: asked for")
    assert lines[1] == "tiny: 2 trainings, 1 side by side, into runs/tiny"
    assert lines[2].startswith("[1/2] trial 1 level 0 ticket: 100.00% of weights, early stop at ")
    assert lines[3].startswith("[2/2] trial 1 level 1 ticket: ") and lines[3].endswith("; about 0 s left")
    figures = [path for path in Path("runs/tiny/figures").iterdir() if path.suffix in (".png", ".svg", ".pdf")]
    assert lines[-2] == f"figures: runs/tiny/figures ({len(figures)} files)"
    assert len(figures) >= 6 and all(path.stat().st_size for path in figures)
    assert lines[-1] == "report: runs/tiny/report.html (open it in a web browser)"
    assert "tiny: 1 trial" in ended.out
    names = {path.name for path in Path("runs/tiny").iterdir()} - {"report.html"}
    tables = {"curves.csv", "summary.csv", "measures", "manifest.json"}
    assert names == {"experiment.toml", "environment.json", "trial-1", "figures", ".lock"} | tables
    assert resolve(Path("runs/tiny/experiment.toml")) == resolve(tiny_toml)


def test_a_second_time_nothing_is_done_again(tiny_toml: Path, cli: Cli) -> None:
    cli("run", tiny_toml, *QUICK)
    before = {path: path.stat().st_mtime_ns for path in Path("runs/tiny/trial-1").rglob("*")}
    ended = cli("run", "runs/tiny/experiment.toml", *QUICK)
    assert ended.code == 0 and ended.out == "tiny: 2 trainings, 1 side by side, into runs/tiny\n"
    assert before == {path: path.stat().st_mtime_ns for path in Path("runs/tiny/trial-1").rglob("*")}


def test_the_scale_stands_in_the_folders_name(tiny_toml: Path, cli: Cli) -> None:
    assert cli("run", tiny_toml, "--scale", "0.25", "--levels", "0", *QUICK).code == 0
    assert [path.name for path in Path("runs").iterdir()] == ["tiny-scale0.25"]
    stored = resolve(Path("runs/tiny-scale0.25/experiment.toml"))
    assert (stored.scale, stored.recipe.iterations, stored.recipe.eval_every) == (0.25, 10, 10)
    assert cli("run", "runs/tiny-scale0.25/experiment.toml", *QUICK).code == 0  # goes on there, not scaled again
    assert [path.name for path in Path("runs").iterdir()] == ["tiny-scale0.25"]


def test_names_name_the_folder_and_options_may_stand_anywhere(tiny_toml: Path, cli: Cli) -> None:
    words = ["--levels", "0", "run", *QUICK]
    assert cli("run", *QUICK, "--levels", "0", tiny_toml, "name=other", "--trials", "2", "seed=3").code == 0
    stored = resolve(Path("runs/other/experiment.toml"))
    assert (stored.seed, stored.trials, stored.levels) == (3, 2, 0)
    refused(cli(*words), "No such option: --levels")


def test_environment_says_how_to_repeat_the_run_and_not_where(tiny_toml: Path, tiny_data: Path, cli: Cli) -> None:
    root = tiny_data.parent / "data root"
    root.mkdir()
    settings = ["recipe.lr=0.02", "about=with 'quotes' and  blanks", "recipe.augment=true"]
    options = ["--trials", "1", "--levels", "0", "--branches", "", "--scale", "0.5"]
    ended = cli("run", tiny_toml, *settings, *options, "--data-root", root, "--out", "here of all places", *QUICK)
    assert ended.code == 0, ended
    text = Path("here of all places/environment.json").read_text()
    found = json.loads(text)
    means = {"engine": "torch", "device": "cpu", "precision": "float32", "threads": 1, "processes": 1}
    assert found["means"] == means
    versions = found["versions"]
    assert {"lth", "torch", "numpy", "python"} <= {*versions} and versions["python"] == platform.python_version()
    assert versions["lth"] == lth.__version__
    assert {"system", "processor", "cores", "memory_gib"} == {*found["machine"]}
    assert found["machine"]["cores"] == os.cpu_count() and found["machine"]["memory_gib"] > 0
    words = shlex.split(found["command"])
    assert words == ["lth", "run", str(tiny_toml), *settings, *options, "--engine", "torch", "--workers", "1"]
    assert "data root" not in text and "of all places" not in text
    if len(platform.node()) > 3:
        assert platform.node() not in text
    assert cli(*words[1:], "--out", "again").code == 0
    stored = [Path(folder, "experiment.toml").read_bytes() for folder in ("here of all places", "again")]
    assert stored[0] == stored[1]


REFUSED = {
    "": "no command",
    "lent": "unknown preset 'lent'; did you mean 'lenet'?",
    "nope.toml": "there is no file nope.toml",
    "T extra": "'extra' is not a setting: write key=value",
    "T recipe.lrr=3": "did you mean 'recipe.lr'?",
    "T recipe.lr=nan": "expected a finite number",
    "T --lr 3": "No such option: --lr",
    "T --trials x": "Invalid value for '--trials'",
    "T --trials 0": "trials = 0",
    "T --levels -1": "levels = -1",
    "T --levels 99": "would remove nothing",
    "T --levels 1000000000000": "levels = 1000000000000",
    "T --trials 1000000000000": "at most 100,000",
    "T --branches rinit": "did you mean 'reinit'?",
    "T --branches reinit:0": "branch[0].count = 0",
    "T --branches reinit:99999999": "at most 100,000",
    "T --scale nan": "--scale takes a number above 0",
    "T --scale 1e9": "--scale takes a number above 0",
    "T --engine tourch": "--engine takes auto, native, torch; not 'tourch'; did you mean 'torch'?",
    "T --device gpu": "--device takes auto, cpu, cuda; not 'gpu'",
    "T --executor rey": "--executor takes local, ray, slurm, torchrun; not 'rey'; did you mean 'ray'?",
    "T --workers 0": "--workers takes a number from 1 to 1024, not 0",
    "T --workers 99999999999999999999": "--workers takes a number from 1",
    "T --threads 0": "--threads takes a number from 1 to 1024, not 0",
    "T --engine native --threads 2": "--threads 2: the native engine trains on one thread",
    "T --engine native --device cuda": "--device cuda",
    "T data.validation=400": "validation = 400",
    "T data.validation=5000": "validation = 5,000",
    "T recipe.batch=311": "recipe.batch = 311 is more than the 310 training examples",
    "T data.name=./no.npz": "./no.npz: no such file",
    "T data.name=.": "unknown dataset '.'",
    "T prune.rate=1e-9": "level 1 would remove nothing",
    "T prune.densities=[1e-9]": "level 1 would leave no weight",
    "T --out T": "Not a directory",
    "T --out T/below": "Not a directory",
    "T --out /proc/lth-run": "/proc/lth-run cannot be written",
    "T --out .": "it holds files but no experiment.toml",
    "mnist --data-root T": "unknown preset 'mnist'",
    "lenet --data-root T": "is a file, expected a folder",
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_run_refuses_leaves_nothing_behind(words: str, tiny_toml: Path, cli: Cli) -> None:
    Path("mine.txt").write_text("precious")
    before = everything(Path.cwd())
    arguments = [word.replace("T", str(tiny_toml)) if word[0] == "T" else word for word in words.split()]
    ended = cli("run", *arguments, *([] if "--engine" in words else ["--engine", "torch"]))
    refused(ended, *([REFUSED[words]] if words else ["nothing to run: give a preset"]))
    assert everything(Path.cwd()) == before


def test_all_problems_of_a_call_are_said_at_once(tiny_toml: Path, cli: Cli) -> None:
    ended = cli(
        "run", tiny_toml, "recipe.lr=x", "sed=1", "--engine", "x", "--workers", "0", "--scale", "0", "--trials", "0"
    )
    refused(ended, "recipe.lr", "'sed'", "--engine", "--workers", "--scale", "trials = 0")
    assert len(ended.err.splitlines()) == 6


def test_a_refused_extension_changes_nothing(finished: Path, tiny_toml: Path, tiny_data: Path, cli: Cli) -> None:
    before = everything(finished)
    here = ("--out", finished, *QUICK)
    refused(
        cli("run", tiny_toml, "recipe.lr=0.5", *here), "it holds another experiment:\nrecipe.lr: 0.01 there, 0.5 here"
    )
    refused(cli("run", tiny_toml, "--engine", "native", "--out", finished), "begun with --engine torch")
    refused(cli("run", tiny_toml, "--levels", "99", *here), "would remove nothing")
    with runs.lock(finished):
        refused(cli("run", tiny_toml, "--trials", "2", *here), "is in use by another lth")
    (finished / ".lock").write_bytes(before[finished / ".lock"] or b"")
    tiny_data.unlink()  # what is wrong with the folder is said before data are looked for
    refused(cli("run", tiny_toml, "recipe.lr=0.5", *here), "it holds another experiment")
    refused(cli("run", tiny_toml, "--trials", "2", *here), "no such file")
    assert everything(finished) == before


DAMAGED: dict[str, list[Any]] = {
    "environment.json": [
        b"", b"{", b"[]", b"null", b"{}", b"\xff", b"[" * 100_000, {"means": 3}, {"means": {"engine": "torch"}},
        {"means": {"engine": "x", "device": "cpu", "precision": "float32", "threads": 1}},
        {"means": {"engine": "torch", "device": "x", "precision": "float32", "threads": 1}},
        {"means": {"engine": "torch", "device": "cpu", "precision": "float32", "threads": "1"}},
    ],
    "experiment.toml": [b"", b"x", b"\xff", b"name = 'tiny'"],
    "trial-1/level-00/summary.json": [b"", b"{", b"[]", b"{}", b"\xff", {"status": 3}],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content"),
    [(name, content) for name, contents in DAMAGED.items() for content in contents],
    ids=lambda value: ascii(value)[:40],
)
def test_a_damaged_file_is_named_and_nothing_is_trained(
    name: str, content: Any, finished: Path, tiny_toml: Path, cli: Cli
) -> None:
    (finished / name).write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    shutil.rmtree(finished / "trial-1/level-01")
    before = everything(finished)
    refused(cli("run", tiny_toml, "--out", finished, *QUICK), str(finished / name))
    assert everything(finished) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(tiny_toml: Path, cli: Cli) -> None:
    Path("closed").mkdir(mode=0o500)
    for out in ("closed", "closed/below"):
        refused(cli("run", tiny_toml, "--out", out, *QUICK), "cannot be written: Permission denied; give another --out")


def test_a_folder_without_permission_as_the_system_says_it(
    finished: Path, tiny_toml: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = everything(finished)
    monkeypatch.setattr(os, "access", lambda path, mode: mode == os.R_OK)
    said = "cannot be written: Permission denied; give another --out"
    refused(cli("run", tiny_toml, "--trials", "2", "--out", finished, *QUICK), said)
    refused(cli("report", finished, "--out", finished), said)
    assert everything(finished) == before


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "there is not enough memory: out of memory; try fewer --workers"),
        (RuntimeError("CPUAllocator: can't allocate memory: 9 bytes\nframe #0"), "can't allocate memory: 9 bytes; try"),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
            "not enough memory: CUDA out of memory",
        ),
        (OSError(errno.EIO, os.strerror(errno.EIO), "x.npz"), "lth: x.npz: Input/output error"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_fails_while_working_is_a_line_and_exit_code_1(
    error: Exception, said: str, tiny_toml: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> None:
        raise error

    monkeypatch.setattr("lth.execution.setup.check", fail)
    refused(cli("run", tiny_toml, *QUICK), said, code=1)
    assert not any(Path.cwd().iterdir())


@pytest.mark.parametrize("said", ["sizes of tensors must match", "more than one element refers to a memory location"])
def test_a_bug_is_not_hidden(said: str, tiny_toml: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any) -> None:
        raise RuntimeError(said)

    monkeypatch.setattr("lth.execution.setup.check", fail)
    with pytest.raises(RuntimeError, match=said):
        cli("run", tiny_toml, *QUICK)


def test_interrupted_it_says_how_to_go_on(tiny_toml: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lth.execution.running.execute", interrupt)
    ended = cli("run", tiny_toml, "about=my run", "--out", "my folder", "--data-root", tiny_toml.parent, *QUICK)
    refused(ended, "stopped; finished work is kept in my folder. To continue: lth run", code=130)
    monkeypatch.undo()
    monkeypatch.chdir(tiny_toml.parent / "work")
    again = shlex.split(ended.err.partition("To continue: lth ")[2])
    assert cli(*again).code == 0 and Path("my folder/summary.csv").exists()
    monkeypatch.setattr("lth.execution.pace.measured", interrupt)
    assert cli("run", tiny_toml, "--dry-run", *QUICK).code == 130


# --------------------------------------------------------------------------------------------------- lth run --dry-run


def test_a_dry_run_shows_time_and_disk_and_writes_nothing(tiny_toml: Path, cli: Cli) -> None:
    ended = cli("run", tiny_toml, "--branches", "reinit:2", "--trials", "3", "--dry-run", *QUICK)
    assert ended.code == 0 and not any(Path.cwd().iterdir())
    assert re.search(r"0 +560 +100\.00 +3 ticket +0 s", ended.out)
    assert re.search(r"1 +452 +80\.71 +3 ticket, 6 reinit +\d+ s", ended.out)
    assert "12 trainings, 12 of them to do; engine torch on cpu; about " in ended.out
    assert re.search(r"about \d+ s with 1 side by side, about \d+ MiB, into runs/tiny\n", ended.out)


def test_a_dry_run_measures_the_densest_and_the_sparsest_level_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    monkeypatch.setattr(pace, "measured", lambda setup, density: asked.append(density) or Pace(10 * density, density))
    densities = {level: 0.8**level for level in range(30)}
    paces = pace.paces(cast(Any, None), densities)
    assert asked == [0.8**29, 1.0]
    assert all(paces[level].update == pytest.approx(10 * density) for level, density in densities.items())
    assert pace.paces(cast(Any, None), {3: 0.5}) == {3: Pace(5.0, 0.5)}


def test_a_dry_run_measures_on_a_few_examples(tiny: dict[str, Any]) -> None:
    whole = from_arrays("tiny", *tiny_arrays().values())
    experiment, few = pace.sample(resolve(tiny), whole)
    assert len(few.train_x) == pace.SAMPLED + 90 and experiment.data.validation == 90 and len(few.test_x) == 100
    assert few.classes == whole.classes


def test_what_a_shorter_training_never_comes_to_is_said(tiny_toml: Path, cli: Cli) -> None:
    longer = to_toml(resolve(tiny_toml, ["recipe.iterations=2000", "recipe.drops=[1,1000]"]))
    tiny_toml.write_text(longer.replace("iterations = 2000", "iterations = 4"))
    line = "recipe.drops at 1,000 have no effect: trainings end at 4; --scale shortens all by one factor\n"
    for how in ((), ("--dry-run",)):
        assert line in cli("run", tiny_toml, *how, *QUICK).out
    assert "recipe.drops" not in cli("run", tiny_toml, "recipe.drops=[1]", "--dry-run", *QUICK).out


def test_what_follows_an_override_is_told(tiny_toml: Path, cli: Cli) -> None:
    tiny_toml.write_text(to_toml(resolve(tiny_toml, ["recipe.iterations=2000", "recipe.drops=[1,1000]"])))
    line = "recipe.iterations = 4: recipe.drops is [1], was [1, 1000]\n"
    for how in (("--dry-run",), ()):
        assert cli("run", tiny_toml, "recipe.iterations=4", *how, *QUICK).out.startswith(line)
    shown = cli("show", tiny_toml, "recipe.iterations=4")
    assert shown.err == line and "drops = [1]" in shown.out
    members = cli("run", tiny_toml, "recipe.iterations=[4,5]", "--dry-run", *QUICK).out
    assert line in members and line.replace("= 4", "= 5") in members


def test_a_dry_run_counts_what_is_done(finished: Path, tiny_toml: Path, cli: Cli) -> None:
    before = everything(finished)
    assert "2 trainings, 0 of them to do" in cli("run", tiny_toml, "--out", finished, "--dry-run").out
    ended = cli("run", tiny_toml, "--trials", "2", "--out", finished, "--dry-run")
    assert "4 trainings, 2 of them to do; engine torch on cpu" in ended.out
    refused(cli("run", tiny_toml, "seed=2", "--out", finished, "--dry-run"), "it holds another experiment")
    refused(cli("run", tiny_toml, "--out", tiny_toml.parent, "--dry-run"), "it is not a run")
    assert everything(finished) == before


def test_numbers_of_a_benchmark_that_have_no_file_are_refused_before_it(cli: Cli, tmp_path: Path) -> None:
    refused(cli("bench", "--json", tmp_path), "it is a folder; name a file", "bench.json")
    (tmp_path / "file").touch()
    refused(
        cli("bench", "--json", tmp_path / "file/x/bench.json"), f"{tmp_path / 'file'} is no folder that can be written"
    )


# ------------------------------------------------------------------------------------------------- lth list, lth show


def test_list(cli: Cli) -> None:
    presets = cli("list").out
    assert presets == cli("list", "presets").out
    assert [line.split()[0] for line in presets.splitlines()] == list(config.presets())
    for kind in config.registry.KINDS:
        ended = cli("list", kind)
        assert ended.code == 0
        assert [line.split()[0] for line in ended.out.splitlines()] == list(config.registry.choices(kind))
    assert [line.split()[0] for line in cli("list", "mask-rules").out.splitlines()] == ["ticket", "random", "initial"]
    assert "reinit       the ticket's mask" in cli("list", "branches").out
    refused(cli("list", "modles"), "lth list takes presets, models, datasets, branches, ", "; not 'modles'", "'models'")
    refused(cli("list", "presets", "models"), "unexpected extra argument")


@pytest.mark.parametrize("words", [["lenet"], ["lenet-oneshot", "trials=2", "about=ü 'x' \"y\" # z"]], ids=len)
def test_show_is_what_run_takes_back(words: list[str], cli: Cli) -> None:
    ended = cli("show", *words)
    assert (ended.code, ended.err) == (0, "")
    Path("shown.toml").write_text(ended.out, encoding="utf-8")
    assert resolve("shown.toml") == resolve(words[0], words[1:])
    assert cli("show", "shown.toml").out == ended.out
    assert not [line for line in ended.out.splitlines() if line and line[0] not in "[" and "#" not in line]


def test_show_refuses_what_run_refuses(cli: Cli) -> None:
    refused(cli("show"), "Missing argument")
    refused(cli("show", "lent"), "did you mean 'lenet'?")
    refused(cli("show", "lenet", "recipe.lr=x", "trials=0"), "recipe.lr", "trials")


# ----------------------------------------------------------------------------------------------------------- lth report


def test_report_draws_what_is_stored(finished: Path, cli: Cli) -> None:
    ended = cli("report", finished)
    assert (ended.code, ended.err) == (0, "")
    figures = [*(finished / "figures").glob("*.png")]
    assert figures and f"figures: {finished}/figures ({3 * len(figures)} files)" in ended.out.splitlines()
    assert "tiny: 1 trial" in ended.out
    ended = cli("report", finished, finished, "--out", "deep/below")
    overlaid = {path.name for path in figures if path.stem != "layers"}  # a measure's figure is of one run
    assert ended.code == 0 and {path.name for path in Path("deep/below").iterdir()} >= overlaid


def test_report_refuses_what_is_no_run(finished: Path, tiny_toml: Path, cli: Cli) -> None:
    refused(cli("report"), "Missing argument")
    refused(cli("report", "nope"), "nope is not a run folder: it does not exist")
    refused(cli("report", "."), "it holds no experiment.toml")
    refused(cli("report", finished, "nope"), "nope is not a run folder")
    refused(cli("report", finished, "--out", tiny_toml), "cannot be written: File exists; give another --out")
    assert not any(Path.cwd().iterdir()) and not (finished / "figures").exists()
    (finished / "experiment.toml").write_text("name = 'tiny'")
    refused(cli("report", finished), f"in {finished}/experiment.toml:", "recipe is missing")


# ------------------------------------------------------------------------------------------------------------- lth data


def test_data_where_it_is_and_where_it_is_not(data_root: Path, cli: Cli) -> None:
    assert [line.split()[0] for line in cli("data", "list").out.splitlines()] == list(config.DATASETS)
    ended = cli("data", "where", "mnist", "--data-root", data_root)
    assert ended.code == 0 and f"complete, in {data_root}" in ended.out.splitlines()[0]
    ended = cli("data", "where", "mnist", "--data-root", "nope")
    assert ended.code == 0 and "no train-images-idx3-ubyte" in ended.out.splitlines()[0]
    assert all(f"{name}: " in cli("data", "where").out for name in config.DATASETS)
    ended = cli("data", "fetch", "mnist", "--data-root", data_root)
    assert ended.code == 0 and ended.out.splitlines()[-1] == str(data_root / "MNIST/raw")


def test_data_refuses(tiny_toml: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    for command in ("fetch", "where"):
        refused(cli("data", command, "mnits"), "did you mean 'mnist'?")
        refused(cli("data", command, "mnist", "--data-root", tiny_toml), "is a file, expected a folder")
    refused(cli("data", "fetch"), "Missing argument")
    refused(cli("data", "get"), "No such command 'get'")
    monkeypatch.setenv("LTH_DATA", str(tiny_toml))
    refused(cli("run", "lenet", "--dry-run"), f"LTH_DATA {tiny_toml} is a file")


# -------------------------------------------------------------------------------------------------------- the program


def test_without_arguments_it_says_what_it_can(cli: Cli) -> None:
    for words in ([], ["data"]):
        ended = cli(*words)
        assert "Usage: lth" in ended.out + ended.err and ended.code in (0, 2)
    refused(cli("rnu"), "No such command 'rnu'")
    for words in (["run"], ["list"], ["show"], ["report"], ["data", "fetch"]):
        ended = cli(*words, "--help")
        assert ended.code == 0 and "Usage: lth " + " ".join(words) in ended.out


def shell(command: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    lth_ = shlex.join([sys.executable, "-c", "from lth.cli import main; main()"])
    words = ["bash", "-c", command.replace("lth", lth_, 1)]
    env = {**os.environ, **environment}
    return subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("lth show lenet | head -1; exit ${PIPESTATUS[1]}", 0, ""),
        ("set -o pipefail; lth list | true; exit 0", 0, ""),
        ("lth list >&-", 0, ""),
        ("lth list > /dev/full", 1, "lth: output: No space left on device"),
        ("lth run nope 2>&-", 2, ""),
        ("lth show $'a\\xff.toml'", 2, "lth: there is no file a\\udcff.toml"),
        ("lth show lenet $'about=a\\xff'", 2, "lth: about: expected text in UTF-8"),
        ("unset HOME; lth data where mnist", 0, ""),
        ("HOME=/nonexistent lth list", 0, ""),
    ],
)  # fmt: skip
def test_the_world_around_it(command: str, code: int, said: str, tmp_path: Path) -> None:
    done = shell(command, tmp_path)
    assert done.returncode == code and done.stderr.startswith(said), done.stderr
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
    assert done.stderr.count("\n") <= 1


def test_a_narrow_terminal_without_utf8(finished: Path, tmp_path: Path) -> None:
    plain = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii", "COLUMNS": "40"}
    code = "from lth.results import plots; plots.draw = lambda *given: []\nfrom lth.cli import main; main()"
    words = [sys.executable, "-c", code, "report", str(finished), "--out", "out"]
    done = subprocess.run(words, cwd=tmp_path, env=os.environ | plain, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.isascii() and "tiny: 1 trial" in done.stdout


def test_images_of_ones_own_are_found_from_where_one_stands(tiny_toml: Path, cli: Cli) -> None:
    rng = np.random.default_rng(0)
    arrays = {f"x_{part}": rng.integers(0, 256, (60, 4, 4)).astype(np.uint8) for part in ("train", "test")}
    np.savez("mine.npz", **arrays, **{f"y_{part}": np.arange(60) % 3 for part in ("train", "test")})
    settings = ["data.name=mine.npz", "data.validation=20", "recipe.batch=10", "--levels", "0"]
    assert cli("run", tiny_toml, *settings, *QUICK).code == 0
    refused(cli("run", tiny_toml, *settings, "data.name=mine", *QUICK), "a path of your own needs a slash: ./mine")


def test_the_version_is_of_lth_and_torch(cli: Cli) -> None:
    ended = cli("--version")
    assert ended.code == 0 and ended.out == f"lth {lth.__version__}, torch {torch.__version__}\n"


def test_lists_and_tickets_as_json(finished: Path, cli: Cli) -> None:
    assert json.loads(cli("list", "scopes", "--json").out) == {n: e.about for n, e in config.registry.SCOPES.items()}
    ticket = finished / "trial-1" / "level-01" / "ticket.safetensors"
    facts = json.loads(cli("ticket", ticket, "--json").out)
    assert facts["weights"] == sum(layer["alive"] for layer in facts["layers"].values()) < facts["of"]
    assert facts["density"] == facts["weights"] / facts["of"] and facts["origin"]["level"] == 1


def test_quiet_runs_print_nothing(tiny_toml: Path, cli: Cli) -> None:
    ended = cli("run", tiny_toml, "--quiet", "--levels", "0", "--trials", "1", *QUICK)
    assert (ended.code, ended.out) == (0, "") and Path("runs/tiny/summary.csv").exists()
    refused(cli("run", tiny_toml, "--quiet", "--levels", "-1"), "levels")


@pytest.mark.parametrize("words", [["list", "presets"], ["show", "lenet"], ["--help"]], ids=" ".join)
def test_a_reader_that_has_enough_is_no_error(words: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run([sys.executable, "-m", "lth", *words], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_suggestions_that_help(cli: Cli) -> None:
    refused(cli("show", "lenet", "recipe.epochs=10"), "10 epochs of 55,000 examples", "recipe.iterations=9167")
    refused(cli("show", "lenet", "data.name=./mine", "recipe.epochs=10"), "number of training examples / recipe.batch")
    for wrong in ("recipe.batch=0", "data=3", "data.validation=many", "recipe.epochs=inf", "recipe.epochs=x"):
        refused(cli("show", "lenet", wrong, *(["recipe.epochs=3"] if "epochs" not in wrong else [])), "recipe.epochs")
    refused(cli("show", "lenet", "model.name=my.py"), "such as my.py:build")
    ended = cli("show", "lenet", "recipe.optimizer=sgd")
    assert 'recipe.optimizer = "sgd": recipe.lr stays 0.0012, which was chosen for adam' in ended.err
    assert "stays" not in cli("show", "lenet", "recipe.optimizer=sgd", "recipe.lr=0.1").err
