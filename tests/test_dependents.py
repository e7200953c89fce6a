"""What follows an override: only what the user typed can contradict what the user typed."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from lth import config
from lth.config import Experiment, resolve, resolve_with_notes, to_toml
from lth.config.dependents import DEPENDENTS, of_experiment
from lth.errors import UsageError

ALONE = [
    "recipe.iterations=100", "recipe.optimizer=adam", "recipe.optimizer=sgd", "recipe.optimizer=momentum",
    "recipe.eval_every=1000000", "recipe.eval_every=7", "prune.scope=global", "prune.scope=layerwise",
    "prune.groups=['conv','output']", "prune.groups=['fc']", "prune.densities=[0.5,0.3]", "prune.rates=[0.1,0.2]",
    "strategy=oneshot", "strategy=continued", "strategy=resetting", "model.name=lenet", "model.name=resnet18",
    "data.name=mnist", "data.name=./mine.npz", "recipe.momentum=none", "recipe.optimizer=none",
]  # fmt: skip


def stored(preset: str) -> dict[str, Any]:
    """The tables of a preset as a run stores them: with every default."""
    return tomllib.loads(to_toml(resolve(preset)))


@pytest.mark.parametrize("setting", ALONE)
@pytest.mark.parametrize("preset", config.presets())
def test_one_override_never_contradicts_a_preset(preset: str, setting: str) -> None:
    """Nor a stored experiment, which has a value for every key."""
    for source in (preset, stored(preset)):
        experiment, notes = resolve_with_notes(source, [setting])
        assert resolve(tomllib.loads(to_toml(experiment))) == experiment
        assert len(notes) <= 1 and all(note.startswith(setting.partition("=")[0]) for note in notes)


def test_every_dependent_is_a_key_that_depends_on_keys() -> None:
    known = config.keys()
    for dependent in DEPENDENTS:
        assert {dependent.key, *dependent.on} <= {*known}, dependent


FOLLOWS: list[tuple[str, list[str], dict[str, Any], list[str]]] = [
    (
        "resnet18", ["recipe.optimizer=adam"], {"recipe.momentum": None},
        ['recipe.optimizer = "adam": recipe.momentum = 0.9 is left out; recipe.lr stays 0.1, which'],
    ),
    ("resnet18", ["recipe.optimizer=momentum"], {"recipe.momentum": 0.9}, []),
    (
        "lenet", ["recipe.optimizer=momentum"], {"recipe.momentum": 0.9},
        ['recipe.optimizer = "momentum": recipe.lr stays 0.0012, which was chosen for adam'],
    ),
    (
        "conv2", ["recipe.eval_every=1000000"], {"recipe.test_every": 10**6},
        ["recipe.eval_every = 1000000: recipe.test_every is 1000000, was 1000"],
    ),
    (
        "conv2", ["recipe.eval_every=300"], {"recipe.test_every": 900},
        ["recipe.eval_every = 300: recipe.test_every is 900, was 1000"],
    ),
    ("conv2", ["recipe.eval_every=50"], {"recipe.test_every": 1000}, []),
    ("lenet", ["recipe.eval_every=30"], {"recipe.test_every": 30}, []),
    (
        "conv4", ["prune.scope=global"], {"prune.conv_rate": None, "prune.output_factor": 1.0},
        ['prune.scope = "global": prune.conv_rate = 0.1 is left out; prune.output_factor is 1.0, was 0.5'],
    ),
    (
        "resnet18", ["recipe.iterations=22000"], {"recipe.drops": (20_000,), "recipe.report_at": (10_000, 20_000)},
        [
            "recipe.iterations = 22000: recipe.drops is [20000], was [20000, 25000]; "
            "recipe.report_at is [10000, 20000], was [10000, 20000, 30000]"
        ],
    ),
    (
        "resnet18", ["recipe.iterations=20000"], {"recipe.drops": (), "recipe.report_at": (10_000, 20_000)},
        [
            "recipe.iterations = 20000: recipe.drops = [20000, 25000] is left out; "
            "recipe.report_at is [10000, 20000], was [10000, 20000, 30000]"
        ],
    ),
    ("resnet18-warmup", ["recipe.iterations=20000"], {"recipe.warmup": 20_000}, ["recipe.drops"]),
    ("resnet18-warmup", ["recipe.iterations=19999"], {"recipe.warmup": 0}, ["recipe.warmup is 0, was 20000"]),
    (
        "lenet-oneshot", ["prune.densities=[0.5,0.3]"], {"prune.rates": (), "levels": 2},
        ["prune.densities = [0.5, 0.3]: prune.rates = [0.025, "],
    ),
    ("lenet-oneshot", ["strategy=resetting"], {"prune.rates": (), "prune.rate": 0.2}, ["prune.rates = "]),
    (
        "lenet", ["prune.densities=[0.5]"], {"levels": 1},
        ["prune.densities = [0.5]: levels is 1, was 24"],
    ),
    (
        "lenet", ["model.name=conv2"], {"model.layers": None},
        ['model.name = "conv2": model.layers = [300, 100] is left out'],
    ),
    ("conv2", ["data.name=mnist"], {"data.mean": (), "data.std": ()}, ["data.mean = [0.0, 0.0, 0.0] is left out"]),
    ("conv2", ["data.name=cifar10"], {"data.mean": (0.0,) * 3}, []),
]  # fmt: skip


@pytest.mark.parametrize(("preset", "settings", "values", "notes"), FOLLOWS, ids=lambda value: str(value)[:30])
def test_what_follows_and_what_is_told(
    preset: str, settings: list[str], values: dict[str, Any], notes: list[str]
) -> None:
    experiment, told = resolve_with_notes(preset, settings)
    assert {key: of_experiment(experiment, key) for key in values} == values
    assert len(told) == len(notes) and all(expected in line for expected, line in zip(notes, told, strict=True))


def test_a_stored_experiment_follows_like_its_preset() -> None:
    same = lambda preset, *settings: resolve(stored(preset), settings) == resolve(preset, settings)
    assert same("lenet", "recipe.eval_every=30") and same("lenet", "recipe.eval_every=50")
    assert same("resnet18", "recipe.optimizer=sgd") and same("conv4", "prune.scope=global")
    assert same("resnet18", "prune.groups=['conv','output']")


def test_two_overrides_tell_a_line_each() -> None:
    _, notes = resolve_with_notes("resnet18", ["recipe.optimizer=sgd", "recipe.iterations=100", "seed=3"])
    assert [note.partition(":")[0] for note in notes] == ['recipe.optimizer = "sgd"', "recipe.iterations = 100"]


TYPED = {
    ("resnet18", "recipe.optimizer=adam", "recipe.momentum=0.9"): "it is for recipe.optimizer",
    ("conv2", "recipe.eval_every=300", "recipe.test_every=1000"): "1000 is not a multiple of recipe.eval_every = 300",
    ("conv4", "prune.scope=global", "prune.conv_rate=0.1"): "all layers share one rate: give only rate",
    ("conv4", "prune.scope=global", "prune.output_factor=0.5"): "output_factor = 0.5 would do nothing",
    ("resnet18", "recipe.iterations=700", "recipe.drops=[900]"): "recipe.drops: 900 would do nothing",
    ("lenet", "prune.rates=[0.5]", "prune.densities=[0.5]", "levels=1"): "exclude each other",
    ("lenet", "model.name=conv2", "model.layers=[3]"): "conv2 has no such setting",
}


@pytest.mark.parametrize("words", TYPED, ids=lambda words: " ".join(words)[:40])
def test_what_was_typed_twice_in_contradiction_is_refused(words: tuple[str, ...]) -> None:
    for settings in (words[1:], words[:0:-1]):
        with pytest.raises(UsageError, match=TYPED[words]):
            resolve(words[0], settings)


@pytest.mark.parametrize("none", ["recipe.momentum=none", {"recipe.momentum": None}])
def test_none_unsets_a_key(none: Any) -> None:
    tables = stored("resnet18")
    tables["recipe"]["momentum"] = 0.5
    assert resolve(tables, none if isinstance(none, dict) else [none]).recipe.momentum == 0.9
    assert resolve("resnet18", ["recipe.optimizer=adam", "recipe.momentum=none"]).recipe.momentum is None
    assert resolve("resnet18", ["branch=none"]).branch == ()
    assert resolve("lenet", {"about": "none", "name": "none"}).about == "none"
    with pytest.raises(UsageError, match=r"recipe.lr is missing"):
        resolve("lenet", ["recipe.lr=none"])


def test_none_is_written_as_it_is_read() -> None:
    assert config.to_setting("recipe.momentum", None) == "recipe.momentum=none"
    members: list[Experiment] = [
        resolve("resnet18", member) for member in config.sweep(['recipe.momentum=["none",0.5]'])
    ]
    assert [member.recipe.momentum for member in members] == [0.9, 0.5]


@pytest.mark.parametrize("preset", config.presets())
def test_sweeps_follow_member_by_member(preset: str) -> None:
    members = config.sweep(["recipe.iterations=[100,200]", 'recipe.optimizer=["adam","momentum"]'])
    for member in members:
        recipe = resolve(preset, member).recipe
        assert recipe.warmup == 0 and not recipe.too_late
        assert (recipe.momentum is None) == (recipe.optimizer == "adam")


@pytest.mark.parametrize("wrong", ["x", -5, 0, [1], {}, None, 10**40])
def test_a_wrong_value_is_refused_for_itself(wrong: Any) -> None:
    tables = stored("conv2")
    for key in ("recipe.eval_every", "recipe.iterations", "prune.groups", "prune.densities"):
        table, name = key.split(".")
        resolves_or_is_refused(tables, {key: wrong})
        resolves_or_is_refused(tables | {table: tables[table] | {name: wrong}}, {"recipe.eval_every": 7, "seed": 2})
    resolves_or_is_refused(tables | {"recipe": tables["recipe"] | {"test_every": wrong}}, {"recipe.eval_every": 7})
    resolves_or_is_refused(tables | {"recipe": wrong}, {"recipe.optimizer": "sgd"})


def resolves_or_is_refused(*given: Any) -> None:
    try:
        resolve(*given)
    except UsageError as error:
        assert str(error).count("\n") <= 1


def test_drops_go_with_the_schedule_that_takes_them() -> None:
    """Cosine has no drops; a user who types both contradicts himself."""
    assert config.resolve("resnet18", ["recipe.schedule=cosine"]).recipe.drops == ()
    both = config.resolve("resnet18", ["recipe.schedule=cosine", "recipe.iterations=22000"])
    assert (both.recipe.drops, both.recipe.iterations) == ((), 22000)
    with pytest.raises(UsageError, match=r"recipe\.drops: it is for recipe\.schedule"):
        config.resolve("resnet18", ["recipe.schedule=cosine", "recipe.drops=[100]"])
