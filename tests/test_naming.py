"""The names and descriptions of experiments: of what is trained, not of the preset it was made from."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lth import config
from lth.execution.call import Call, Size, resolved
from lth.execution.prepare import Wanted
from lth.storage import runs


def call(source: str, *settings: str, scale: float | None = None) -> Call:
    return Call(
        source, list(settings), None, Size(scale=scale), Wanted("auto", "auto", None, None), "local", None, None
    )


def test_a_preset_as_it_is_keeps_its_description() -> None:
    lenet = config.resolve("lenet")
    assert "(section 2)" in lenet.about
    for same in (["seed=7"], ["store.keep=last"]):
        assert config.resolve("lenet", same).about == lenet.about
    assert config.resolve("lenet", trials=2, levels=3, branches="", scale=0.1).about == lenet.about


@pytest.mark.parametrize(
    ("preset", "settings", "name", "about"),
    [
        (
            "lenet",
            ["recipe.iterations=20"],
            "lenet",
            "LeNet-300-100 on MNIST, iterative pruning with resetting (changed from lenet: recipe.iterations=20)",
        ),
        (
            "lenet",
            ["model.name=vit", "data.name=./photos"],
            "vit-photos",
            "Vision Transformer on the data in ./photos, iterative pruning with resetting "
            "(changed from lenet: data.name=./photos, model.name=vit)",
        ),
        (
            "lenet",
            ["model.layers=[50]"],
            "lenet-layers50",
            "LeNet-50 on MNIST, iterative pruning with resetting (changed from lenet: model.layers=[50])",
        ),
        (
            "lenet-oneshot",
            ["data.name=fashion-mnist"],
            "lenet-oneshot-fashion-mnist",
            "LeNet-300-100 on Fashion-MNIST, one-shot pruning with resetting "
            "(changed from lenet-oneshot: data.name=fashion-mnist)",
        ),
        (
            "conv2",
            ["model.name=nets/my.py:build"],
            "my-build",
            "the custom model nets/my.py:build on CIFAR-10, iterative pruning with resetting "
            "(changed from conv2: model.name=nets/my.py:build)",
        ),
    ],
)
def test_a_changed_preset_is_described_by_what_is_trained(
    preset: str, settings: list[str], name: str, about: str
) -> None:
    experiment = config.resolve(preset, settings)
    assert (experiment.about, experiment.name) == (about, name)


def test_many_changes_are_counted() -> None:
    changed = [f"recipe.{key}" for key in ("lr=0.1", "batch=10", "eval_every=10", "iterations=1000")]
    about = config.resolve("lenet", changed).about
    assert about.endswith("and 1 more setting)") and about.count("recipe.") == 3, about


def test_typed_names_and_descriptions_stay() -> None:
    typed = config.resolve("lenet", ["name=mine", "about=My own.", "model.name=vit", "data.name=cifar10"])
    assert (typed.name, typed.about) == ("mine", "My own.")


def test_an_experiment_that_is_given_whole_keeps_its_words(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(config.to_toml(config.resolve("lenet", ["name=mine", "about=Mine.", "recipe.lr=0.1"])))
    assert config.resolve(file).about == "Mine."
    assert config.resolve(file, ["recipe.lr=0.2"]).about.endswith("(changed from mine: recipe.lr=0.2)")


def test_names_and_descriptions_change_no_digest() -> None:
    settings = ["model.layers=[50]"]
    named = config.resolve("lenet", [*settings, "name=lenet"])
    assert config.resolve("lenet", settings).digest(3) == named.digest(3)


def test_a_folder_begun_under_the_name_of_the_preset_is_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    changed = call("lenet", "model.layers=[50]")
    asked, _ = resolved(changed, None)
    assert changed.folder(asked) == Path("runs/lenet-layers50")
    Path("runs/lenet").mkdir(parents=True)
    runs.open_run(Path("runs/lenet"), config.resolve("lenet"))  # another experiment
    assert changed.folder(asked) == Path("runs/lenet-layers50")
    shutil.rmtree("runs/lenet")
    Path("runs/lenet").mkdir()
    runs.open_run(Path("runs/lenet"), config.resolve("lenet", ["model.layers=[50]", "name=lenet"]))
    assert changed.folder(asked) == Path("runs/lenet")


def test_settings_complete_a_file_that_is_no_experiment_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("part.toml").write_text('name = "part"\nabout = "Mine."\n[recipe]\niterations = 100\nbatch = 60\n')
    settings = ["recipe.lr=0.1", "recipe.optimizer=sgd", "recipe.eval_every=10"]
    assert config.resolve(Path("part.toml"), settings).about == "Mine."
    typed = call("part.toml", *settings)
    asked, _ = resolved(typed, None)
    assert typed.folder(asked) == Path("runs/part")
