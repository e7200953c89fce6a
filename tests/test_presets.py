"""Every preset: what facts.md says of it, its densities to the printed digit, and a run of it from end to end."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import lth
from lth import config, data, models
from lth.plan import evaluations
from lth.pruning import allocation
from lth.training.schedule import lr_at

LENET = ["lenet", "lenet-continued", "lenet-fashion", "lenet-oneshot"]
CONV = ["conv2", "conv4", "conv6", "conv6-256"]
DROPOUT = ["conv2-dropout", "conv4-dropout", "conv6-dropout"]
DEEP = ["resnet18", "resnet18-lr0.01", "resnet18-warmup", "vgg19", "vgg19-lr0.01", "vgg19-warmup"]


def test_the_papers_experiments_are_all_there() -> None:
    assert {*LENET, *CONV, *DROPOUT, *DEEP} <= set(config.presets())


@pytest.mark.parametrize("name", config.presets())
def test_a_preset_has_its_files_name_and_says_what_it_is(name: str) -> None:
    experiment = config.resolve(name)
    assert experiment.name == name and experiment.about


@pytest.mark.parametrize(
    ("name", "model", "lr", "iterations", "dropout", "conv_rate", "levels"),
    [
        ("conv2", "conv2", 2e-4, 20_000, 0, 0.1, 22),
        ("conv4", "conv4", 3e-4, 25_000, 0, 0.1, 26),
        ("conv6", "conv6", 3e-4, 30_000, 0, 0.15, 26),
        ("conv6-256", "conv6-256", 3e-4, 30_000, 0, 0.15, 26),
        ("conv2-dropout", "conv2", 3e-4, 60_000, 0.5, 0.1, 22),
        ("conv4-dropout", "conv4", 2e-4, 75_000, 0.5, 0.1, 26),
        ("conv6-dropout", "conv6", 2e-4, 90_000, 0.5, 0.15, 26),
    ],
)
def test_conv_presets_are_figure_2(
    name: str, model: str, lr: float, iterations: int, dropout: float, conv_rate: float, levels: int
) -> None:
    found = config.resolve(name)
    recipe, prune = found.recipe, found.prune
    assert (found.model.name, found.model.dropout, found.data.name, found.data.validation) == (
        model, dropout, "cifar10", 5000
    )  # fmt: skip
    assert (recipe.optimizer, recipe.lr, recipe.iterations, recipe.batch) == ("adam", lr, iterations, 60)
    assert (recipe.eval_every, recipe.test_every, recipe.weight_decay, recipe.augment) == (100, 1000, 0, False)
    assert recipe.drops == () and recipe.warmup == 0
    assert (prune.rate, prune.conv_rate, prune.output_factor, prune.scope) == (0.2, conv_rate, 0.5, "layerwise")
    assert (found.trials, found.levels) == (5, levels)
    assert recipe.train_accuracy == (not dropout)  # figures 5 and 13 have it, figure 6 does not
    assert [(b.name, b.count) for b in found.branch] == ([] if dropout else [("reinit", 3)])


@pytest.mark.parametrize(
    ("name", "lr", "warmup", "trials"),
    [
        ("resnet18", 0.1, 0, 5),
        ("resnet18-lr0.01", 0.01, 0, 5),
        ("resnet18-warmup", 0.03, 20_000, 5),
        ("vgg19", 0.1, 0, 5),
        ("vgg19-lr0.01", 0.01, 0, 5),
        ("vgg19-warmup", 0.1, 10_000, 3),
    ],
)
def test_deep_presets_are_figure_2(name: str, lr: float, warmup: int, trials: int) -> None:
    found = config.resolve(name)
    recipe, prune = found.recipe, found.prune
    resnet = name.startswith("resnet")
    assert (recipe.optimizer, recipe.momentum, recipe.weight_decay) == ("momentum", 0.9, 1e-4)
    assert (recipe.lr, recipe.warmup, recipe.augment, recipe.train_accuracy) == (lr, warmup, True, False)
    assert (recipe.iterations, recipe.batch) == ((30_000, 128) if resnet else (112_480, 64))
    assert recipe.drops == ((20_000, 25_000) if resnet else (56_240, 84_360))
    assert recipe.report_at == ((10_000, 20_000, 30_000) if resnet else (30_000, 60_000, 112_000))
    assert (prune.pruned, prune.rate, prune.scope) == (("conv",), 0.2, "global")
    assert (found.trials, found.levels, found.data.validation) == (trials, 15 if resnet else 33, 5000)
    assert [(b.name, b.count) for b in found.branch] == [("reinit", 1)]


def test_deep_presets_see_the_test_set_where_the_paper_does() -> None:
    for name in DEEP:
        recipe = config.resolve(name).recipe
        tested = {iteration for iteration, with_test in evaluations(recipe) if with_test}
        assert tested == {1, *recipe.report_at, recipe.iterations}
        assert len(evaluations(recipe)) < 70


def test_160_epochs_of_vgg19() -> None:
    recipe = config.resolve("vgg19").recipe
    epoch = 45_000 // recipe.batch
    assert (recipe.iterations, *recipe.drops) == (160 * epoch, 80 * epoch, 120 * epoch)


USUAL, DEVIATION = (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)  # of CIFAR-10, channel by channel


def test_how_inputs_are_scaled() -> None:
    """Facts 1.4: the paper does not say; results/README.md has what was tried."""
    for name in config.presets():
        found = config.resolve(name)
        scaled = {
            "lenet": ((), ()),  # pixels from 0 to 1
            "conv": ((0.0,) * 3, (1 / 255,) * 3),  # bytes
            "resnet": (USUAL, DEVIATION),
            "vgg": (USUAL, DEVIATION),
            "vit": (USUAL, DEVIATION),
        }
        family = next(family for family in scaled if found.model.name.startswith(family))
        assert (found.data.mean, found.data.std) == scaled[family], name


# Schedules


def test_warmup_rises_linearly_to_the_learning_rate_and_a_drop_follows_at_once() -> None:
    recipe = config.resolve("resnet18-warmup").recipe
    assert lr_at(recipe, 0) == pytest.approx(0.03 / 20_000)  # the first update's share: 0 is before it
    assert lr_at(recipe, 9_999) == pytest.approx(0.015)
    assert lr_at(recipe, 19_999) == pytest.approx(0.03)
    assert [lr_at(recipe, n) for n in (20_000, 24_999, 25_000, 29_999)] == pytest.approx([3e-3, 3e-3, 3e-4, 3e-4])


def test_drops_of_vgg19() -> None:
    recipe = config.resolve("vgg19-warmup").recipe
    at = [lr_at(recipe, n) for n in (999, 9_999, 56_239, 56_240, 84_359, 84_360)]
    assert at == pytest.approx([0.01, 0.1, 0.1, 0.01, 0.01, 0.001])
    plain = config.resolve("vgg19").recipe
    assert lr_at(plain, 0) == 0.1


# Densities


PRINTED = {  # facts 1.2: level -> percent of weights remaining, as printed
    "lenet": {3: 51.28, 7: 21.07, 9: 13.52, 12: 6.95, 15: 3.58, 16: 2.87, 18: 1.85, 21: 0.96},
    "conv2": {11: 8.81, 14: 4.57, 18: 1.93, 22: 0.83},
    "conv4": {11: 11.06, 12: 9.18, 21: 2.01},
    "conv6": {7: 26.42, 10: 15.14, 21: 2.09},
    "conv6-256": {7: 26.61, 10: 15.29},
    "resnet18": {4: 41.66, 6: 27.09, 7: 21.91, 10: 11.79, 14: 5.53, 15: 4.66},
    "vgg19": {4: 40.98, 7: 20.99, 12: 6.90, 15: 3.54, 19: 1.47, 33: 0.09},
}
TICKS = {  # the axes of figures 5 and 13: every third level, in tenths of a percent
    "conv6": [100, 56.2, 31.9, 18.2, 10.5, 6.1, 3.6, 2.1, 1.2],
}


def percent_remaining(name: str) -> list[float]:
    experiment = config.resolve(name)
    model = models.build(experiment.model, (1, 28, 28) if name == "lenet" else (3, 32, 32), 10)
    parameters = dict(model.named_parameters())
    groups = models.groups(model)
    remaining = allocation.ladder({layer: parameters[layer].numel() for layer in groups}, groups, experiment)
    return [100 * weights / remaining[0] for weights in remaining]


@pytest.mark.parametrize("name", PRINTED)
def test_densities_are_the_papers_to_the_printed_digit(name: str) -> None:
    percent = percent_remaining(name)
    assert {level: round(percent[level], 2) for level in PRINTED[name]} == PRINTED[name]


@pytest.mark.parametrize("name", TICKS)
def test_densities_are_those_on_the_axes(name: str) -> None:
    assert [round(percent, 1) for percent in percent_remaining(name)[::3]] == TICKS[name]


@pytest.mark.parametrize("name", ["conv2", "conv6"])
def test_variants_go_down_the_same_ladder(name: str) -> None:
    assert percent_remaining(f"{name}-dropout") == percent_remaining(name)


# From end to end


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten classes of 32 x 32 images in colour, in the place of CIFAR-10."""
    path = tmp_path_factory.mktemp("photographs") / "small.npz"
    draw = np.random.default_rng(0)
    labels = np.arange(60) % 10
    images = draw.integers(0, 100, (60, 32, 32, 3)) + 15 * labels[:, None, None, None]
    images = images.astype(np.uint8)
    np.savez(path, x_train=images[:45], y_train=labels[:45], x_test=images[45:], y_test=labels[45:])
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A run's folder that does not stay: a VGG-19 takes 80 MB each time it is written."""
    yield tmp_path / "run"
    shutil.rmtree(tmp_path / "run", ignore_errors=True)


