"""`lth.Run`: a stored run as Python and notebooks see it; the findings of a run as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import lth
from conftest import tiny_arrays, tiny_experiment
from lth.cli import app
from lth.errors import UsageError
from lth.results import sentences

pytestmark = pytest.mark.figures


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> lth.Run:
    """A finished run of two trials and two levels, without figures."""
    folder = tmp_path_factory.mktemp("stored")
    np.savez(folder / "tiny.npz", **tiny_arrays())  # type: ignore[arg-type]
    experiment = tiny_experiment(folder / "tiny.npz") | {"trials": 2}
    return lth.run(experiment, out=folder / "run", engine="torch", workers=1, pictures=False)


def test_a_run_gives_tickets_and_trained_weights(stored: lth.Run) -> None:
    tickets = stored.tickets(trial=2)
    assert [round(t.density, 3) for t in tickets] == [round(t.density, 3) for t in stored.tickets()]
    assert [t.origin["level"] for t in tickets] == [0, 1, 2] and tickets[0].origin["trial"] == 2
    ticket, trained = stored.ticket(2, trial=2), stored.trained(2, trial=2)
    assert set(trained) == set(ticket.start)
    for name, mask in ticket.mask.items():
        assert not trained[name][~mask].any() and not torch.equal(trained[name], ticket.start[name])
    with pytest.raises(UsageError, match="no trial 1, level 7, ticket: it has trials 1, 2 and levels 0 to 2"):
        stored.trained(7)


def test_winning_is_the_ticket_of_the_winning_level(stored: lth.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    level = stored.verdict.winning
    assert (stored.winning is None) == (level is None)
    monkeypatch.setattr(lth.Run, "verdict", property(lambda self: type("V", (), {"winning": 1})))
    winning = stored.winning
    assert winning is not None and (winning.origin["trial"], winning.origin["level"]) == (1, 1)


def test_figures_and_report_are_made_when_they_are_asked_for(stored: lth.Run) -> None:
    assert not (stored.folder / "report.html").exists()
    assert "overview" in stored.figures and all(path.suffix == ".png" for path in stored.figures.values())
    assert "<main" in stored.report.read_text()
    before = stored.report.stat().st_mtime_ns
    assert stored.report.stat().st_mtime_ns == before, "what is there is not made again"


def test_repr_is_a_few_lines_and_html_has_table_and_chart(stored: lth.Run) -> None:
    lines = repr(stored).split("\n")
    assert len(lines) <= 4 and lines[0] == f"Run({str(stored.folder)!r}: {len(stored.summary)} of 6 trainings)"
    assert lines[1].strip() == sentences.conclusion(stored.verdict)
    html = stored._repr_html_()
    assert html.count("<tr>") == 1 + 3 and "data:image/png;base64," in html and "weights remaining" in html


def test_an_empty_folder_is_shown_as_one(tmp_path: Path) -> None:
    empty = lth.Run(tmp_path)
    assert repr(empty) == f"Run({str(tmp_path)!r}: nothing stored)" and "nothing stored" in empty._repr_html_()
    with pytest.raises(UsageError, match="not a run folder"):
        _ = empty.summary


# ---------------------------------------------------------------------------------------------------------------- JSON


def test_the_findings_of_reports_and_runs_are_json(stored: lth.Run, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["report", str(stored.folder), "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["headline"] == sentences.headline(stored.verdict) and found["trainings"]["stored"] == 6
    assert Path(found["report"]).is_file()
    levels = {row["level"]: row for row in found["verdict"]["levels"]}
    gain = stored.verdict.levels[0].contrast.gain
    assert levels[1]["gain"] == {
        "value": gain.value, "low": gain.low, "high": gain.high,
        "least": gain.least, "greatest": gain.greatest, "n": 2,
    }  # fmt: skip
    again = ["run", str(stored.folder / "experiment.toml"), "--out", str(stored.folder), "--workers", "1"]
    done = CliRunner().invoke(app, [*again, "--engine", "torch", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == found
    two = json.loads(
        CliRunner().invoke(app, ["report", *[str(stored.folder)] * 2, "--json", "--out", str(tmp_path)]).stdout
    )
    assert [one["run"] for one in two] == [str(stored.folder)] * 2
    scored = json.loads(CliRunner().invoke(app, ["verify", str(stored.folder), "--json"]).stdout)
    assert scored["verdict"] == found["verdict"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["run", "lenet", "--dry-run", "--json"], "--dry-run"), (["report", "R", "--serve", "--json"], "--serve")],
)
def test_json_of_nothing_is_refused(arguments: list[str], said: str) -> None:
    done = CliRunner().invoke(app, arguments)
    assert isinstance(done.exception, UsageError) and said in str(done.exception)


# ----------------------------------------------------------------------------------------------------------- notebooks


def test_a_notebook_shows_progress_table_and_chart(tmp_path: Path) -> None:
    np.savez(tmp_path / "tiny.npz", **tiny_arrays())  # type: ignore[arg-type]
    experiment: dict[str, Any] = tiny_experiment(tmp_path / "tiny.npz") | {"levels": 1}
    code = f"import lth\nrun = lth.run({experiment!r}, out={str(tmp_path / 'run')!r}, engine='torch', workers=1)\nrun"
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    nbclient.NotebookClient(book, timeout=120, kernel_name="python3").execute()
    outputs = [output.data for output in book.cells[0].outputs if "data" in output]
    assert any("application/vnd.jupyter.widget-view+json" in data for data in outputs), "no live display"
    assert any("[2/2]" in data.get("text/plain", "") for data in outputs)
    assert "<table>" in outputs[-1]["text/html"] and "data:image/png" in outputs[-1]["text/html"]
