"""Numbers that go wrong: a loss that is no number ends a training and its trunk, and chance is pointed out."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

import lth
from lth import native
from lth.config import Recipe, resolve
from lth.models import build
from lth.models.init import draw
from lth.randomness import generator
from lth.report import words
from lth.results import captions, records, statistics, tables
from lth.storage import atomic, layout, runs
from lth.storage.tensors import save_tensors
from lth.training.loop import train

ENGINES = [
    "torch",
    pytest.param("native", marks=pytest.mark.skipif(not native.available(), reason=str(native.why_not()))),
]


pytestmark = pytest.mark.figures


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lth.results.plots.draw", lambda runs, folder, *more: [])
    monkeypatch.setattr("lth.report.page.write", lambda runs, path, *more: path)


def started(tables: dict[str, Any], out: Path, engine: str, spoilt: float) -> str:
    """Run an experiment whose first trial has one start weight that is `spoilt`; what is printed."""
    experiment = resolve(tables)
    model = build(experiment.model, (1, 6, 6), 4)
    start = draw(model, generator(experiment.seed, 1, "start"), None)
    start[next(name for name in start if name.endswith("weight"))][0, 0] = spoilt
    runs.open_run(out, experiment)
    atomic.write_file(out / layout.start_name(1), save_tensors(start, {"trial": 1}))
    text = io.StringIO()
    lth.run(
        tables, out=out, engine=engine, workers=2 if engine == "native" else 1, console=Console(file=text, width=200)
    )
    return text.getvalue()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("spoilt", [math.nan, math.inf])
def test_a_loss_that_is_no_number_ends_its_trunk_and_the_others_go_on(
    engine: str, spoilt: float, tiny: dict[str, Any], tmp_path: Path
) -> None:
    tiny |= {"trials": 3, "branch": [{"name": "reinit"}]}
    said = started(tiny, tmp_path / "run", engine, spoilt)
    table = tables.load(tmp_path / "run").summary
    status = dict(zip(zip(table["trial"], table["level"], table["branch"], strict=True), table["status"], strict=True))
    assert {place: status[place] for place in status if place[0] == 1} == {(1, 0, "ticket"): "diverged"}
    others = {
        (t, level, b) for t in (2, 3) for level in (0, 1, 2) for b in ("ticket", "reinit-1") if level or b == "ticket"
    }
    assert {place for place in status if place[0] > 1} == others
    assert {status[place] for place in others} == {"done"}
    assert "trial 1 level 0 ticket: 100.00% of weights, diverged: its loss is not finite at iteration 1" in said
    assert "[11/11]" in said  # what cannot happen is not waited for


@pytest.mark.parametrize("engine", ENGINES)
def test_a_training_that_diverges_on_the_way_says_when(engine: str, tiny: dict[str, Any], tmp_path: Path) -> None:
    tiny["recipe"] |= {"optimizer": "sgd", "lr": 1e30}
    text = io.StringIO()
    lth.run(tiny, out=tmp_path / "run", engine=engine, workers=1, console=Console(file=text, width=200))
    table = tables.load(tmp_path / "run").summary
    assert list(table["status"]) == ["diverged"] and list(table["iterations"]) < [40]
    assert "diverged: its loss is not finite at iteration " in text.getvalue()


class Falling:
    """An engine whose losses are told beforehand: split -> loss by evaluation."""

    def __init__(self, **losses: list[float]) -> None:
        self.losses, self.iteration = {name: iter(values) for name, values in losses.items()}, 0

    def advance(self, until: int) -> None:
        self.iteration = until

    def evaluate(self, split: str) -> tuple[float, float]:
        return next(self.losses[split], 1.0), 0.5

    def weights(self) -> dict[str, torch.Tensor]:
        return {"w": torch.tensor([float(self.iteration)])}

    def set_weights(self, weights: Mapping[str, torch.Tensor]) -> None: ...

    def state(self) -> dict[str, torch.Tensor]:
        return {}

    def restore(self, state: Mapping[str, torch.Tensor], iteration: int) -> None: ...


RECIPE = Recipe(lr=0.1, iterations=4, eval_every=1, train_accuracy=False)


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
@pytest.mark.parametrize("split", ["validation", "test"])
def test_the_first_loss_that_is_no_number_is_the_last(split: str, wrong: float) -> None:
    losses = {"validation": [0.9, 0.8, 0.7, 0.6], "test": [1.0, 1.0, 1.0, 1.0]}
    losses[split][2] = wrong
    outcome = train(Falling(**losses), RECIPE)
    assert outcome.summary["status"] == "diverged"
    assert [row.iteration for row in outcome.curve] == [1, 2, 3] and outcome.summary["iterations"] == 3
    assert outcome.summary["early_stop_iteration"] == (2 if split == "validation" else 3)


def test_a_level_at_chance_is_pointed_out(tiny: dict[str, Any], tmp_path: Path) -> None:
    tiny |= {"trials": 2}
    tiny["recipe"] |= {"lr": 1e-9, "optimizer": "sgd"}
    tiny["model"]["init_sigma"] = 1e-12  # nothing is ever learned: the answer is always the same
    text = io.StringIO()
    lth.run(tiny, out=tmp_path / "run", engine="torch", workers=1, console=Console(file=text, width=200))
    assert "all tickets of levels 0, 1, 2; these networks learned nothing" in " ".join(text.getvalue().split())
    found = tables.load(tmp_path / "run")
    assert statistics.at_chance(found) == [0, 1, 2]
    assert any(line.startswith("At chance (about ") for line in words.state(found))


def test_what_learns_is_not_at_chance(tiny: dict[str, Any], tmp_path: Path) -> None:
    tiny["recipe"]["iterations"] = 300
    lth.run(tiny | {"levels": 1}, out=tmp_path / "run", engine="torch", workers=1, console=Console(quiet=True))
    found = tables.load(tmp_path / "run")
    assert found.environment and found.environment["data"]["test_examples"] == 100
    assert statistics.at_chance(found) == [] and captions.format_at_chance(found) == []
    one_good = found.summary.assign(test_accuracy_at_early_stop=[0.2, 0.9])
    assert statistics.at_chance(records.Records(found.folder, found.experiment, one_good, found.curves)) == []
    assert statistics.at_chance(
        records.Records(found.folder, found.experiment, one_good, found.curves, found.environment)
    ) == [0]