def short(preset: str, folder: Path, path: Path, **options: Any) -> pd.DataFrame:
    """Three updates a training of a preset on other data."""
    recipe = config.resolve(preset).recipe
    settings = {"data.name": str(path), "data.validation": 10, "recipe.batch": 7}
    run = lth.run(
        preset, settings, scale=3 / recipe.iterations, out=folder, engine="torch", workers=1, trials=1, **options
    )
    return run.summary


@pytest.mark.parametrize("preset", [*CONV, *DROPOUT, *DEEP, "vit"])
def test_every_preset_runs(preset: str, photographs: Path, folder: Path) -> None:
    levels = 0 if preset.startswith("vgg19-") else 1  # as vgg19 but for the learning rate, and slow
    found = short(preset, folder, photographs, levels=levels, branches="" if "vgg" in preset else "reinit:1")
    experiment = config.resolve(preset)
    assert set(found["status"]) == {"done"}
    assert list(found["level"]) == ([0, 1] if "vgg" in preset else [0, 1, 1])[: None if levels else 1]
    assert (found["iterations"] == 3).all() and found["final_test_accuracy"].between(0, 1).all()
    assert found["density"].round(4).tolist()[-1] == round(percent_remaining(preset)[levels] / 100, 4)
    for column in ("final_train_accuracy", "train_accuracy_at_early_stop"):
        assert found[column].notna().all() == found[column].notna().any() == experiment.recipe.train_accuracy
    if preset in DEEP:
        for n in (1, 2, 3):
            assert found[[f"test_accuracy_at_{n}", f"val_accuracy_at_{n}"]].notna().all(axis=None)


def test_conv2_on_the_real_cifar10(data_root: Path, folder: Path, tmp_path: Path) -> None:
    """A few updates on a few of its images: evaluating all of them takes a minute."""
    if not (data_root / "cifar-10-batches-bin").is_dir():
        pytest.skip("the shared data has no CIFAR-10")
    whole = data.load("cifar10", data_root, print)
    few = {"x_train": whole.train_x[:2500], "y_train": whole.train_y[:2500]}
    np.savez(tmp_path / "few.npz", **few, x_test=whole.test_x[:500], y_test=whole.test_y[:500])
    settings = {"data.name": str(tmp_path / "few.npz"), "data.validation": 500, "recipe.iterations": 40}
    run = lth.run("conv2", settings, out=folder, engine="torch", workers=1, trials=1, levels=0, branches="")
    assert run.curves["iteration"].tolist() == [1, 40]
    before, after = run.curves["val_loss"]
    assert after < before - 0.1
    assert run.summary["final_test_accuracy"][0] > 0.15
