"""One training on several processes has the curve of one process, within float32's rounding."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn

import lth
from lth.config import resolve
from lth.errors import UsageError
from lth.execution.executors import executor, torchrun
from lth.models.dropout import CounterDropout, set_counter, set_row
from lth.pruning import masks
from lth.storage import documents
from lth.training.distributed import Distributed, whole_batch_norm
from stored_runs import contents
from test_resume import has_checkpoint, to_file

PLAIN = "from lth.execution import running\nrunning.show_results = lambda *_: None\nfrom lth.cli import main\nmain()"


@pytest.fixture
def local(monkeypatch: pytest.MonkeyPatch) -> Any:
    return lth.run


@pytest.fixture
def alone() -> Iterator[None]:
    """A group of one process."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def two_processes(experiment: Path, out: Path, *words: str, program: str = PLAIN) -> subprocess.Popen[str]:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
    command = [*torchrun, sys.executable, "-c", program, "run", str(experiment), "--out", str(out), *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def complete(process: subprocess.Popen[str]) -> str:
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    return said


def colour_images(path: Path) -> Path:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 110)
    images = rng.integers(0, 120, (110, 3, 8, 8))
    for image, label in zip(images, labels, strict=True):
        image[label % 3, 4 * (label // 2) : 4 * (label // 2) + 4] += 100
    images = images.astype(np.uint8)
    np.savez(path, x_train=images[:80], y_train=labels[:80], x_test=images[80:], y_test=labels[80:])
    return path


@pytest.mark.parametrize("model", ["lenet", "resnet18"])
def test_two_processes_have_the_curve_of_one(tiny: dict[str, Any], tmp_path: Path, local: Any, model: str) -> None:
    """A last batch of one example, of which one process gets none; or batch norm, of parts that are not equal.

    Few updates with batch norm: sooner or later a ReLU falls on the other side of 0, and the curves part. In float64,
    weights are equal to 1e-13 after 24 updates.
    """
    if model == "lenet":
        tiny |= {"levels": 1, "model": tiny["model"] | {"dropout": 0.2}}
        tiny["recipe"] |= {"batch": 103, "iterations": 60}
    else:
        images = str(colour_images(tmp_path / "images.npz"))
        tiny |= {"levels": 0, "model": {"name": model}, "data": {"name": images, "validation": 17}}
        tiny["recipe"] |= {
            "optimizer": "momentum", "momentum": 0.9, "lr": 0.01, "batch": 21, "iterations": 6, "eval_every": 1,
            "weight_decay": 0.01, "augment": True, "precision": "float32",
        }  # fmt: skip
    said = complete(two_processes(to_file(tiny, tmp_path / "tiny.toml"), tmp_path / "two"))
    assert "torchrun, 2 processes per training" in said and said.count(" early stop at ") == tiny["levels"] + 1
    local(tiny, out=tmp_path / "one", engine="torch", workers=1)
    one, two = (lth.Run(tmp_path / name).curves for name in ("one", "two"))
    assert list(one.iteration) == list(two.iteration)
    for column in ("val_loss", "test_loss"):
        np.testing.assert_allclose(two[column], one[column], rtol=5e-4)
    for column in ("val_accuracy", "test_accuracy"):
        np.testing.assert_allclose(two[column], one[column], atol=0.04)
    assert not one.val_loss.equals(two.val_loss)  # so they did divide the work
    assert json.loads((tmp_path / "two/environment.json").read_text())["means"]["processes"] == 2


def test_a_stopped_run_of_two_processes_goes_on_to_the_same_bits(tiny: dict[str, Any], tmp_path: Path) -> None:
    tiny["levels"] = 0
    tiny["recipe"] |= {"iterations": 1500, "eval_every": 500}
    experiment = to_file(tiny, tmp_path / "tiny.toml")
    for pause in (0.2, 0.5, 1, 2, 4):  # a busy machine may be stopped before the first iteration: nothing to keep yet
        shutil.rmtree(tmp_path / "stopped", ignore_errors=True)
        process = two_processes(experiment, tmp_path / "stopped")
        until = time.monotonic() + 100
        while not (tmp_path / "stopped/trial-1/start.safetensors").exists():
            assert time.monotonic() < until and process.poll() is None, process.communicate()[0]
            time.sleep(0.02)
        time.sleep(pause)
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=60)
        assert process.returncode != 0 and "To continue:" in said
        if has_checkpoint(tmp_path / "stopped"):
            break
    assert has_checkpoint(tmp_path / "stopped")
    complete(two_processes(experiment, tmp_path / "stopped"))
    complete(two_processes(experiment, tmp_path / "whole"))
    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")


def test_two_processes_plan_and_sweep(tiny: dict[str, Any], tmp_path: Path) -> None:
    """The plan is one process's work; of a sweep the driver alone reads what came out."""
    experiment = to_file(tiny | {"levels": 0}, tmp_path / "tiny.toml")
    said = complete(two_processes(experiment, tmp_path / "none", "--dry-run"))
    assert said.count("1 trainings, 1 of them to do") == 1 and "and one process per training" in said
    assert not (tmp_path / "none").exists()
    shown = "sweep.show_overlaid = lambda runs, *_: print([run.name for run in runs])"
    overlaid = PLAIN.replace("from lth.cli", f"from lth.execution import sweep\n{shown}\nfrom lth.cli")
    said = complete(two_processes(experiment, tmp_path / "sweep", "recipe.lr=[0.001,0.002]", program=overlaid))
    assert said.count("run 2 of 2") == said.count("['tiny-lr0.001', 'tiny-lr0.002']") == 1


def test_a_run_keeps_its_number_of_processes(tiny: dict[str, Any], tmp_path: Path, local: Any) -> None:
    local(tiny, out=tmp_path / "run", engine="torch", workers=1, levels=0)
    path = tmp_path / "run/environment.json"
    kept = json.loads(path.read_text())
    assert kept["means"]["processes"] == 1
    shutil.rmtree(tmp_path / "run/trial-1")  # begun, and nothing done
    path.write_bytes(documents.sealed_json(kept | {"means": kept["means"] | {"processes": 2}}))
    with pytest.raises(UsageError, match=r"begun with 2 processes per training(.|\n)*torchrun --nproc-per-node 2"):
        local(tiny, out=tmp_path / "run", workers=1)
    path.write_bytes(documents.sealed_json(kept))
    local(tiny, out=tmp_path / "run", workers=1)


def test_torchrun_and_other_executors_are_not_mixed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="start it with torchrun"):
        executor("torchrun")
    monkeypatch.setattr(os, "environ", os.environ | {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "RANK": "0"})
    with pytest.raises(UsageError, match="both distribute a run"):
        executor("ray")


