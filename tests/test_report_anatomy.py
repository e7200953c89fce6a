"""The small CSVs inside a training's folder: whole counts, and what they say of a real run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lth
from lth.errors import UsageError
from lth.measures import anatomy
from lth.report import explorer
from lth.tickets.ticket import Ticket


def stored(tmp_path: Path, mask: dict[str, np.ndarray], shape: tuple[int, ...], start: Any = None) -> anatomy.Anatomy:
    start = start or {name: np.ones(layer.shape, np.float32) for name, layer in mask.items()}
    for name, content in anatomy.files(mask, start, shape).items():
        (tmp_path / name).write_bytes(content)
    found = anatomy.read(tmp_path)
    assert found
    return found


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


@pytest.mark.parametrize("name", ["layers.csv", "pixels.csv", "starts.csv"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    stored(tmp_path, {"fc": np.ones((2, 4), bool)}, (1, 2, 2))
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:-4] + b"x\n")
    with pytest.raises(UsageError, match=f"{tmp_path}.*damaged"):
        anatomy.read(tmp_path)
    assert anatomy.read(tmp_path / "nowhere") is None


def test_a_run_stores_them_for_its_tickets_and_they_are_the_tickets(
    tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lth.results.plots.draw", lambda runs, folder: [])
    lth.run(tiny, out=tmp_path / "run", engine="torch", workers=1, branches="reinit:1")
    assert not (tmp_path / "run/trial-1/level-01/reinit-1/layers.csv").exists()
    (trial,) = explorer.of_run(tmp_path / "run")
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
