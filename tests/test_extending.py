"""Each kind of extension: one function, one entry. The examples are those of docs/extending.md."""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import lth
from lth.config import registry
from lth.config.registry import Control, Entry, Measure, RecipePart, Rule, Score
from lth.execution.executors import Executor
from lth.execution.executors import local as local_executor
from lth.measures import tables as measures
from lth.pruning import masks
from lth.training.optimizers import Optimizer
from stored_runs import ticket

pytestmark = pytest.mark.usefixtures("one_thread")
PAGE = (Path(__file__).parents[1] / "docs" / "extending.md").read_text(encoding="utf-8")
EXAMPLES = {re.findall(r"def (\w+)\(", code)[0]: code for code in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)}


@pytest.fixture
def my(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's file with every example of the page."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "my.py"
    path.write_text("\n".join(EXAMPLES.values()))
    return path


def test_the_page_has_an_example_of_each_kind_that_a_file_can_extend() -> None:
    assert [*EXAMPLES] == ["score", "rule", "signs", "build"]


def test_a_score_with_gradients_from_a_file(tiny: dict[str, Any], my: Path) -> None:
    tiny["prune"] = {"score": "my.py:score", "rate": 0.5}
    run = lth.run(tiny, levels=1, out="run", pictures=False, workers=1)
    by_magnitude = lth.run(tiny, {"prune.score": "magnitude"}, levels=1, out="plain", pictures=False, workers=1)
    assert ticket(run.folder, 1).density == ticket(by_magnitude.folder, 1).density
    assert masks.overlap(ticket(run.folder, 1).mask, ticket(by_magnitude.folder, 1).mask) < 0.9
    my.write_text(my.read_text() + "\n")
    with pytest.raises(lth.UsageError, match=r"my\.py has changed since"):
        lth.run(Path("run/experiment.toml"), levels=2, out="run", pictures=False)


def test_the_scored_model_has_the_whole_trained_state(tiny: dict[str, Any], tmp_path: Path, my: Path) -> None:
    """Biases too, which are no scored weights: the loss of the scored model is that of the trained one."""
    my.write_text(
        "import torch\n"
        "def score(model, weights, batches, loss):\n"
        "    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}\n"
        f"    torch.save(state, {str(tmp_path / 'scored.pt')!r})\n"
        "    return {name: weight.abs() for name, weight in weights.items()}\n"
    )
    run = lth.run(tiny | {"prune": {"score": "my.py:score"}}, levels=1, out="run", pictures=False, workers=1)
    from lth.storage.tensors import load_tensors

    trained = load_tensors((run.folder / "trial-1/level-00/trained.safetensors").read_bytes())
    scored = torch.load(tmp_path / "scored.pt", weights_only=True)
    assert all(torch.equal(scored[name], tensor) for name, tensor in trained.items())


def test_a_mask_rule_and_a_start_rule_from_a_file(tiny: dict[str, Any], my: Path) -> None:
    tiny["branch"] = [
        {"name": "inverted", "mask": "my.py:rule", "start": "trial"},
        {"name": "signs", "mask": "ticket", "start": "my.py:signs"},
    ]
    run = lth.run(tiny, levels=1, out="run", pictures=False, workers=1)
    whole, inverted, signs = (
        ticket(run.folder, 0),
        ticket(run.folder, 1, "inverted-1"),
        ticket(run.folder, 1, "signs-1"),
    )
    assert inverted.density == signs.density == ticket(run.folder, 1).density
    for name, layer in inverted.mask.items():
        size = whole.start[name].abs()
        if 0 < int(layer.sum()) < layer.numel():
            assert size[layer].max() <= size[~layer].min()
    for name, layer in signs.mask.items():
        assert torch.equal(signs.start[name][layer].sign(), whole.start[name][layer].sign())
        assert not torch.equal(signs.start[name], ticket(run.folder, 1).start[name])


def test_a_model_from_a_file(tiny: dict[str, Any], my: Path) -> None:
    tiny["model"] = {"name": "my.py:build"}
    run = lth.run(tiny, levels=1, out="run", pictures=False, workers=1)
    assert [tuple(layer.shape) for layer in ticket(run.folder, 1).mask.values()] == [(16, 36), (4, 16)]


def test_two_of_every_four_inputs_survive(tiny: dict[str, Any], tmp_path: Path) -> None:
    tiny["prune"] = {"structure": "2:4", "densities": [0.75, 0.5], "output_factor": 1}
    run = lth.run(tiny, levels=2, out=tmp_path / "run", pictures=False, workers=1)
    for layer in ticket(run.folder, 2).mask.values():
        assert (layer.unflatten(1, (-1, 4)).sum(2) == 2).all()
    with pytest.raises(lth.UsageError, match=r"the structure keeps the others"):
        lth.run(tiny, {"prune.densities": [0.4]}, levels=1, out=tmp_path / "more", pictures=False)


# ------------------------------------------------------------------------------- built in: a module, and one entry


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A module of lth as an extension would bring it."""
    module = types.ModuleType("lth_added")
    monkeypatch.setitem(sys.modules, "lth_added", module)
    return module


def test_a_score_a_mask_rule_a_start_rule_and_a_branch_are_an_entry_each(
    tiny: dict[str, Any], tmp_path: Path, added: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    added.score = lambda weights: {name: -weight.abs() for name, weight in weights.items()}
    added.whole = lambda mask: {name: torch.ones_like(layer) for name, layer in mask.items()}
    added.zero = lambda start: {name: torch.zeros_like(tensor) for name, tensor in start.items()}
    monkeypatch.setitem(registry.SCORES, "largest", Score("the largest go first", "lth_added:score"))
    rule = Rule("nothing pruned", "lth_added:whole", reads=("mask",), control=True)
    monkeypatch.setitem(registry.MASK_RULES, "whole", rule)
    monkeypatch.setitem(registry.START_RULES, "zero", Rule("all zeros", "lth_added:zero", control=True))
    monkeypatch.setitem(registry.BRANCHES, "nothing", Control("a control", mask="whole", start="zero"))
    run = lth.run(tiny, {"prune.score": "largest"}, levels=1, branches="nothing", out=tmp_path / "run", pictures=False)
    assert ticket(run.folder, 1, "nothing-1").density == 1
    assert not any(tensor.any() for tensor in ticket(run.folder, 1, "nothing-1").start.values())
    with pytest.raises(lth.UsageError, match=r"did you mean 'largest'"):
        lth.run(tiny, {"prune.score": "largst"})


def test_an_optimizer_and_a_schedule_are_an_entry_each(
    tiny: dict[str, Any], tmp_path: Path, added: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign = lambda recipe, lr, count, values, gradients, moments: [
        value.sub_(lr * gradient.sign()) for value, gradient in zip(values, gradients, strict=True)
    ]
    make = lambda recipe, parameters, fused: torch.optim.Rprop(parameters, lr=recipe.lr)
    added.signed = Optimizer(moments=(), make=make, step=sign)
    added.halves = lambda recipe, update: 0.5
    monkeypatch.setitem(registry.OPTIMIZERS, "signed", RecipePart("the gradient's signs", "lth_added:signed"))
    monkeypatch.setitem(registry.SCHEDULES, "halves", RecipePart("half the rate", "lth_added:halves"))
    asked = {"recipe.optimizer": "signed", "recipe.schedule": "halves"}
    run = lth.run(tiny, asked, levels=0, out=tmp_path / "run", pictures=False, workers=1)
    assert run.summary["engine"].tolist() == ["torch"]  # the native engine states that it does not know it
    assert run.summary["status"].tolist() == ["done"]


def test_a_measure_is_an_entry(
    tiny: dict[str, Any], tmp_path: Path, added: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def levels(folder: Path, experiment: Any, stored: Any) -> pd.DataFrame:
        return pd.DataFrame({"level": range(experiment.levels + 1), "trial": 1})

    added.levels = levels
    monkeypatch.setitem(registry.MEASURES, "levels", Measure("the levels", "lth_added:levels"))
    run = lth.run(tiny, levels=1, out=tmp_path / "run", pictures=False, workers=1)
    path = measures.compute("levels", run.folder)
    assert path == run.folder / "measures" / "levels.csv"
    assert path.read_text() == "level,trial\n0,1\n1,1\n"


def test_an_executor_is_an_entry(
    tiny: dict[str, Any], tmp_path: Path, added: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    @contextmanager
    def executor(name: str) -> Iterator[Executor]:
        with local_executor.executor() as here:

            @contextmanager
            def recorded(job: Any) -> Iterator[Any]:
                with here.open(job) as workers:
                    do = lambda training: (done.append(training.id), workers.do(training))[1]
                    yield type(workers)(do, workers.news, workers.stop)

            yield Executor(here.choose, lambda resources: 1, recorded)

    added.executor = executor
    monkeypatch.setitem(registry.EXECUTORS, "recorded", Entry("this machine, with a record", "lth_added:executor"))
    lth.run(tiny, levels=1, out=tmp_path / "run", pictures=False, executor="recorded")
    assert done == ["trial-1/level-00", "trial-1/level-01"]