@pytest.mark.parametrize(
    ("settings", "engine", "named"),
    [
        ({}, "native", "--engine native"),
        ({"recipe.precision": "bfloat16"}, "auto", "recipe.precision=bfloat16"),
        ({"recipe.compile": True}, "torch", "recipe.compile"),
    ],
)
def test_what_torchrun_cannot_do_is_named(settings: dict[str, Any], engine: str, named: str) -> None:
    with pytest.raises(UsageError, match=f"leave out {named}$"):
        torchrun.choose_for_all(resolve("lenet", settings), (1, 28, 28), 10, engine, "cpu")


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("shape", [(6, 3, 4, 4), (6, 3)])
@pytest.mark.parametrize("given", [{}, {"affine": False}, {"momentum": None}, {"track_running_stats": False}], ids=str)
def test_batch_norm_of_a_batch_that_is_whole_is_torchs(shape: tuple[int, ...], given: dict[str, Any]) -> None:
    drawn = torch.Generator().manual_seed(0)
    images, weights = (torch.randn(shape, generator=drawn) for _ in range(2))
    kind = nn.BatchNorm2d if len(shape) == 4 else nn.BatchNorm1d
    expected, found = kind(3, **given), kind(3, **given)
    for norm in (expected, found) if expected.affine else ():
        with torch.no_grad():
            norm.weight.copy_(torch.tensor([0.5, 1.0, 2.0]))
            norm.bias.copy_(torch.tensor([0.1, 0.0, -0.1]))
    inputs = [images.clone().requires_grad_() for _ in range(2)]
    for _ in range(2):
        outputs = expected(inputs[0]), whole_batch_norm(found, inputs[1])
        for output in outputs:
            (output * weights).sum().backward()
        torch.testing.assert_close(*outputs)
    torch.testing.assert_close(inputs[1].grad, inputs[0].grad)
    for name, parameter in expected.named_parameters():
        torch.testing.assert_close(found.get_parameter(name).grad, parameter.grad)
    torch.testing.assert_close(found.state_dict(), expected.state_dict())
    torch.testing.assert_close(whole_batch_norm(found.eval(), images), expected.eval()(images))


@pytest.mark.usefixtures("alone")
def test_each_process_draws_other_numbers_for_its_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's own dropout knows no rows: seeded alike, all parts of a batch would lose the same units."""
    seen = {}
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    for rank in (0, 1):
        monkeypatch.setattr(dist, "get_rank", lambda rank=rank: rank)
        network = nn.Sequential(nn.Linear(4, 64), nn.Dropout(0.5))
        start = {name: torch.ones_like(tensor) for name, tensor in network.state_dict().items()}
        learner = Distributed(network, start, masks.ones(start, ["0.weight"]), resolve("lenet").recipe, "cpu")
        learner.module[1].register_forward_hook(lambda *said, rank=rank: seen.update({rank: said[2] != 0}))
        torch.manual_seed(5)
        learner.update(torch.ones(6, 4), torch.zeros(6, dtype=torch.int64), 0.1)
    assert seen[0].shape == seen[1].shape == (3, 64) and not torch.equal(seen[0], seen[1])


def test_dropout_of_parts_is_that_of_the_whole() -> None:
    dropout, images = CounterDropout(0.5, layer=1), torch.ones(7, 2, 3)
    set_counter(dropout, key=5, update=2)
    whole, parts = dropout(images), []
    for part in (slice(0, 3), slice(3, 7), slice(7, 7)):
        set_row(dropout, part.start)
        parts.append(dropout(images[part]))
    assert torch.equal(torch.cat(parts), whole) and 0 < int((whole == 0).sum()) < whole.numel()
