"""The anatomy of tickets: whole counts, of a real run, of one of version 0.1; and the command for measures."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import lth
from lth.cli import app
from lth.errors import UsageError
from lth.measures import anatomy, tables
from lth.measures.ticket_anatomy import Anatomy, dissect
from lth.report import explorer
from lth.report.publish import publish
from lth.results import tables as results
from lth.storage import layout
from lth.tickets.ticket import Ticket

pytestmark = pytest.mark.figures

FIRST = Path(__file__).parent / "data/version-0.1/finished"


def stored(tmp_path: Path, mask: dict[str, np.ndarray], shape: tuple[int, ...], start: Any = None) -> Anatomy:
    """The anatomy of a ticket, written and read back."""
    start = start or {name: np.ones(layer.shape, np.float32) for name, layer in mask.items()}
    rows = anatomy.to_rows((1, 3), dissect(mask, start, shape))
    tables.write("anatomy", tmp_path, tables.joined(None, rows, anatomy.COLUMNS))
    assert {*anatomy.read(tmp_path)} == {(1, 3)}
    return anatomy.read(tmp_path)[1, 3]


def test_dead_units_and_unread_inputs_are_counted(tmp_path: Path) -> None:
    first = np.array([[1, 0, 0], [0, 0, 0], [1, 1, 0], [0, 0, 0]], bool)  # units 2 and 4 are dead, input 3 is unread
    kernel = np.zeros((2, 3, 3, 3), bool)
    kernel[1, 0, 2, 1] = True
    found = stored(tmp_path, {"fc": first, "conv": kernel}, (3,))
    fc, conv = found.layers
    assert (fc.shape, fc.weights, fc.alive, fc.units, fc.dead_units, fc.inputs, fc.unread_inputs) == (
        "4x3", 12, 3, 4, 2, 3, 1
    )  # fmt: skip
    assert (conv.weights, conv.alive, conv.dead_units, conv.unread_inputs) == (54, 1, 1, 2)
    assert found.pixels == ()  # the inputs are no images


def test_the_map_counts_each_pixels_connections_over_units_and_channels(tmp_path: Path) -> None:
    mask = np.zeros((5, 2, 3, 4), bool)
    mask[:, 0, 1, 2] = True
    mask[0, 1, 1, 2] = mask[3, 1, 0, 0] = True
    found = stored(tmp_path, {"fc": mask.reshape(5, 24)}, (2, 3, 4))
    assert found.pixels == ((1, 0, 0, 0), (0, 0, 6, 0), (0, 0, 0, 0)) and found.block == 1


def test_large_images_are_summed_in_blocks(tmp_path: Path) -> None:
    found = stored(tmp_path, {"fc": np.ones((2, 130 * 100), bool)}, (1, 130, 100))
    assert found.block == 3 and (len(found.pixels), len(found.pixels[0])) == (44, 34)
    assert found.pixels[0][0] == 18 and sum(map(sum, found.pixels)) == 2 * 130 * 100


def test_of_a_convolution_the_map_is_its_kernel(tmp_path: Path) -> None:
    found = stored(tmp_path, {"conv": np.ones((8, 3, 3, 3), bool)}, (3, 32, 32))
    assert found.pixels == ((24, 24, 24),) * 3


def test_starts_are_counted_in_equal_bins_up_to_the_largest(tmp_path: Path) -> None:
    start = np.array([[-2.0, -0.01, 0.01, 0.5, 2.0, np.nan]], np.float32)
    mask = np.array([[0, 0, 1, 0, 1, 1]], bool)
    (layer,) = stored(tmp_path, {"fc": mask}, (6,), {"fc": start}).layers
    assert layer.limit == 2 and len(layer.all_starts) == 40 and sum(layer.all_starts) == 5
    assert layer.all_starts[0] == layer.all_starts[-1] == layer.all_starts[19] == layer.all_starts[20] == 1
    assert layer.all_starts[25] == 1
    assert [i for i, n in enumerate(layer.alive_starts) if n] == [20, 39]


def test_a_layer_of_zeros_has_a_histogram_too(tmp_path: Path) -> None:
    (layer,) = stored(tmp_path, {"fc": np.ones((2, 2), bool)}, (2,), {"fc": np.zeros((2, 2), np.float32)}).layers
    assert layer.limit == 0 and sum(layer.all_starts) == 4


def test_a_damaged_table_is_named(tmp_path: Path) -> None:
    stored(tmp_path, {"fc": np.ones((2, 4), bool)}, (1, 2, 2))
    path = tmp_path / "measures/anatomy.csv"
    for old, new in (("2x4,8,8", "2x4,8,x"), ("2 2/2 2", "2 2/2"), ("alive", "dead")):
        content = path.read_text()
        assert old in content
        path.write_text(content.replace(old, new))
        with pytest.raises(UsageError, match=f"{path} is damaged"):
            anatomy.read(tmp_path)
        path.write_text(content)
    assert anatomy.read(tmp_path / "nowhere") == {}


def test_what_version_0_1_wrote_beside_tickets_is_read_and_is_what_is_computed_now(tmp_path: Path) -> None:
    old = anatomy.read(FIRST)
    assert {*old} == {(trial, level) for trial in (1, 2) for level in (0, 1, 2)}
    folder = Path(shutil.copytree(FIRST, tmp_path / "run"))
    for path in folder.glob("trial-*/level-*/*.csv"):
        if path.name in layout.ANATOMY:
            path.unlink()
    assert anatomy.read(folder) == {}
    tables.compute("anatomy", folder)
    assert anatomy.read(folder) == old


@pytest.mark.parametrize("name", layout.ANATOMY)
def test_a_damaged_file_of_version_0_1_is_named(tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(FIRST, tmp_path / "run"))
    path = folder / "trial-1/level-01" / name
    path.write_bytes(path.read_bytes()[:-4] + b"x\n")
    with pytest.raises(UsageError, match=f"{path}.*damaged"):
        anatomy.read(folder)
    (folder / "trial-1/level-01/summary.json").unlink()  # without its checksum, by its content
    with pytest.raises(UsageError, match=f"{path.parent} holds a damaged"):
        anatomy.read(folder)


def test_only_missing_rows_are_computed_and_those_of_other_tickets_are_made_again(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(FIRST, tmp_path / "run"))
    path = tables.compute("anatomy", folder)
    assert path == folder / "measures/anatomy.csv"
    whole = path.read_bytes()
    table = pd.read_csv(path, dtype=str)
    tables.write("anatomy", folder, table.loc[table["level"] != "1"])
    tables.compute("anatomy", folder)
    assert path.read_bytes() == whole
    table.loc[table["level"] == "2", ["ticket", "alive"]] = ["0123456789abcdef", "1"]
    tables.write("anatomy", folder, table)
    assert anatomy.read(folder) == anatomy.read(FIRST)  # as it stands beside the tickets
    tables.compute("anatomy", folder)
    assert path.read_bytes() == whole


def test_the_command_computes_a_measure(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(FIRST, tmp_path / "run"))
    run = lambda *words: CliRunner().invoke(app, ["measure", *words])
    done = run("movement", str(folder), "levels=1", "trials=[1]")
    assert done.exit_code == 0 and done.output.strip() == str(folder / "measures/movement.csv")
    table = pd.read_csv(folder / "measures/movement.csv")
    assert {*zip(table["trial"], table["level"], strict=True)} == {(1, 1)}
    for words, said in (
        (["movment"], "movement"),
        (["movement", "level=1"], "movement has no option 'level'.*it takes trials, levels"),
        (["movement", "levels=few"], "levels=few: expected a whole number"),
    ):
        name, *options = words
        error = run(name, str(folder), *options).exception
        assert isinstance(error, UsageError) and re.search(said, str(error))


def test_measures_are_drawn_and_shown(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(FIRST, tmp_path / "run"))
    tables.compute("movement", folder, levels=2)
    paths = publish([results.load(folder)], folder / "figures", folder / "report.html")
    assert {"layers.svg", "movement-level-02.png"} <= {path.name for path in paths}
    html = (folder / "report.html").read_text()
    assert 'alt="layers"' in html and 'alt="movement-level-02"' in html and 'id="tickets"' in html


def test_a_run_measures_its_tickets(tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lth.results.plots.draw", lambda runs, folder, *more: [])
    lth.run(tiny, out=tmp_path / "run", engine="torch", workers=1, branches="reinit:1")
    (trial,) = explorer.trials_of(anatomy.read(tmp_path / "run"))
    assert [level["level"] for level in trial["levels"]] == [0, 1, 2]
    whole = Ticket.load(tmp_path / "run/trial-1/level-00/ticket.safetensors").start["fc1.weight"].numpy()
    for level in trial["levels"]:
        ticket = Ticket.load(tmp_path / f"run/trial-1/level-{level['level']:02d}/ticket.safetensors")
        mask = ticket.mask["fc1.weight"].numpy()
        assert level["percent"] == pytest.approx(100 * ticket.density)
        assert level["alive"] == [int(layer.sum()) for layer in ticket.mask.values()]
        assert np.array_equal(level["pixels"], mask.sum(0).reshape(6, 6))
        edges = np.linspace(-1, 1, 41) * float(np.abs(whole).max())
        assert np.array_equal(level["starts"][0], np.histogram(whole[mask].astype(float), edges)[0])
    assert (tmp_path / "run/report.html").exists()
