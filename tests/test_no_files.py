"""Pipes, sockets and devices in place of files: refused in a line, and nothing waits for them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from conftest import tiny_arrays
from lth.config.files import open_file, read_file

pytestmark = pytest.mark.figures

CONFIG = """name = "tiny"
levels = 0
trials = 1
[data]
name = "{data}"
validation = 90
[recipe]
lr = 0.01
iterations = 2
batch = 30
"""


def pipe(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        here = Path.cwd()
        os.chdir(path.parent)  # the name of a socket is short
        try:
            one.bind(path.name)
        finally:
            os.chdir(here)


ODD: list[tuple[Callable[[Path], None], str]] = [(pipe, "pipe"), (device, "device"), (listening, "socket")]


@pytest.mark.parametrize(("make", "kind"), ODD)
def test_what_is_no_file_is_not_opened(make: Callable[[Path], None], kind: str, tmp_path: Path) -> None:
    make(tmp_path / "odd")
    for read in (open_file, read_file):
        with pytest.raises(OSError, match=f"it is a {kind}, expected a file"):
            read(tmp_path / "odd")
    (tmp_path / "file").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("file")
    assert read_file(tmp_path / "link") == b"abc" and read_file(tmp_path / "file", 2) == b"ab"
    with pytest.raises(IsADirectoryError):
        open_file(tmp_path)
    with pytest.raises(FileNotFoundError):
        open_file(tmp_path / "none")


PLACES = {
    "data.npz": ["run.toml"],
    "photos/train": ["run.toml", "data.name=./photos"],
    "odd.toml": ["odd.toml"],
    "model.py": ["run.toml", "model.name=model.py:build"],
    "score.py": ["run.toml", "prune.score=score.py:score"],
    "t.safetensors": ["run.toml", "--ticket", "t.safetensors"],
    "root/MNIST/raw/train-images-idx3-ubyte.gz": ["lenet", "--data-root", "root", "--levels", "0"],
    "root/cifar-10-batches-bin/data_batch_1.bin": ["conv2", "--data-root", "root", "--levels", "0"],
}


@pytest.mark.parametrize(("place", "make"), [*((place, pipe) for place in PLACES), ("data.npz", device)])
def test_run_refuses_it_wherever_it_reads(place: str, make: Callable[[Path], None], tmp_path: Path) -> None:
    np.savez(tmp_path / "right.npz", **tiny_arrays())
    data = "data.npz" if place == "data.npz" else "right.npz"
    (tmp_path / "run.toml").write_text(CONFIG.format(data=f"./{data}"))
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    make(tmp_path / place)
    command = [sys.executable, "-c", "from lth.cli import main; main()", "run", *PLACES[place]]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2, done.stderr[-400:]
    assert "Traceback" not in done.stderr and place.rpartition("/")[2] in done.stderr.replace("\n", "")
    assert not (tmp_path / "runs").exists()
