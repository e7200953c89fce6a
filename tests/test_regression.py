"""Regression: data.task = "regression", from the file to the figures."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss

import lth
from lth import config, data
from lth.data.splits import split
from lth.errors import UsageError
from lth.execution import setup
from lth.execution.resources import choose
from lth.report import charts
from lth.results import captions, intervals, metrics, plots, sentences, serialize, statistics, tables, verdict
from lth.results.metrics import ACCURACY, LOSS
from lth.results.records import LOSSES, PLACE, REACHED
from lth.results.verdict import Verdict
from lth.training.batches import batches
from lth.training.losses import REGRESSION
from lth.training.torch_engine import TorchEngine, prepare

pytestmark = pytest.mark.usefixtures("one_thread")
QUIET = Console(quiet=True)


def teacher(shape: tuple[int, ...] = (3,), examples: int = 240) -> dict[str, np.ndarray]:
    """A linear teacher with noise: targets of `shape` from 6 features; the last 40 examples are the test set."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(examples, 6)).astype(np.float32)
    y = (x @ rng.normal(size=(6, int(np.prod(shape)))) + 0.1 * rng.normal(size=(examples, int(np.prod(shape))))).astype(
        np.float32
    )
    y = y.reshape(examples, *shape)
    return {"x_train": x[:-40], "y_train": y[:-40], "x_test": x[-40:], "y_test": y[-40:]}


def experiment_of(path: Path, arrays: dict[str, np.ndarray], **tables: Any) -> dict[str, Any]:
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return {
        "name": "numbers",
        "trials": 1,
        "levels": 2,
        "data": {"name": str(path), "task": "regression", "validation": 60},
        "model": {"name": "lenet", "layers": [12, 8]},
        "recipe": {"optimizer": "adam", "lr": 0.01, "iterations": 44, "batch": 30, "eval_every": 2, "report_at": [11]},
    } | tables


@pytest.fixture
def numbers(tmp_path: Path) -> dict[str, Any]:
    return experiment_of(tmp_path / "numbers.npz", teacher())


# ---------------------------------------------------------------------------------------------------------- a whole run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("regression")
    given = experiment_of(folder / "numbers.npz", teacher(), trials=2, branch=[{"name": "reinit", "count": 1}])
    text = io.StringIO()
    lth.run(given, out=folder / "run", workers=1, console=Console(file=text, width=160))
    return folder / "run", text.getvalue()


def test_the_loss_takes_the_place_of_the_accuracy(run: Any) -> None:
    folder, text = run
    found = tables.load(folder)
    accuracies = [name for name in found.summary if "accuracy" in name]
    assert len(accuracies) == 8 and found.summary[accuracies].isna().all(axis=None)
    assert found.curves[["val_accuracy", "test_accuracy"]].isna().all(axis=None)
    losses = [*LOSSES, "test_loss_at_11", "val_loss_at_11", "val_loss_at_early_stop"]
    assert found.summary[losses].notna().all(axis=None)
    last = found.curves.loc[found.curves["iteration"] == 44]
    assert last["test_loss"].tolist() == found.summary["final_test_loss"].tolist()
    best = found.curves.merge(found.summary, on=list(PLACE), suffixes=("", "_last"))
    best = best.loc[best["iteration"] == best["early_stop_iteration"]]
    assert best["test_loss"].tolist() == pytest.approx(best["test_loss_at_early_stop"].tolist(), rel=1e-6)
    assert "engine torch" in text and "data.task is regression" in text
    assert "loss on the test set at early stop" in text and "accuracy" not in text


def test_its_figures_and_report(run: Any) -> None:
    folder, _ = run
    names = {path.stem for path in (folder / "figures").glob("*.png")}
    assert {"overview", "test-loss-at-early-stop", "final-test-loss", "train-loss"} <= names
    assert {"test-loss-at-iterations", "test-loss-by-iteration", "early-stop-iteration"} <= names
    assert not any("accuracy" in name for name in names)
    found = tables.load(folder)
    drawn = charts.by_density([found])
    assert [chart.id for chart, _ in drawn] == ["loss", "early-stop", "seconds"]
    assert drawn[0][0].about == "Mean squared error; lower is better."
    assert {"test_loss_at_early_stop", "final_test_loss", "test_loss_at_11"} <= {*drawn[0][1]}
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "Mean squared error; lower is better." in page and "test accuracy" not in page


