"""lth doctor: a line for each thing, found or missing, and the command that would supply it."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from lth import native
from lth.cli import main
from lth.data import memory
from lth.data.registry import DATASETS
from lth.execution.executors import local
from lth.execution.resources import Resources
from lth.machine import doctor
from lth.training import precision
from lth.training.bfloat16 import kernels


def examined(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, str]:
    """What the command prints: the thing -> the rest of its line."""
    monkeypatch.setattr(sys, "argv", ["lth", "doctor", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    return {line[:20].strip(): line[20:] for line in capsys.readouterr().out.splitlines()}


def test_every_line_says_found_or_missing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    lines = examined(monkeypatch, capsys)
    things = ["torch", "C++ compiler", "native engine", "bfloat16", "GPU", "memory", "disk: runs", "ray", "browser"]
    for thing in [*things, *(f"data: {name}" for name in DATASETS)]:
        assert lines[thing].startswith(("found    ", "missing  ")), thing
    assert "GiB" in lines["memory"] and "GiB free in" in lines["disk: runs"]


def test_it_says_what_will_be_chosen(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(native, "available", lambda: False)
    monkeypatch.setattr(native, "why_not", lambda: "it was never built")
    monkeypatch.setattr(precision, "hardware", lambda device: None)
    lines = "\n".join(a + b for a, b in examined(monkeypatch, capsys).items())
    assert "engine torch on c" in lines and ", float32, " in lines and "engine native" not in lines
    assert "native engine" in lines and "missing  it was never built" in lines


def test_data_are_looked_for_where_the_option_says(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "train-images-idx3-ubyte").write_bytes(b"short")
    for file in DATASETS["mnist"].files[1:]:
        (raw / file.name).write_bytes(b"short")
    lines = examined(monkeypatch, capsys, "--data-root", str(tmp_path))
    assert lines["data: mnist"].startswith("missing  --data-root")
    assert "train-images-idx3-ubyte has 5 bytes" in lines["data: mnist"]
    assert lines["data: mnist"].endswith("type: lth data fetch mnist")
    assert lines["data: cifar10"].startswith("missing  not on this machine")


def test_what_is_missing_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    monkeypatch.setattr(doctor.sys, "platform", "linux")
    assert str(doctor.compiler()).endswith("type: sudo apt-get install g++")
    assert doctor.browser().command.startswith("sudo apt-get install chromium")
    assert doctor.package("no-such-package", "nothing").command == "pip install no-such-package"
    monkeypatch.setattr(doctor.sysconfig, "get_path", lambda name: "/nowhere")
    assert doctor.headers().command.endswith("-dev")
    monkeypatch.setattr(precision, "hardware", lambda device: "the processor's avx512_bf16")
    monkeypatch.setattr(kernels, "why_not", lambda: "they are not built: no compiler")
    assert doctor.bfloat16().command.startswith("pip install")


def test_a_folder_that_cannot_be_written_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.disk("disk: runs", tmp_path / "not" / "yet").found
    monkeypatch.setattr(doctor.os, "access", lambda path, mode: False)
    assert not doctor.disk("disk: runs", tmp_path).found
    assert "XDG_CACHE_HOME" in doctor.disk("disk: cache", tmp_path).command


@pytest.mark.parametrize(
    ("count", "said"),
    [(1, "X100, 80 GiB"), (2, "X100, 80 GiB, and 1 more: one training on each of the 2, side by side")],
)
def test_all_gpus_are_used_as_it_says(count: int, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    card = SimpleNamespace(name="X100", total_memory=80 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: card)
    assert doctor.gpu().detail == said
    assert local.room(Resources("torch", "cuda", "float32", 1)) == count


def test_free_memory_is_not_more_than_all() -> None:
    total, free = memory.total_and_free()
    assert 0 < free <= total
