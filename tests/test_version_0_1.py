"""Folders and tickets that version 0.1 wrote load, report, verify, repair, export, resume and can be extended."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import pytest

import lth
from lth.config import read
from lth.execution.repair import repair
from lth.papers.card import card
from lth.report import publish
from lth.results import tables
from lth.tickets.ticket import describe
from lth.training.torch_engine import TorchEngine

pytestmark = pytest.mark.figures

WRITTEN = Path(__file__).parent / "data" / "version-0.1"


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy; the runs name their data by a relative path."""
    shutil.copytree(WRITTEN, tmp_path / "written")
    monkeypatch.chdir(tmp_path / "written")
    return tmp_path / "written"


def lines_of_repair(folder: Path) -> list[str]:
    lines: list[str] = []
    repair(folder, yes=False, say=lines.append)
    return lines


@pytest.mark.parametrize("name", ["finished", "half"])
def test_nothing_of_an_old_folder_is_called_damaged(written: Path, name: str, caplog: Any) -> None:
    run = written / name
    with caplog.at_level(logging.WARNING):
        records = [tables.load(run), tables.load(run)][0]
    unsealed = f"{run} has no checksums of summary.csv, curves.csv, as version 0.1 wrote none; "
    expected = f"{unsealed}`lth repair {run} --yes` adds them"
    assert caplog.messages == ([expected] if name == "finished" else [])  # the other one had no tables
    assert len(records.summary) == (18 if name == "finished" else 1)
    if name == "finished":
        assert lines_of_repair(run)[0].startswith("would add the checksums of curves.csv, summary.csv to ")
        assert len(lines_of_repair(run)) == 2
    repair(run, yes=True, say=[].append)
    assert lines_of_repair(run) == [f"{run}: nothing is damaged"]
    caplog.clear()
    tables.load(run)
    assert not caplog.messages


def test_an_old_folder_is_reported_verified_and_exported(written: Path) -> None:
    records = tables.load(written / "finished")
    paths = publish.publish([records], written / "figures", written / "report.html")
    assert all(path.stat().st_size > 1000 for path in paths)
    assert "pixels" in (written / "report.html").read_text(encoding="utf-8")  # the anatomy beside its tickets is shown
    assert card(records).statements
    lth.export(written / "finished", 1, 1, written / "exported.safetensors")
    exported = lth.Ticket.load(written / "exported.safetensors")
    assert exported.origin["counts"] == lth.Ticket.load(written / "ticket.safetensors").origin["counts"]


def test_an_old_ticket_loads_and_says_what_it_is(written: Path) -> None:
    ticket = lth.Ticket.load(written / "ticket.safetensors")
    assert ticket.origin["format"] == 2 and ticket.origin["level"] == 1
    assert any("lenet" in line for line in describe(ticket))


def test_a_half_finished_old_run_goes_on_from_its_checkpoint(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    restored: list[int] = []
    restore = TorchEngine.restore

    def recorded(engine: TorchEngine, state: Any, iteration: int) -> None:
        restored.append(iteration)
        restore(engine, state, iteration)

    monkeypatch.setattr(TorchEngine, "restore", recorded)
    asked = read(written / "half" / "experiment.toml")
    lth.run(asked, levels=1, branches="", out="half", workers=1, pictures=False)
    assert restored == [2801]
    summary = lth.run(asked, levels=1, branches="", out="half", workers=1, pictures=False).summary
    assert summary.loc[summary["branch"] == "ticket", "iterations"].tolist() == [8000, 8000]


def test_an_old_run_is_extended_by_a_level(written: Path) -> None:
    before = (written / "finished" / "summary.csv").read_text().splitlines()
    asked = read(written / "finished" / "experiment.toml")
    lth.run(asked, levels=3, branches="", out="finished", workers=1, pictures=False)
    after = (written / "finished" / "summary.csv").read_text().splitlines()
    at = after[0].split(",").index("early_stop_reached")  # the column that version 0.1 did not have
    older = [",".join(line.split(",")[:at] + line.split(",")[at + 1 :]) for line in after]
    assert {*before} < {*older} and len(after) == len(before) + 2
    assert lines_of_repair(written / "finished") == [f"{written / 'finished'}: nothing is damaged"]
