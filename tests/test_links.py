"""Paths stay inside a run's folder: what links lead to is neither read, written nor moved."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import lth
from lth.errors import LthError, UsageError
from lth.execution.repair import repair
from lth.measures import tables as measures
from lth.results import tables
from lth.storage import atomic, runs

QUIET = Console(quiet=True)


def train(experiment: dict[str, Any], out: Path) -> None:
    lth.run(experiment, levels=1, out=out, engine="torch", workers=1, pictures=False, console=QUIET)


@pytest.fixture
def run(tiny: dict[str, Any], tmp_path: Path) -> Path:
    train(tiny, tmp_path / "run")
    return tmp_path / "run"


COMMANDS: dict[str, Callable[[Path, dict[str, Any]], Any]] = {
    "run": lambda run, tiny: train(tiny, run),
    "report": lambda run, tiny: tables.load(run),
    "repair": lambda run, tiny: repair(run, yes=True, say=lambda line: None),
    "measure": lambda run, tiny: measures.compute("anatomy", run),
    "export": lambda run, tiny: lth.export(run, 1, 1, run.parent / "t.safetensors"),
}
LINKED = (".lock", "summary.csv", "measures", "trial-1/level-01", "trial-1/level-01/curve.csv", "experiment.toml")


@pytest.mark.parametrize("name", LINKED)
def test_no_command_follows_a_link_below_a_run(name: str, run: Path, tiny: dict[str, Any], tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    if (run / name).exists():
        (run / name).rename(elsewhere)
    elif name == "measures":
        elsewhere.mkdir()
    (run / name).symlink_to(elsewhere)
    if not elsewhere.exists():
        elsewhere.write_text("precious")
    before = {path: path.read_bytes() for path in [elsewhere, *elsewhere.rglob("*")] if path.is_file()}
    for command in COMMANDS.values():
        with pytest.raises(UsageError, match=f"{run / name} is a link, which may lead out"):
            command(run, tiny)
    assert {path: path.read_bytes() for path in [elsewhere, *elsewhere.rglob("*")] if path.is_file()} == before


def test_a_pipe_in_place_of_a_file_is_refused_at_once(run: Path, tiny: dict[str, Any]) -> None:
    (run / "curves.csv").unlink()
    os.mkfifo(run / "curves.csv")
    for command in COMMANDS.values():
        with pytest.raises(UsageError, match=r"curves.csv is a pipe or device; put"):
            command(run, tiny)


def test_the_runs_folder_itself_may_be_a_link(run: Path, tiny: dict[str, Any], tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(run)
    shutil.rmtree(run / "trial-1/level-01")
    for command in COMMANDS.values():
        command(link, tiny)
    assert (run / "trial-1/level-01/summary.json").exists() and link.is_symlink()


def test_files_are_opened_without_following_links(tmp_path: Path) -> None:
    """Also where a link appears after the folder was looked through."""
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "link").symlink_to("precious")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="it is a link"):
        atomic.read(tmp_path / "link")
    with pytest.raises(OSError, match="it is a pipe or a device"):
        atomic.read(tmp_path / "pipe")
    atomic.write_file(tmp_path / "link", b"new")  # in place of the link
    assert (tmp_path / "precious").read_text() == "precious" and not (tmp_path / "link").is_symlink()
    (tmp_path / ".lock").symlink_to("precious")
    with pytest.raises(LthError, match="it is a link"), runs.lock(tmp_path):
        pass
    assert (tmp_path / "precious").read_text() == "precious"


def test_new_names_are_synced_as_files_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a power cut takes the name of a file whose bytes are on the disk."""
    done: list[str] = []
    inode = lambda path: (path.stat().st_dev, path.stat().st_ino)
    synced, replace = os.fsync, os.replace

    def fsync(handle: int) -> None:
        names = {inode(path): path.name for path in (tmp_path, *tmp_path.rglob("*"))}
        done.append(f"sync {names[os.fstat(handle).st_dev, os.fstat(handle).st_ino].partition('.')[0] or 'file'}")
        synced(handle)

    def renamed(source: Path, target: Path) -> None:
        done.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", renamed)
    atomic.write_file(tmp_path / "a/b/c", b"x")
    assert done == [f"sync {tmp_path.name}", "sync a", "sync file", "rename", "sync b"]
