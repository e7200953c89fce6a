"""The examples run, each in seconds: smaller than people run them, but from beginning to end."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

import lth
from lth.cli import app
from lth.config import resolve, to_toml

pytestmark = [pytest.mark.figures, pytest.mark.usefixtures("one_thread")]
EXAMPLES = Path(__file__).parents[1] / "examples"


def ran(name: str, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")


def test_tabular(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ran("tabular.py", monkeypatch, "--iterations", "120", "--levels", "2", "--out", str(tmp_path))
    said = capsys.readouterr().out
    scores = [float(row.split()[4]) for row in said.splitlines()[4:7]]
    assert all(0.5 < score < 1 for score in scores)  # it has learnt something
    ticket = lth.Ticket.load(tmp_path / "ticket.safetensors")
    assert ticket.density in (29_300 / 41_800, 20_546 / 41_800)
    assert re.search(r"the last level without its dead units: [\d,]+ numbers instead of 42,201", said)


def test_transformer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two short levels: whether one wins is chance, that the tied embedding is whole is not."""
    found: list[lth.Tickets] = []
    whole = lth.imp
    monkeypatch.setattr(lth, "imp", lambda *a, **k: found.append(whole(*a, **k)) or found[-1], raising=False)
    ran("transformer.py", monkeypatch, "--iterations", "5", "--levels", "2", "--out", str(tmp_path))
    assert len(found[0]) == 3 and list(found[0].summary["status"]) == ["done"] * 3
    alive = {name: float(layer.float().mean()) for name, layer in found[0][2].mask.items()}
    assert alive["embedding.weight"] == 1 and "output.weight" not in alive
    assert alive["encoder.layers.0.self_attn.in_proj_weight"] == pytest.approx(0.36, abs=0.001)
    assert alive["encoder.layers.1.linear1.weight"] == pytest.approx(0.49, abs=0.001)
    won = found[0].winning is not None
    assert (tmp_path / "ticket.safetensors").exists() == won and ("no ticket is" in capsys.readouterr().out) != won


def test_a_custom_model(tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As its docstring says, on a preset whose network is another."""
    monkeypatch.chdir(tmp_path)
    Path("tiny.toml").write_text(to_toml(resolve(tiny)))
    words = ["run", "tiny.toml", f"model.name={EXAMPLES}/my.py:build", "--engine", "torch", "--workers", "1"]
    app([*words, "--out", "run"], standalone_mode=False)
    assert set(lth.Ticket.load("run/trial-1/level-02/ticket.safetensors").mask) == {
        "inputs.weight", "across.weight", "within.weight", "output.weight"
    }  # fmt: skip


def test_the_command_in_its_docstring_parses() -> None:
    command = re.search(r"^    lth run (.*)$", (EXAMPLES / "my.py").read_text(), re.MULTILINE)
    assert command
    preset, setting, *_ = command[1].split()
    assert resolve(preset, [setting]).model.name == "examples/my.py:build"
