"""lth export: every format holds what it says, and other tools read it."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import lth
from lth import models
from lth.config import Model
from lth.errors import UsageError
from lth.results import tables, verdict
from lth.tickets import export
from lth.tickets.ticket import Ticket
from stored_runs import trained

pytestmark = pytest.mark.usefixtures("one_thread")
ONNX = [name for name in ("onnx", "onnxscript", "onnxruntime") if not find_spec(name)]
needs_onnx = pytest.mark.skipif(bool(ONNX), reason=f"not installed: {', '.join(ONNX)} (pip install 'lth[onnx]')")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One trial, two prunings of a half, so that units die."""
    from numpy import savez

    from conftest import tiny_arrays

    folder = tmp_path_factory.mktemp("export")
    savez(folder / "tiny.npz", **tiny_arrays())
    tiny = {
        "name": "tiny", "trials": 1, "levels": 3, "prune": {"rate": 0.6},
        "data": {"name": str(folder / "tiny.npz"), "validation": 90},
        "model": {"name": "lenet", "layers": [40, 30]},
        "recipe": {"optimizer": "adam", "lr": 0.01, "iterations": 40, "batch": 30, "eval_every": 10},
        "branch": [{"name": "reinit", "levels": [1]}],
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lth.execution.running.show_results", lambda folder, console: None)
        lth.run(tiny, out=folder / "run", engine="torch", workers=1)
    return folder / "run"


def network(state: dict[str, Tensor]) -> torch.nn.Module:
    model = models.build(Model(name="lenet", layers=(40, 30)), (1, 6, 6), 4)
    model.load_state_dict(state)
    return model.eval()


def test_a_ticket(run: Path, tmp_path: Path) -> None:
    said: list[str] = []
    lth.export(run, 1, 2, tmp_path / "t.safetensors", say=said.append)
    assert (tmp_path / "t.safetensors").read_bytes() == (run / "trial-1/level-02/ticket.safetensors").read_bytes()
    assert "the ticket of trial 1, level 2, 17." in said[0]


@pytest.mark.parametrize("weights", [None, "trained", "start"])
def test_a_plain_state_dict(run: Path, tmp_path: Path, weights: str | None) -> None:
    said: list[str] = []
    lth.export(run, 1, 2, tmp_path / "w.pt", weights=weights, say=said.append)
    found = torch.load(tmp_path / "w.pt", weights_only=True)
    ticket = Ticket.load(run / "trial-1/level-02/ticket.safetensors")
    expected = ticket.start if weights == "start" else trained(run, 2)
    assert type(found) is dict and found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert not any(found[name][~layer].any() for name, layer in ticket.mask.items())
    network(found)
    assert f"the {weights or 'trained'} weights, trial 1, level 2" in said[0]


def test_a_branch(run: Path, tmp_path: Path) -> None:
    lth.export(run, 1, 1, tmp_path / "w.pt", branch="reinit-1", weights="start")
    found = torch.load(tmp_path / "w.pt", weights_only=True)
    expected = Ticket.load(run / "trial-1/level-01/reinit-1/ticket.safetensors").start
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_a_compact_state_dict(run: Path, tmp_path: Path) -> None:
    from lth.tickets.compact import load_compact

    said: list[str] = []
    lth.export(run, 1, 3, tmp_path / "w.pt", compact=True, say=said.append)
    found = torch.load(tmp_path / "w.pt", weights_only=True)
    whole = network(trained(run, 3))
    small = load_compact(models.build(Model(name="lenet", layers=(40, 30)), (1, 6, 6), 4), found)
    x = torch.rand(20, 1, 6, 6)
    assert torch.allclose(small(x), whole(x), atol=1e-6)
    numbers = sum(tensor.numel() for tensor in found.values())
    assert numbers < 0.6 * 2834 and said[0] == f"{numbers:,} numbers, were 2,834: {2834 / numbers:.1f} times as small"
    assert said[1].startswith("batch 1: ") and "times as fast" in said[1] and said[2].startswith("batch 64: ")
    assert "outputs differ by" in said[3] and "of the compact network" in said[4]


@needs_onnx
@pytest.mark.parametrize("compact", [False, True])
def test_an_onnx_network_says_what_the_torch_model_says(run: Path, tmp_path: Path, compact: bool) -> None:
    import onnxruntime

    lth.export(run, 1, 3, tmp_path / "m.onnx", compact=compact)
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    whole = network(trained(run, 3))
    for batch in (1, 7, 64, 100):
        x = torch.rand(batch, 1, 6, 6)
        (outputs,) = session.run(None, {"inputs": x.numpy()})
        assert torch.allclose(torch.from_numpy(outputs), whole(x), atol=1e-5)


@needs_onnx
def test_an_onnx_convolutional_network_with_batch_norm() -> None:
    import onnxruntime

    model = models.build(Model(name="resnet18"), (3, 8, 8), 5).eval()
    session = onnxruntime.InferenceSession(
        export.onnx(model, torch.rand(4, 3, 8, 8)), providers=["CPUExecutionProvider"]
    )
    x = torch.rand(9, 3, 8, 8)
    assert torch.allclose(torch.from_numpy(session.run(None, {"inputs": x.numpy()})[0]), model(x), atol=1e-4)


def test_without_a_level_it_is_the_winning_one(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = verdict.of(tables.load(run))
    monkeypatch.setattr("lth.results.verdict.of", lambda records: replace(found, winning=1))
    lth.export(run, 1, None, tmp_path / "t.safetensors")
    assert Ticket.load(tmp_path / "t.safetensors").origin["level"] == 1
    monkeypatch.setattr("lth.results.verdict.of", lambda records: replace(found, winning=None))
    with pytest.raises(UsageError, match="no winning level, as the early stop was not reached at some level: give --l"):
        lth.export(run, 1, None, tmp_path / "t.safetensors")


CASES: list[tuple[dict[str, Any], str]] = [
    ({"to": "w.pth"}, "expected a name that ends in .safetensors, .pt, .onnx; did you mean '.pt'?"),
    ({"weights": "final"}, "--weights takes trained, start; not 'final'"),
    ({"to": "t.safetensors", "compact": True}, "--compact is for .pt and .onnx"),
    ({"to": "t.safetensors", "weights": "start"}, "--weights is for .pt and .onnx"),
    ({"trial": 2}, "has no trial 2, level 1, ticket: it has trials 1 and levels 0 to 3"),
    ({"level": 9}, "has no trial 1, level 9, ticket: it has trials 1 and levels 0 to 3"),
    ({"branch": "reinit-2"}, "has no trial 1, level 1, reinit-2"),
    ({"run": "nowhere"}, "nowhere has no trial 1, level 1, ticket: there are no tickets in it"),
]


@pytest.mark.parametrize(("changes", "message"), CASES)
def test_what_cannot_be_is_refused_and_nothing_written(
    run: Path, tmp_path: Path, changes: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as refused:
        lth.export(**({"run": run, "trial": 1, "level": 1, "to": "w.pt"} | changes))
    assert message in str(refused.value) and not list(tmp_path.iterdir())


def test_without_the_extra_onnx_is_refused_with_what_to_type(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lth.tickets.export.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"needs onnx and onnxscript: pip install 'lth\[onnx\]'"):
        lth.export(run, 1, 1, "m.onnx")


def test_damaged_weights_are_refused(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run/trial-1/level-01"
    copy.mkdir(parents=True)
    for name, content in (("ticket", None), ("trained", b"nothing")):
        whole = (run / f"trial-1/level-01/{name}.safetensors").read_bytes()
        (copy / f"{name}.safetensors").write_bytes(content or whole)
    with pytest.raises(UsageError, match=r"trained\.safetensors is damaged"):
        lth.export(tmp_path / "run", 1, 1, tmp_path / "w.pt")
