"""Ticket files: what they hold, what is refused, and that a ticket can be trained again from its file alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn
from torch.nn.utils import prune

import lth
from conftest import tiny_arrays, tiny_experiment
from lth import models
from lth.errors import UsageError
from lth.execution.repair import repair
from lth.pruning import masks
from lth.storage.tensors import load_tensors, read_metadata, save_tensors
from lth.tickets.ticket import Ticket, describe

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One trial, two prunings."""
    folder = tmp_path_factory.mktemp("tickets")
    np.savez(folder / "tiny.npz", **tiny_arrays())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lth.execution.running.show_results", lambda folder, console: None)
        lth.run(tiny_experiment(folder / "tiny.npz"), out=folder / "run", engine="torch", workers=1)
    return folder / "run"


@pytest.fixture
def file(run: Path, tmp_path: Path) -> Path:
    """A ticket file by itself: that of level 2."""
    return shutil.copy(run / "trial-1/level-02/ticket.safetensors", tmp_path / "alone.safetensors")


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(48, 10), nn.Linear(10, 2))


WIDE = """
import torch
from torch import nn

def build(shape, classes):
    wide = nn.Linear(36, 400)
    nn.init.normal_(wide.weight, std=0.1)
    return nn.Sequential(nn.Flatten(), wide, nn.Tanh(), nn.Linear(400, classes))
"""


def write_tiny(folder: Path) -> Path:
    np.savez(folder / "tiny.npz", **tiny_arrays())
    return folder / "tiny.npz"


def a_ticket() -> Ticket:
    model = network()
    mask = {name: torch.rand(p.shape) < 0.4 for name, p in models.counted(model).items()}
    return Ticket(mask, masks.apply(mask, models.tensors(model)), {"level": 3})


# ------------------------------------------------------------------------------------------------------------ the file


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    ticket = a_ticket()
    for name in ("a", "b"):
        ticket.save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    found = Ticket.load(tmp_path / "a")
    assert all(torch.equal(found.mask[name], ticket.mask[name]) for name in ticket.mask)
    assert all(torch.equal(found.start[name], ticket.start[name]) for name in ticket.start)
    assert found.density == ticket.density and found.origin["level"] == 3


def test_a_runs_ticket_says_where_it_comes_from(file: Path) -> None:
    lines = describe(Ticket.load(file))
    text = "\n".join(lines)
    for said in (
        "model       layers [12, 8], name lenet", "365 of 560 remain: 65.18%", "trial 1, level 2, branch ticket",
        "inputs      1 x 6 x 6", "classes     4", "tiny.npz", "optimizer adam", "fc2.weight", "and 24 values",
    ):  # fmt: skip
        assert said in text
    assert "None" not in text and "drops" not in text
    assert describe(Ticket({"w": torch.ones(2, 2).bool()}, {"w": torch.ones(2, 2)}))[0].startswith("weights     4 of 4")


