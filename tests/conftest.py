"""What tests share: the real data where it is, and a tiny dataset that trains in milliseconds."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data" / "make_data_root.py"


@pytest.fixture(autouse=True)
def _no_data_root_of_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Tests see neither the user's data root, nor the user's cache, nor the list of approved files."""
    monkeypatch.delenv("LTH_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def approving(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file counts as approved, for tests of what comes after that (tests/test_approval.py has the rest)."""
    monkeypatch.setattr("lth.config.approval.is_approved", lambda path, sha256: True)


@pytest.fixture(autouse=True)
def _no_figures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs draw no figures and write no report, which would take most of their time; not in tests marked `figures`."""
    if request.node.get_closest_marker("figures") is None:
        monkeypatch.setattr("lth.execution.running.show_results", lambda folder, console: None)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Networks this small are slower on several threads, and much slower where the cores are busy."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with the real MNIST and CIFAR-10, the latter from JPEG."""
    if not SHARED_DATA.exists():
        pytest.skip("the shared data folder is not here")
    root = tmp_path_factory.mktemp("data-root")
    subprocess.run([sys.executable, SHARED_DATA, root], check=True, capture_output=True)
    return root


def tiny_arrays(seed: int = 0, examples: int = 400) -> dict[str, np.ndarray]:
    """Four classes of 6 x 6 images, learnable but not at once: a bright quarter in noise."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, examples + 100)
    images = rng.integers(0, 200, (examples + 100, 6, 6))
    for image, label in zip(images, labels, strict=True):
        row, column = divmod(int(label), 2)
        image[3 * row : 3 * row + 3, 3 * column : 3 * column + 3] += 40
    images = images.astype(np.uint8)
    return {
        "x_train": images[:examples], "y_train": labels[:examples],
        "x_test": images[examples:], "y_test": labels[examples:],
    }  # fmt: skip


@pytest.fixture
def tiny_data(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.npz"
    np.savez(path, **tiny_arrays())
    return path


def tiny_experiment(data: Path) -> dict[str, Any]:
    """An experiment on it, as tables: one trial, two prunings, 40 updates."""
    return {
        "name": "tiny",
        "trials": 1,
        "levels": 2,
        "data": {"name": str(data), "validation": 90},
        "model": {"name": "lenet", "layers": [12, 8]},
        "recipe": {"optimizer": "adam", "lr": 0.01, "iterations": 40, "batch": 30, "eval_every": 10},
    }


@pytest.fixture
def tiny(tiny_data: Path) -> dict[str, Any]:
    return tiny_experiment(tiny_data)