def test_what_repeats_it_says_so(run: Any) -> None:
    folder, _ = run
    assert config.resolve(folder / "experiment.toml").data.task == "regression"
    ticket = lth.Run(folder).ticket(1)
    assert ticket.origin["classes"] == 3
    assert "<td>" in lth.Run(folder)._repr_html_() and "loss" in lth.Run(folder)._repr_html_()


def test_it_resumes_from_a_checkpoint(numbers: dict[str, Any], tmp_path: Path) -> None:
    whole = lth.run(numbers, out=tmp_path / "whole", workers=1, console=QUIET).summary
    lth.run(numbers | {"levels": 0}, out=tmp_path / "parts", workers=1, console=QUIET)
    parts = lth.run(numbers, out=tmp_path / "parts", workers=1, console=QUIET).summary
    pd.testing.assert_frame_equal(whole.drop(columns="seconds"), parts.drop(columns="seconds"))


# --------------------------------------------------------------------------------------------------- the right numbers


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_losses_are_those_of_torch(shape: tuple[int, ...], tmp_path: Path) -> None:
    experiment = config.resolve(experiment_of(tmp_path / "n.npz", teacher(shape)))
    loaded = data.load(experiment.data.name, task="regression")
    values = int(np.prod(shape))
    assert loaded.classes == values and loaded.train_y.shape == (200, values)
    splits = split(loaded, 60, 1)
    resources, _ = choose(experiment, (6,), values, "auto", "cpu")
    made = setup.setup_of(experiment, resources, tmp_path, (6,), values, splits)
    model, plain = made.model(), made.model()
    start = made.draw(torch.Generator().manual_seed(1))
    plain.load_state_dict(start)
    key = ("key",)
    engine = TorchEngine(model, start, {}, experiment.recipe, prepare(splits, "cpu"), key, "cpu", objective=REGRESSION)
    optimizer = torch.optim.Adam(plain.parameters(), lr=0.01)
    losses = []
    for batch in batches(key, 140, 30, 0, 12):
        loss = mse_loss(plain(splits.train_x[batch]), splits.train_y[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert [float(loss) for loss in engine.advance(12)] == pytest.approx(losses, rel=1e-5)
    for part, x, y in (("test", splits.test_x, splits.test_y), ("train", splits.train_x, splits.train_y)):
        loss, accuracy = engine.evaluate(part)
        assert accuracy is None and loss == pytest.approx(mse_loss(plain(x), y).item(), rel=1e-5)


def test_classification_is_trained_and_written_as_before(tiny: dict[str, Any], tmp_path: Path) -> None:
    experiment = config.resolve(tiny)
    assert "task" not in json.dumps(experiment.leading_to(1))
    again = config.resolve(tiny | {"data": tiny["data"] | {"task": "classification"}})
    assert experiment.digest(2) == again.digest(2)
    assert config.resolve("lenet").digest(0) == config.resolve("lenet", {"data.task": "classification"}).digest(0)
    made = lth.run(tiny, out=tmp_path / "run", engine="torch", workers=1, console=QUIET)
    assert not {*LOSSES} & {*made.summary.columns}
    assert made.summary["test_accuracy_at_early_stop"].notna().all()
    row = json.loads((tmp_path / "run/trial-1/level-00/summary.json").read_text())
    assert not {*LOSSES} & {*row}
    assert setup.TASKS["classification"].load().mean is cross_entropy


def test_what_a_constant_answer_scores(numbers: dict[str, Any], tmp_path: Path) -> None:
    numbers["recipe"] |= {"lr": 1e-9, "optimizer": "sgd"}
    lth.run(numbers | {"model": {"name": "lenet", "layers": [4], "init_sigma": 1e-9}}, out=tmp_path / "run", workers=1,
            console=QUIET)  # fmt: skip
    found, arrays = tables.load(tmp_path / "run"), teacher()
    expected = ((arrays["y_test"] - arrays["y_train"].mean(0)) ** 2).mean()
    assert found.environment and found.environment["data"]["chance"] == pytest.approx(float(expected), rel=1e-6)
    learned = found.summary.assign(test_loss_at_early_stop=[0.5 * expected, 1.1 * expected, 0.99 * expected])
    again = tables.Records(found.folder, found.experiment, learned, found.curves, found.environment)
    assert statistics.at_chance(again) == [1, 2]
    assert captions.format_at_chance(again)[0].startswith("as high as that of a constant answer (test loss ")


# ---------------------------------------------------------------------------------------------------------- the verdict


def judged(levels: dict[tuple[int, str], list[tuple[float, float]]], recipe: Any = None) -> Verdict:
    """Of early stops and test losses of each trial at each (level, branch)."""
    rows = [
        {"trial": trial, "level": level, "branch": branch, "density": 0.8**level, "weights": 100, "status": "done",
         "early_stop_iteration": stop, REACHED: True, LOSS.at_early_stop: loss, LOSS.final: loss}
        for (level, branch), results in levels.items()
        for trial, (stop, loss) in enumerate(results, start=1)
    ]  # fmt: skip
    return verdict.judge(pd.DataFrame(rows), recipe or config.resolve("lenet").recipe, LOSS)


DENSE = [(1000, 0.40), (1010, 0.42), (990, 0.41)]


def scaled(factor: float, by: float = 1.0) -> list[tuple[float, float]]:
    return [(by * stop, factor * loss) for stop, loss in DENSE]


def test_the_winning_level_has_no_higher_loss() -> None:
    levels = {(0, "ticket"): DENSE, (1, "ticket"): scaled(0.9), (2, "ticket"): scaled(1.0), (3, "ticket"): scaled(1.04)}
    assert judged(levels).winning == 2
    assert judged(levels).matching == 3  # within 5%
    assert judged(levels | {(3, "ticket"): scaled(1.06)}).matching == 2
    assert judged(levels | {(2, "ticket"): scaled(1.001)}).winning == 1
    assert judged(levels | {(2, "ticket"): scaled(0.9, by=1.1)}).winning == 1  # later


def test_it_does_not_depend_on_the_unit_of_the_targets() -> None:
    small = {
        (level, "ticket"): [(stop, 1e-12 * loss) for stop, loss in scaled(factor)]
        for level, factor in ((0, 1.0), (1, 0.9), (2, 1.001))
    }
    found = judged(small)
    assert found.winning == 1 and found.levels[0].contrast.score == "better"
    assert found.levels[1].contrast.score == "equal"


def test_its_answers_and_sentences() -> None:
    noisy = [(900, 0.30), (905, 0.34), (910, 0.31)]
    found = judged({(0, "ticket"): DENSE, (1, "ticket"): noisy, (1, "reinit"): scaled(1.3)})
    contrast = found.levels[0].contrast
    assert (contrast.score, found.winning) == ("better", 1)
    assert contrast.gain.value == pytest.approx(1 - 0.95 / 1.23)
    quotient = intervals.quotient([loss for _, loss in noisy], [loss for _, loss in DENSE])
    assert [contrast.gain.low, contrast.gain.high] == pytest.approx([1 - quotient.high, 1 - quotient.low])
    text = sentences.evidence(found)
    assert "test loss 22.8% lower (95% interval " in text
    assert "of level 0" not in text and "accura" not in " ".join([text, *sentences.remarks(found)])
    (control,) = found.controls
    back = LOSS.reversed(control.contrast.gain)
    assert back.value == pytest.approx(1 - 1.3 * 1.23 / 0.95)
    assert "test loss 68.3% higher" in sentences.control(control, found)
    assert "2% of the loss" in sentences.method(found)[0]
    assert "within 5% of the whole network's loss" in sentences.matching(found)


def test_no_level_wins() -> None:
    found = judged({(0, "ticket"): DENSE, (1, "ticket"): scaled(1.5)})
    assert sentences.conclusion(found) == (
        "No winning level: no ticket is, on average, both as early and as low in loss as the whole network."
    )
    assert sentences.evidence(found).startswith("The only level: ")
    assert serialize.as_json(found)["judged_by"] == "early stop and loss there"
    assert serialize.as_json(found)["levels"][0]["losses"] == pytest.approx([0.615, 0.41])
    one = judged({(0, "ticket"): DENSE[:1], (1, "ticket"): scaled(0.5)[:1]})
    assert "test loss 0.2 (the whole network 0.4)" in " ".join(sentences.evidence(one).split())


def test_a_loss_of_exactly_0_breaks_nothing() -> None:
    found = judged({(0, "ticket"): [(9, 0.0), (9, 0.0)], (1, "ticket"): [(9, 0.0), (9, 0.0)], (2, "ticket"): DENSE[:2]})
    assert found.winning == 1 and found.matching == 1
    assert sentences.headline(found)


def test_gains_are_exchanged_as_quotients() -> None:
    gain = LOSS.gain([0.5, 0.6], [1.0, 1.0])
    assert LOSS.reversed(gain).value == pytest.approx(LOSS.gain([1.0, 1.0], [0.5, 0.6]).value)
    assert LOSS.reversed(gain).low == pytest.approx(LOSS.gain([1.0, 1.0], [0.5, 0.6]).low)
    difference = ACCURACY.gain([0.5, 0.6], [0.9, 0.9])
    assert ACCURACY.reversed(difference).value == pytest.approx(0.35)


def test_every_task_has_a_metric() -> None:
    assert {task.metric for task in config.TASKS.values()} <= {*metrics.METRICS}
    assert all(name == metric.name for name, metric in metrics.METRICS.items())


def test_outlying_losses_are_cut_at_the_top() -> None:
    from matplotlib.figure import Figure

    from lth.results.panels import focus
    from lth.results.series import Series

    x = np.arange(14.0)
    mean = np.r_[np.linspace(0.1, 0.12, 13), 9.0]
    axes = Figure().subplots()
    assert focus(axes, [Series("ticket", x, mean, mean, mean)], falling=True) == 9.0
    assert axes.get_ylim()[1] < 1 and axes.get_ylim()[0] <= 0.1
    assert "above the axis, the highest 9." in captions.explain([1], [9.0], metric=LOSS)
    assert plots.BY_DENSITY["overview"][1] == "test_accuracy_at_early_stop"


# --------------------------------------------------------------------------------------------------------- wrong inputs


def with_(**changed: np.ndarray) -> dict[str, np.ndarray]:
    return teacher() | changed


def nan_at(y: np.ndarray, *place: int) -> np.ndarray:
    y = y.copy()
    y[place] = np.nan
    return y


Y = teacher()["y_train"]
REFUSED = {
    "nan": (with_(y_train=nan_at(Y, 7, 2)), "n: y_train holds nan at [7, 2], expected finite numbers"),
    "inf": (with_(y_test=np.full((40, 3), np.inf)), "n: y_test holds inf at [0, 0], expected finite numbers"),
    "too large": (with_(y_train=np.full((200, 3), 1e300)), "n: y_train holds inf at [0, 0]"),
    "classes": (
        with_(y_train=np.arange(200), y_test=np.arange(40)),
        "n: y_train is of type int64: if it holds classes, leave out data.task=regression; else "
        "y_train.astype('float32')",
    ),
    "text": (with_(y_train=np.full(200, "a")), "n: y_train holds text, which is for data.task=classification"),
    "fewer": (with_(y_train=Y[:50]), "n: y_train has shape (50, 3), expected (200, ...): a target for each example"),
    "other shapes": (with_(y_test=np.zeros((40, 2))), "n: y_train has shape (200, 3), y_test (40, 2); expected the"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_targets_that_are_none(case: str, tmp_path: Path) -> None:
    arrays, message = REFUSED[case]
    given = experiment_of(tmp_path / "n.npz", arrays)
    with pytest.raises(UsageError) as refused:
        lth.run(given, out=tmp_path / "run", workers=1, console=QUIET)
    assert message in str(refused.value)


def test_numbers_as_classes_are_pointed_to_regression(tmp_path: Path) -> None:
    given = experiment_of(tmp_path / "n.npz", teacher(()))
    del given["data"]["task"]
    with pytest.raises(UsageError, match=r"y_train is of type float32.*; for targets that are numbers, data.task=regr"):
        lth.run(given, out=tmp_path / "run", workers=1, console=QUIET)


def test_what_has_classes_is_no_regression(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"data.task: the targets of mnist are classes"):
        config.resolve("lenet", ["data.task=regression"])
    with pytest.raises(UsageError, match="did you mean 'regression'"):
        config.resolve("lenet", ["data.name=a.npz", "data.task=regresion"])
    with pytest.raises(UsageError, match=r"data.classes: it is for data.task=classification"):
        config.resolve("lenet", ["data.name=a.npz", "data.task=regression", 'data.classes=["a","b"]'])
    (tmp_path / "photos").mkdir()
    with pytest.raises(UsageError, match=r"data.task=regression: the targets of a folder of images"):
        data.load(tmp_path / "photos", task="regression")


def test_the_task_follows_the_data(numbers: dict[str, Any]) -> None:
    assert config.resolve(numbers, ["data.name=other.npz"]).data.task == "regression"
    assert config.resolve(numbers, ["data.name=mnist"]).data.task == "classification"


def test_the_native_engine_is_refused(numbers: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--engine native: data.task is regression; give --engine torch"):
        lth.run(numbers, out=tmp_path / "run", engine="native", console=QUIET)


# -------------------------------------------------------------------------------------------------------- custom models

MODEL = """
from torch import nn

def build(shape, outputs):
    return nn.Sequential(nn.Linear(shape[0], 20), nn.ReLU(), nn.Linear(20, outputs){tail})
"""


@pytest.mark.parametrize(
    ("shape", "tail"), [((2, 3), ", nn.Unflatten(1, (2, 3))"), ((), ", nn.Flatten(0)"), ((3,), "")]
)
def test_custom_models_may_have_the_shape_of_the_targets(
    shape: tuple[int, ...], tail: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my.py").write_text(MODEL.replace("{tail}", tail))
    given = experiment_of(tmp_path / "n.npz", teacher(shape), levels=0) | {"model": {"name": "my.py:build"}}
    given["recipe"] |= {"iterations": 150, "lr": 0.02}
    made = lth.run(given, out=tmp_path / "run", workers=1, console=QUIET)
    assert (made.summary["final_test_loss"] < 0.3 * made_chance(tmp_path / "run")).all()


def made_chance(folder: Path) -> float:
    return json.loads((folder / "environment.json").read_text())["data"]["chance"]


def test_classes_need_outputs_of_two_dimensions(
    tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my.py").write_text(
        "from torch import nn\n"
        "def build(): return nn.Sequential(nn.Flatten(), nn.Linear(36, 4), nn.Unflatten(1, (4, 1)))\n"
    )
    with pytest.raises(UsageError, match=r"to \(2, 4, 1\), expected \(2, 4\)"):
        lth.run(tiny | {"model": {"name": "my.py:build"}}, out=tmp_path / "run", workers=1, console=QUIET)


# ---------------------------------------------------------------------------------------------------------- from Python


def test_tickets_match_by_the_share_of_the_loss() -> None:
    x = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
    y = 100 * x[:, :2]
    model = nn.Sequential(nn.Linear(4, 20), nn.ReLU(), nn.Linear(20, 2))
    found = lth.find_tickets(model, (x, y), {"lr": 0.01, "iterations": 60, "batch": 20, "eval_every": 2}, levels=2)
    assert found.minus_loss
    dense, *pruned = (-row["score"] for row in found.rows)
    share = max(0.0, pruned[1] / dense - 1)
    assert found.matching(share + 1e-3) is found.tickets[2]
    if share > 1e-3:
        assert found.matching(share - 1e-3) is not found.tickets[2]


# ------------------------------------------------------------------------------------------------- processes of workers


def test_workers_load_what_the_parent_loaded(tiny: dict[str, Any], numbers: dict[str, Any], tmp_path: Path) -> None:
    again = setup.load_again(config.resolve(numbers), None, print)
    assert again.train_y.dtype == np.float32 and again.classes == 3
    arrays = dict(np.load(tiny["data"]["name"]))
    names = np.array(["b", "10", "9", "a"])
    np.savez(tmp_path / "text.npz", **{k: names[v] if k.startswith("y") else v for k, v in arrays.items()})
    tiny["data"] |= {"name": str(tmp_path / "text.npz"), "classes": ["b", "a", "9", "10"]}
    assert setup.load_again(config.resolve(tiny), None, print).class_names == ("b", "a", "9", "10")