def broken(content: bytes, kind: str) -> bytes:
    tensors, origin = load_tensors(content), read_metadata(content)
    header = int.from_bytes(content[:8], "little")
    name = "fc1.weight"
    if kind == "a bit flipped":
        at = len(content) - 5
        return content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :]
    if kind == "cut short":
        return content[:-7]
    if kind == "header cut":
        return content[: header // 2]
    if kind == "not a tensor file":
        return b"PK\x03\x04" + bytes(100)
    if kind == "somebody else's":
        return safetensors.torch.save({"weight": torch.ones(3)})
    if kind == "no masks":
        tensors = {key: tensor for key, tensor in tensors.items() if key.startswith("start/")}
    if kind == "no start":
        del tensors[f"start/{name}"]
    if kind == "mask of another size":
        tensors[f"mask/{name}"] = tensors[f"mask/{name}"][:-1].clone()
    if kind == "other counts":
        tensors[f"mask/{name}"] = tensors[f"mask/{name}"] ^ 255
    if kind == "weights where none survive":
        tensors[f"start/{name}"] = torch.ones_like(tensors[f"start/{name}"])
    if kind == "another format":
        origin["format"] = 99
    if kind == "no object":
        return safetensors.torch.save(tensors, {"lth": "[]"})
    if kind == "other tensors":  # under the seal of the first
        tensors["start/fc1.bias"] = tensors["start/fc1.bias"] + 1
        return safetensors.torch.save(tensors, {"lth": json.dumps(origin, sort_keys=True)})
    return save_tensors(tensors, origin)


REFUSED = {
    "a bit flipped": "its bytes have changed since it was written",
    "other tensors": "its bytes have changed since it was written",
    "cut short": "not a ticket file, or it is damaged",
    "header cut": "not a ticket file, or it is damaged",
    "not a tensor file": "not a ticket file, or it is damaged",
    "somebody else's": "it lacks mask/...",
    "no masks": "it lacks mask/...",
    "no start": "it lacks start/fc1.weight",
    "mask of another size": "a packed mask of 432 weights has 54 bytes, not 53",
    "other counts": "its masks do not have the counts that it states",
    "weights where none survive": "start/fc1.weight is not 0 where mask/fc1.weight prunes",
    "another format": "its format is 99, not 2",
    "no object": "its metadata is not an object",
}


@pytest.mark.parametrize("kind", REFUSED)
def test_damaged_and_foreign_files_are_refused_with_the_reason(kind: str, file: Path, tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(broken(file.read_bytes(), kind))
    with pytest.raises(UsageError) as refused:
        Ticket.load(tmp_path / "t")
    assert REFUSED[kind] in str(refused.value) and str(tmp_path / "t") in str(refused.value)


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        Ticket.load(tmp_path / "none")
    with pytest.raises(UsageError, match="is not a file"):
        Ticket.load(tmp_path)
    torch.save(network().state_dict(), tmp_path / "w.pt")
    with pytest.raises(UsageError, match="not a ticket file"):
        Ticket.load(tmp_path / "w.pt")


def test_a_ticket_is_refused_by_another_model() -> None:
    with pytest.raises(UsageError, match=r"does not fit this model; they differ in 4.bias; 4.weight"):
        a_ticket().apply(network()[:4])
    wider = network()
    wider[3] = nn.Linear(48, 11)
    with pytest.raises(UsageError, match=r"they differ in 3.weight \(10, 48\); 3.bias \(10,\)"):
        a_ticket().apply(wider)


# -------------------------------------------------------------------------------------------------------- other formats


def test_to_and_from_torchs_own_pruning() -> None:
    ticket, model = a_ticket(), network()
    plain = ticket.apply(network()).eval()
    assert ticket.to_prune(model) is model
    assert prune.is_pruned(model) and set(dict(model[3].named_buffers())) == {"weight_mask"}
    x = torch.rand(5, 1, 6, 6)
    assert torch.equal(model.eval()(x), plain(x))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    model(x).sum().backward()
    optimizer.step()
    model(x)
    found = Ticket.from_prune(model)
    assert all(torch.equal(found.mask[name], layer) for name, layer in ticket.mask.items())
    assert set(found.start) == set(ticket.start) and list(found.mask) == list(ticket.mask)
    assert not torch.equal(found.start["3.weight"], ticket.start["3.weight"])  # trained since
    assert not any(found.start[name][~layer].any() for name, layer in found.mask.items())
    assert torch.equal(found.apply(network()).eval()(x), model(x))


def test_what_torch_pruned_in_part_or_not_at_all() -> None:
    model = network()
    prune.l1_unstructured(model[3], "weight", amount=100)
    found = Ticket.from_prune(model)
    assert masks.alive(found.mask) == {"0.weight": 27, "3.weight": 380, "4.weight": 20}
    with pytest.raises(UsageError, match="not pruned by torch"):
        Ticket.from_prune(network())


# -------------------------------------------------------------------------------------------- from the file alone


def curve(folder: Path) -> str:
    return (folder / "curve.csv").read_text()


def test_a_ticket_is_trained_again_from_its_file_alone(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    again = lth.run(ticket=file, engine="torch", workers=1)
    assert again.folder == Path("runs/ticket-alone")
    row = again.summary.iloc[0]
    assert len(again.summary) == 1 and (row["level"], row["weights"], row["density"]) == (0, 365, 365 / 560)
    found, first = Ticket.load(again.folder / "trial-1/level-00/ticket.safetensors"), Ticket.load(file)
    for ours, theirs in ((found.mask, first.mask), (found.start, first.start)):
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    # batches are drawn by (seed, trial, training): the same ticket learns as much, in another order
    assert row["status"] == "done" and row["early_stop_iteration"] >= 1
    environment = json.loads((again.folder / "environment.json").read_text())
    assert environment["command"] == f"lth run --ticket {file} --engine torch --workers 1"
    lth.run(again.folder / "experiment.toml", out=tmp_path / "repeated", engine="torch", workers=1)
    assert curve(tmp_path / "repeated/trial-1/level-00") == curve(again.folder / "trial-1/level-00")


def test_a_ticket_is_pruned_further_and_reset_to_its_start(file: Path, tmp_path: Path) -> None:
    found = lth.run(ticket=file, trials=2, levels=2, branches="reinit", out=tmp_path / "on", engine="torch", workers=1)
    trunk = found.summary.query("branch == 'ticket' and trial == 2")
    first = Ticket.load(file)
    assert list(trunk["weights"])[:2] == [365, 365 - 55 - 12 - 3]  # a fifth of 277 and of 62, a tenth of 26
    for level in range(3):
        now = Ticket.load(tmp_path / f"on/trial-2/level-{level:02d}/ticket.safetensors")
        assert all(torch.equal(t, first.start[n] * now.mask.get(n, torch.tensor(1))) for n, t in now.start.items())
        assert all((first.mask[name] | ~layer).all() for name, layer in now.mask.items())


def test_controls_of_a_ticket_file_start_from_drawn_weights_where_it_has_none(file: Path, tmp_path: Path) -> None:
    """A file holds the start of its survivors alone; a mask that looks elsewhere would find zeros."""
    branches = "random-mask:1,noise-0.5:1,prune-at-0:1"
    run = lth.run(ticket=file, levels=1, branches=branches, out=tmp_path / "run2", engine="torch", workers=1)
    given, level = Ticket.load(file), run.folder / "trial-1/level-01"
    control = Ticket.load(level / "random-mask-1/ticket.safetensors")
    for name, layer in control.mask.items():
        assert torch.equal(control.start[name] != 0, layer)
        both = layer & given.mask[name]
        assert torch.equal(control.start[name][both], given.start[name][both])
        outside = control.start[name][layer & ~given.mask[name]]
        assert len(outside) > 0 and len(outside.unique()) == len(outside)
    ticket, noisy = (Ticket.load(level / name / "ticket.safetensors") for name in ("", "noise-0.5-1"))
    assert all(
        torch.equal(t[~ticket.mask[n]], torch.zeros_like(t[~ticket.mask[n]]))
        for n, t in noisy.start.items()
        if n in ticket.mask
    )
    early = Ticket.load(level / "prune-at-0-1/ticket.safetensors")
    assert masks.alive(early.mask) == masks.alive(ticket.mask)


def test_noise_on_a_ticket_of_ones_own_network_has_the_initialisations_sigma(tmp_path: Path) -> None:
    (tmp_path / "wide.py").write_text(WIDE)
    tiny = tiny_experiment(write_tiny(tmp_path)) | {"model": {"name": f"{tmp_path / 'wide.py'}:build"}}
    tiny["prune"] = {"rate": 0.6}
    first = lth.run(tiny, levels=2, out=tmp_path / "first", engine="torch", workers=1)
    ticket = first.folder / "trial-1/level-02/ticket.safetensors"
    again = lth.run(ticket=ticket, levels=1, branches="noise-1:1", out=tmp_path / "again", engine="torch", workers=1)
    level = again.folder / "trial-1/level-01"
    start, noisy = (Ticket.load(level / name / "ticket.safetensors") for name in ("", "noise-1-1"))
    added = (noisy.start["1.weight"] - start.start["1.weight"])[start.mask["1.weight"]]
    assert len(added) > 900 and added.std().item() == pytest.approx(0.1, rel=0.1)  # a standard error of 2.4%


def test_on_another_dataset_of_the_same_shape(file: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", **tiny_arrays(seed=5))
    data = {"data.name": str(tmp_path / "other.npz")}
    other = lth.run(ticket=file, overrides=data, out=tmp_path / "other", engine="torch", workers=1)
    same = lth.run(ticket=file, out=tmp_path / "same", engine="torch", workers=1)
    assert curve(other.folder / "trial-1/level-00") != curve(same.folder / "trial-1/level-00")
    larger = tiny_arrays()
    larger["y_train"], larger["y_test"] = larger["y_train"] % 3, larger["y_test"] % 3
    np.savez(tmp_path / "three.npz", **larger)
    with pytest.raises(UsageError, match=r"cannot be trained as lenet on .*three.npz: the ticket does not fit"):
        lth.run(ticket=file, overrides={"data.name": str(tmp_path / "three.npz")}, out=tmp_path / "three")
    assert not (tmp_path / "three").exists()


def test_by_another_recipe(tiny: dict[str, Any], file: Path, tmp_path: Path) -> None:
    """A preset or file beside the ticket says how; the ticket says what."""
    tiny["recipe"] |= {"iterations": 20}
    found = lth.run(tiny | {"levels": 0}, ticket=file, out=tmp_path / "run2", engine="torch", workers=1)
    assert list(found.summary["weights"]) == [365] and list(found.summary["iterations"]) == [20]


def test_a_ticket_file_that_changed_is_not_taken_for_the_same(run: Path, file: Path, tmp_path: Path) -> None:
    copy = shutil.copy(file, tmp_path / "t.safetensors")
    lth.run(ticket=copy, out=tmp_path / "first", engine="torch", workers=1)
    copy.write_bytes((run / "trial-1/level-01/ticket.safetensors").read_bytes())
    with pytest.raises(UsageError, match="ticket_sha256: "):
        lth.run(ticket=copy, out=tmp_path / "first", engine="torch", workers=1)
    with pytest.raises(UsageError, match=r"ticket: .*t.safetensors has changed since this experiment"):
        lth.run(tmp_path / "first/experiment.toml", out=tmp_path / "second")
    copy.unlink()
    with pytest.raises(UsageError, match=r"ticket: .*t.safetensors cannot be read: No such file"):
        lth.run(tmp_path / "first/experiment.toml", out=tmp_path / "second")


def test_the_runs_copy_of_its_ticket_is_never_trusted(run: Path, file: Path, tmp_path: Path) -> None:
    """Another whole ticket in its place, before anything is trained on it or after, is named, and set aside."""
    found = lth.run(ticket=file, out=tmp_path / "run2", engine="torch", workers=1)
    copy = found.folder / "ticket.safetensors"
    assert copy.read_bytes() == file.read_bytes()
    copy.write_bytes((run / "trial-1/level-01/ticket.safetensors").read_bytes())
    shutil.rmtree(found.folder / "trial-1")
    refusal = r"run2/ticket.safetensors is damaged: it is not the ticket file named in experiment.toml(.|\n)*lth rep"
    with pytest.raises(UsageError, match=refusal):
        lth.run(ticket=file, out=found.folder, engine="torch", workers=1)
    said: list[str] = []
    repair(found.folder, yes=True, say=said.append)
    assert said[0].startswith(f"set aside {copy}: ") and not copy.exists()
    assert (found.folder / "damaged/ticket.safetensors").exists()
    lth.run(ticket=file, out=found.folder, engine="torch", workers=1)
    assert copy.read_bytes() == file.read_bytes() and list(found.summary["weights"]) == [365]
    repair(found.folder, yes=False, say=said.append)
    assert said[-1].endswith("nothing is damaged")


def test_a_ticket_of_python_does_not_say_how_it_was_trained(tmp_path: Path) -> None:
    lth.imp(network(), lambda model: None, levels=1)[1].save(tmp_path / "t")
    with pytest.raises(UsageError, match=r"does not say how it was trained: lth run PRESET\|FILE.toml --ticket"):
        lth.run(ticket=tmp_path / "t")
    with pytest.raises(UsageError, match="nothing to run: give a preset"):
        lth.run()


def test_a_mask_of_other_than_booleans_is_not_saved(tmp_path: Path) -> None:
    """It ended in numpy's words for packed bits."""
    ticket = lth.Ticket({"weight": torch.ones(2, 3)}, {"weight": torch.ones(2, 3)})
    with pytest.raises(UsageError, match=r"the mask of weight is torch.float32, expected torch.bool: give mask != 0"):
        ticket.save(tmp_path / "t.safetensors")
    assert not [*tmp_path.iterdir()]
