"""The experiment as a value: what is taken, what is refused and in which words, and that nothing is lost on its way."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lth import config
from lth.config import Experiment, merge, parse_branches, parse_override, resolve, scaled, to_setting, to_toml
from lth.errors import UsageError
from lth.plan import plan
from lth.pruning import allocation

RESULTS = Path(__file__).parents[1] / "results"
SMALL: dict[str, Any] = {"name": "small", "trials": 1, "levels": 2, "recipe": {"lr": 0.1, "iterations": 40}}


def small(**changes: Any) -> dict[str, Any]:
    """The tables of a small experiment; a table in `changes` is merged into the one there."""
    tables = config.deep_copy(SMALL)
    for key, value in changes.items():
        tables[key] = tables.get(key, {}) | value if isinstance(value, dict) else value
    return tables


def refusal(*args: Any, **kwargs: Any) -> str:
    with pytest.raises(UsageError) as caught:
        resolve(*args, **kwargs)
    assert caught.value.exit_code == 2
    return str(caught.value)


# ------------------------------------------------------------------------------------------------- whole experiments


@st.composite
def experiments(draw: st.DrawFn) -> dict[str, Any]:
    """The tables of any experiment that makes sense."""
    number = lambda low, high: st.integers(low, high)
    share = st.floats(0, 1, exclude_min=True, exclude_max=True)
    eval_every, levels = draw(number(1, 1000)), draw(number(0, 6))
    strategy = draw(st.sampled_from(["resetting", "continued", "oneshot"]))
    recipe = {
        "optimizer": draw(st.sampled_from(["adam", "sgd", "momentum"])),
        "lr": draw(st.floats(0, exclude_min=True, allow_infinity=False)),
        "iterations": draw(number(1, 10**6)),
        "eval_every": eval_every,
        "test_every": draw(st.none() | number(1, 9).map(lambda n: n * eval_every)),
        "drops": draw(st.lists(number(1, 10**6), max_size=3)),
        "report_at": draw(st.lists(number(1, 10**6), max_size=3)),
        "warmup": draw(number(0, 10**6)),
        "weight_decay": draw(st.floats(0, 1)),
    }
    if recipe["optimizer"] == "momentum":
        recipe["momentum"] = draw(st.none() | share)
    ladder = sorted(draw(st.sets(share, min_size=levels, max_size=levels + 3)), reverse=True)
    prune = draw(st.sampled_from([{}, {"densities": ladder}, {"rates": ladder[::-1]}]))
    branches = []
    for name in draw(st.lists(st.sampled_from(["reinit", "random-mask", "my.own-1"]), unique=True)):
        branch: dict[str, Any] = {"name": name, "count": draw(number(1, 3))}
        branch["levels"] = draw(st.none() | st.just("2-4,1") | st.lists(number(1, 9), min_size=1, max_size=3))
        branch["iterations"] = draw(st.none() | number(1, 10**6))
        if name == "my.own-1" or draw(st.booleans()):
            branch |= {"mask": draw(st.sampled_from(["ticket", "random"])), "start": "fresh"}
        branches.append(branch)
    return {
        "name": draw(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)),
        "about": draw(st.text()),
        "seed": draw(number(0, 2**63 - 1)),
        "trials": draw(number(1, 5)),
        "levels": levels,
        "strategy": strategy,
        "scale": draw(st.floats(1e-300, 1000)),
        "data": {"name": draw(st.just("mnist") | st.text().map(lambda t: f"./{t}.npz"))},
        "model": {"layers": draw(st.lists(number(1, 500), max_size=4)), "dropout": draw(st.sampled_from([0, 0.5]))},
        "recipe": recipe,
        "prune": prune,
        "branch": branches,
    }


@given(experiments())
@settings(max_examples=200, deadline=None)
def test_what_is_written_is_read_back(tables: dict[str, Any]) -> None:
    """Also with help texts beside the keys, in another's TOML reader, and after a second time."""
    experiment = resolve(tables)
    for comments in (False, True):
        text = to_toml(experiment, comments)
        again = resolve(tomllib.loads(text))
        assert again == experiment and to_toml(again, comments) == text
    assert [experiment.digest(level) for level in range(3)] == [again.digest(level) for level in range(3)]


HOSTILE = [
    "\x7f",
    "\x00\x1f\n\r\t",
    '"',
    '"""',
    "\\",
    "\\u0041",
    "#",
    "# x",
    "]\n[data]",
    "😀",
    "\u2028\x85\ufeff",
    "ü'",
]


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_a_hostile_text_is_only_a_text(text: str, tmp_path: Path) -> None:
    tables = small(about=text, data={"name": f"./{text}"})
    file = tmp_path / "hostile.toml"
    file.write_text(to_toml(resolve(tables), comments=True), encoding="utf-8")
    assert resolve(file) == resolve(tables)
    assert resolve(SMALL, {"about": text}).about == text


@pytest.mark.parametrize("name", config.presets())
def test_every_preset_is_whole(name: str, tmp_path: Path) -> None:
    experiment = resolve(name)
    assert experiment.name == name and experiment.about and experiment.scale == 1
    file = tmp_path / "copy.toml"
    file.write_text(to_toml(experiment, comments=True), encoding="utf-8")
    assert resolve(file) == resolve(str(file)) == experiment
    assert plan(experiment)


def test_every_key_has_a_help_text_and_can_be_set() -> None:
    keys = config.keys()
    assert {"seed", "data.name", "model.name", "recipe.lr", "recipe.report_at", "prune.densities", "prune.scope"} <= {
        *keys
    }
    assert not [key for key, help_text in keys.items() if not help_text and key != "branch"]
    shown = to_toml(resolve("lenet"), comments=True)
    assert "lr = 0.0012  # learning rate" in shown
    assert "# conv_rate =  # rate of the convolutions; by default rate" in shown  # unset, so only a comment
    assert "sha256" not in shown
    same = {key: value for key, value in flat(resolve("lenet")).items() if key != "scale"}
    assert {*same} <= {*keys} and resolve("lenet", same) == resolve("lenet")


def flat(experiment: Experiment) -> dict[str, Any]:
    """Every key with a value, as `key=value` would set it."""
    plain = experiment.model_dump(mode="json", exclude_none=True)
    tables = {key: value if isinstance(value, dict) and key != "files" else None for key, value in plain.items()}
    return {
        key if table is None else f"{key}.{inner}": plain[key] if table is None else table[inner]
        for key, table in tables.items()
        for inner in (table or [""])
    }


def test_defaults_depend_on_what_is_given() -> None:
    recipe = lambda **given: resolve(small(recipe=given)).recipe
    assert recipe().test_every == 100 and recipe(eval_every=30).test_every == 30
    assert recipe(eval_every=30, test_every=90).test_every == 90
    assert recipe().momentum is None and recipe(optimizer="momentum").momentum == 0.9
    assert recipe(optimizer="momentum", momentum=0.5).momentum == 0.5
    assert resolve(SMALL).model.layers == (300, 100)
    random_mask = resolve(small(branch=[{"name": "random-mask"}])).branch[0]
    assert (random_mask.mask, random_mask.start) == ("random", "trial")
    own = resolve(small(branch=[{"name": "random-mask", "start": "fresh"}])).branch[0]
    assert (own.mask, own.start) == ("random", "fresh")


def test_another_network_has_none_of_the_settings_of_the_one_before() -> None:
    assert resolve("lenet", ["model.name=conv2"]).model.layers is None
    assert resolve("lenet", ["model.dropout=0.2", "model.name=conv2"]).model.dropout == 0.2
    assert resolve("lenet", {"model.name": "lenet"}).model.layers == (300, 100)
    assert resolve("lenet", ["model.name=my.py:build"]).model.layers is None


def test_to_name_what_is_meant_without_a_name_changes_nothing() -> None:
    tables = small() | {"model": {"layers": [20, 10]}, "data": {"mean": [0.1], "std": [0.3]}}
    found = resolve(tables, ["model.name=lenet", "data.name=mnist"])
    assert (found.model.layers, found.data.mean, found.data.std) == ((20, 10), (0.1,), (0.3,))


def test_other_data_have_none_of_the_means_of_those_before() -> None:
    of = lambda *settings: resolve("conv2", settings).data
    assert of("data.name=./mine.npz").mean == of("data.name=./mine.npz").std == ()
    assert of("data.name=cifar10").std == of().std == (1 / 255,) * 3
    assert of("data.std=[0.5]", "data.mean=[0.1]", "data.name=./mine.npz").mean == (0.1,)
    assert of("data.validation=7", "data.name=./mine.npz").validation == 7
    assert resolve(small(data={"name": "mnist", "validation": 9}), ["data.name=./mine.npz"]).data.validation == 9


# ------------------------------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("recipe.lr=0.1", ("recipe.lr", 0.1)),
        ("recipe.iterations=1_000", ("recipe.iterations", 1000)),
        (" recipe.lr = 1e-3 ", ("recipe.lr", 0.001)),
        ("name=my-run", ("name", "my-run")),
        ("name='my-run'", ("name", "my-run")),
        ("about=a = b # c", ("about", "a = b # c")),
        ("about=", ("about", "")),
        ("model.layers=[30, 10]", ("model.layers", [30, 10])),
        ("recipe.augment=true", ("recipe.augment", True)),
        ("seed=3\nname='x'", ("seed", "3\nname='x'")),
        ("branch=[{name='reinit'}]", ("branch", [{"name": "reinit"}])),
        ("seed=" + "9" * 5000, ("seed", "9" * 5000)),
        ("seed=" + "[" * 5000, ("seed", "[" * 5000)),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_setting_is_read_as_toml_else_as_text(text: str, expected: tuple[str, Any]) -> None:
    assert parse_override(text) == expected


@pytest.mark.parametrize("text", ["", "=", "=3", "recipe.lr", "lenet", " = 3"])
def test_what_is_no_setting_is_said_so(text: str) -> None:
    with pytest.raises(UsageError, match="is not a setting: write key=value"):
        parse_override(text)


plain_values = st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(plain_values | st.text(), lambda inner: st.lists(inner, max_size=3), max_leaves=5)


@given(st.sampled_from(sorted(config.keys())), values)
@settings(deadline=None)
def test_a_setting_is_written_as_it_is_read(key: str, value: Any) -> None:
    assert repr(parse_override(to_setting(key, value))) == repr((key, value))


def test_settings_of_python_are_taken_as_they_are(tmp_path: Path) -> None:
    experiment = resolve(SMALL, {"model.layers": (12, 8), "data.name": tmp_path / "x.npz", "recipe.augment": True})
    assert experiment.model.layers == (12, 8) and experiment.data.name == str(tmp_path / "x.npz")
    assert to_setting("recipe.augment", True) == "recipe.augment=true"
    assert to_setting("model.layers", (12, 8)) == "model.layers=[12, 8]"


def test_the_last_setting_counts_and_options_come_after_settings() -> None:
    assert resolve(SMALL, ["seed=2", "seed=3"]).seed == 3
    assert resolve(SMALL, ["trials=2"], trials=3).trials == 3
    assert resolve(SMALL, ["levels=5"], levels=0).levels == 0


def test_resolving_changes_nothing_that_was_given() -> None:
    tables = small(branch=[{"name": "reinit"}])
    before = repr(tables)
    resolve(tables, ["recipe.lr=0.5", "model.layers=[3]"], trials=4, branches="reinit:7", scale=0.1)
    assert repr(tables) == before


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" ", []),
        ("reinit", [("reinit", 1)]),
        ("reinit:3,random-mask:1", [("reinit", 3), ("random-mask", 1)]),
        (" reinit:2 , random-mask ", [("reinit", 2), ("random-mask", 1)]),
    ],
)
def test_branches_are_read(text: str, expected: list[tuple[str, int]]) -> None:
    assert [(b["name"], b["count"]) for b in parse_branches(text)] == expected
    assert [(b.name, b.count) for b in resolve(SMALL, branches=text).branch] == expected


BAD_COUNTS = ["reinit:x", "reinit:", ":3", ":", ",", "reinit,", "reinit:-1", "reinit:1.5", "reinit:1:2", "reinit:²"]


@pytest.mark.parametrize("text", [*BAD_COUNTS, "reinit:" + "9" * 5000], ids=lambda text: text[:12])
def test_branches_that_cannot_be_read_are_refused(text: str) -> None:
    assert "--branches takes NAME:COUNT,..., such as reinit:3" in refusal(SMALL, branches=text)


def test_a_branch_of_the_preset_keeps_its_options() -> None:
    tables = small(branch=[{"name": "reinit", "count": 5, "levels": "1-2", "iterations": 7}, {"name": "random-mask"}])
    (branch,) = resolve(tables, branches="reinit:2").branch
    assert (branch.count, branch.levels, branch.iterations) == (2, (1, 2), 7)


@pytest.mark.parametrize(
    ("given", "levels"),
    [
        ("1-3", (1, 2, 3)),
        ("3,1-2", (1, 2, 3)),
        ("2", (2,)),
        ([3, 1, 3], (1, 3)),
        ("1 - 2", (1, 2)),
        ("10000", (10000,)),
    ],
)
def test_levels_of_a_branch_are_numbers_and_ranges(given: Any, levels: tuple[int, ...]) -> None:
    assert resolve(small(branch=[{"name": "reinit", "levels": given}])).branch[0].levels == levels


@pytest.mark.parametrize(
    "given", ["", ",", "x", "1-", "-1", "1-2-3", "5-1", "3-1,7", "0", "0-3", [], [0], 3, "1-99999999", "9" * 5000]
)
def test_levels_that_are_none_are_refused(given: Any) -> None:
    assert "branch[0].levels" in refusal(small(branch=[{"name": "reinit", "levels": given}]))


# ------------------------------------------------------------------------------------------------------------- refusals

REFUSED = {
    # unknown names, with the nearest valid one
    "recipe.lrr=3": "unknown key 'recipe.lrr'; did you mean 'recipe.lr'? (see `lth show lenet`)",
    "lr=3": "unknown key 'lr'; did you mean 'recipe.lr'?",
    "iteration=3": "unknown key 'iteration'; did you mean 'recipe.iterations'?",
    "recipe=3": "unknown key 'recipe'",
    "branch.count=3": "unknown key 'branch.count'; did you mean 'branch'?",
    "__class__=3": "unknown key '__class__' (see `lth show lenet`)",
    "model.name=lenett": "unknown model 'lenett'; did you mean 'lenet'? (see `lth list models`)",
    "data.name=mnits": "unknown dataset 'mnits'; did you mean 'mnist'? (see `lth list datasets`; a path of your own",
    "data.name=pictures": "needs a slash: ./pictures)",
    "data.name=": "unknown dataset ''",
    "prune.score=magnitud": "unknown score 'magnitud'; did you mean 'magnitude'?",
    "recipe.optimizer=Adm": "expected adam, adamw, sgd, momentum, nesterov; did you mean 'adam'?",
    "prune.scope=globl": "did you mean 'global'?",
    "strategy=oneshoot": "did you mean 'oneshot'?",
    "branch=[{name='rinit'}]": "unknown branch 'rinit'; did you mean 'reinit'?",
    "branch=[{name='Reinit'}]": "unknown branch 'Reinit'; did you mean 'reinit'?",
    "branch=[{name='random_mask'}]": "did you mean 'random-mask'?",
    "branch=[{name='mine', mask='ticket'}]": "any other has both mask and start",
    "branch=[{name='reinit', cuont=3}]": "unknown key 'branch[0].cuont'; did you mean 'branch.count'?",
    "branch=[{name='ticket'}]": "a branch cannot be called 'ticket'",
    "branch=[{name='continued'}]": "a branch cannot be called 'continued'",
    # wrong types
    "recipe.lr=abc": "recipe.lr: expected a number, not 'abc'",
    "recipe.lr='0.1'": "recipe.lr: expected a number, not '0.1'",
    "recipe.lr=true": "recipe.lr: expected a number, not True",
    "recipe.lr=[1]": "recipe.lr = [1]: expected a number",
    "recipe.iterations=true": "recipe.iterations: expected a number, not True",
    "recipe.iterations=1.5": "recipe.iterations = 1.5: expected a whole number",
    "recipe.augment=1": "recipe.augment = 1: expected true or false",
    "model.layers=300": "model.layers = 300: expected a list, such as [1, 2]",
    "model.layers=300,100": "model.layers = '300,100': expected a list",
    "data.name=5": "data.name = 5: expected a string in quotes",
    "about=1979-05-27": "expected a string in quotes",
    "branch=reinit": "branch = 'reinit': expected tables, each below a line [[branch]]",
    "branch=[1]": "branch[0] = 1: expected a table",
    "branch=[{name=[1]}]": "branch[0].name = [1]: expected a string in quotes",
    "branch=[{count=1}]": "branch[0].name is missing",
    # values out of range
    "recipe.lr=nan": "recipe.lr = nan: expected a finite number",
    "recipe.lr=inf": "recipe.lr = inf: expected a finite number",
    "recipe.lr=0": "recipe.lr = 0: expected greater than 0",
    "recipe.iterations=0": "recipe.iterations = 0: expected greater than or equal to 1",
    "recipe.iterations=999999999999999": "recipe.iterations = 999999999999999: expected less than",
    "recipe.drops=[5, 0]": "recipe.drops[1] = 0: expected greater",
    "recipe.warmup=-1": "recipe.warmup = -1",
    "model.dropout=1": "model.dropout = 1: expected less than 1",
    "model.layers=[0]": "model.layers[0] = 0",
    "model.layers=[1000000, 1000000]": "model.layers: at most 1,000,000,000 weights",
    "prune.rate=0": "prune.rate = 0",
    "prune.rate=1": "prune.rate = 1",
    "prune.densities=[1.0]": "prune.densities[0] = 1.0",
    "prune.output_factor=1.5": "prune.output_factor = 1.5",
    "seed=-1": "seed = -1",
    "seed=9223372036854775808": "seed = 9223372036854775808: expected less than",
    "trials=0": "trials = 0",
    "levels=-1": "levels = -1",
    "levels=10001": "levels = 10001: expected less than or equal to 10000",
    "data.validation=0": "data.validation = 0",
    "scale=0.5": "use --scale S",
    # names of folders
    "name=": "name: '' cannot name a folder",
    "name=..": "name: '..' cannot name a folder",
    "name=a/b": "cannot name a folder",
    "name=-x": "cannot name a folder",
    "name=ü": "cannot name a folder",
    "name='a\\n'": "cannot name a folder",
    "name=" + "a" * 101: "100 at most",
    "about=\udcff": "expected text in UTF-8",
    # contradictions
    "data.mean=[0.5]": "data.std: it has 0 numbers, and data.mean 1: give both, one number for each channel",
    "data.std=[0.2, 0.2]": "data.std: it has 2 numbers, and data.mean 0: give both, one number for each channel",
    "data.std=[0]": "data.std[0] = 0: expected greater than or equal to 0.000001",
    "recipe.test_every=150": "recipe.test_every: 150 is not a multiple of recipe.eval_every = 100",
    "recipe.momentum=0.9": 'it is for recipe.optimizer = "momentum" or "nesterov", but the optimizer is "adam"',
    "prune.densities=[0.5, 0.5]": "densities must decrease from level to level: [0.5, 0.5]",
    "branch=[{name='reinit'}, {name='reinit'}]": "branches are named once each; twice: reinit",
    "branch=[{name='reinit', count=99999}]": "trials, levels and branches make 200,001 trainings; at most 100,000",
    "trials=1000000000": "at most 100,000",
    "recipe.iterations=1000000000000": "more than 1,000,000 evaluations per training: give a larger eval_every",
}


@pytest.mark.parametrize("setting", REFUSED, ids=lambda text: ascii(text)[1:40])
def test_what_cannot_be_is_refused_in_one_clear_line(setting: str) -> None:
    message = refusal(SMALL, [setting])
    assert REFUSED[setting] in message
    assert "\n" not in message and len(message) < 300 and "Input should" not in message


def test_a_range_that_runs_backwards_names_the_one_that_is_meant() -> None:
    said = refusal(small(branch=[{"name": "reinit", "levels": "7, 3-1"}]))
    assert said == "branch[0].levels: 3-1 runs backwards; write 1-3"


IDLE = [
    ("lenet-oneshot", ["prune.rate=0.9"], "prune.rate: it would do nothing: prune.rates"),
    ("lenet", ["prune.densities=[0.5]", "prune.rate=0.7"], "prune.rate: it would do nothing: prune.densities"),
    ("lenet", ["prune.rates=[0.5]", "prune.rate=0.7"], "prune.rate: it would do nothing: prune.rates"),
    (
        "conv2",
        ["prune.groups=['conv']", "prune.output_factor=0.7"],
        "prune.output_factor: it would do nothing: prune.g",
    ),
    ("conv2", ["prune.groups=['conv']", "prune.rate=0.7"], "prune.rate: it would do nothing: only convolutions"),
    ("conv2", ["prune.groups=['fc']", "prune.conv_rate=0.3"], "prune.conv_rate: it would do nothing: prune.groups"),
    ("resnet18", ["prune.densities=[0.5]", "prune.conv_rate=0.3"], "prune.conv_rate: it would do nothing: prune.dens"),
]
AT_WORK = [
    ("conv2", ["prune.densities=[0.5]", "prune.rate=0.3"]),
    ("conv2", ["prune.rates=[0.5]", "prune.rate=0.3"]),
    ("conv2", ["prune.densities=[0.5]", "prune.conv_rate=0.3"]),
    ("conv2", ["prune.densities=[0.5]", "prune.output_factor=0.7"]),
    ("conv2", ["prune.groups=['conv']", "prune.rates=[0.5]", "prune.rate=0.3"]),
    ("conv2", ["prune.groups=['conv']", "prune.conv_rate=0.3"]),
    ("conv2", ["prune.groups=['fc','output']", "prune.rate=0.3"]),
    ("conv2", ["prune.groups=['output','fc']", "prune.densities=[0.5]", "prune.output_factor=0.7"]),
]


def lost(experiment: Experiment) -> list[Any]:
    """How many weights each pool loses on the way to level 1, of a network of three layers."""
    alive = {"conv": 1000, "fc": 3000, "output": 500}
    return allocation.budget(alive, 4500, {name: name for name in alive}, experiment, 1)


@pytest.mark.parametrize(("preset", "settings", "said"), IDLE)
def test_a_setting_that_would_do_nothing_is_refused(preset: str, settings: list[str], said: str) -> None:
    """It does nothing, truly; and what others set, a preset or a stored experiment, is not held against them."""
    message = refusal(preset, settings, levels=1)
    assert said in message and message.endswith("; leave it out") and "\n" not in message
    without, stored = (resolve(preset, settings[:-1], levels=1).model_dump() for _ in range(2))
    key, value = parse_override(settings[-1])
    stored["prune"][key.removeprefix("prune.")] = value
    assert lost(resolve(stored)) == lost(resolve(without))
    assert resolve(resolve(stored).model_dump(), {"seed": 2})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["recipe.drops=[20000,30000]"], "recipe.drops: 30,000 would do nothing: trainings end at 30,000; give"),
        (["recipe.report_at=[9,30001,50000]"], "recipe.report_at: 30,001, 50,000 would do nothing"),
        (["recipe.iterations=700", "recipe.drops=[900]"], "recipe.drops: 900 would do nothing: trainings end at 700"),
    ],
)
def test_iterations_after_the_last_are_refused_where_they_are_typed(settings: list[str], said: str) -> None:
    assert said in refusal("resnet18", settings)
    assert not resolve("resnet18", ["recipe.drops=[29999]", "recipe.report_at=[30000]"]).recipe.too_late
    assert not resolve("resnet18", ["recipe.drops=[20000]"], scale=0.001).recipe.too_late
    stored = resolve("resnet18").model_dump()
    stored["recipe"]["iterations"] = 22_000
    assert resolve(stored).recipe.too_late == {"drops": "25,000", "report_at": "30,000"}


@pytest.mark.parametrize(("preset", "settings"), AT_WORK)
def test_a_setting_that_does_something_is_taken(preset: str, settings: list[str]) -> None:
    assert lost(resolve(preset, settings, levels=1)) != lost(resolve(preset, settings[:-1], levels=1))


@pytest.mark.parametrize("path", sorted(RESULTS.rglob("experiment.toml")), ids=lambda path: path.parent.name)
def test_stored_experiments_are_read_and_written_as_they_are(path: Path) -> None:
    stored, found = tomllib.loads(path.read_text(encoding="utf-8")), tomllib.loads(to_toml(resolve(path)))
    assert {key: found[key] for key in stored} == found and found["branch" if "branch" in stored else "name"]
    assert all(found[table] | own == found[table] for table, own in stored.items() if isinstance(own, dict))
    assert found.get("branch") == stored.get("branch")


def test_all_problems_are_said_at_once() -> None:
    wrong = {
        "trials=0", "model.name=lenett", "data.name=mnits", "recipe.lr=x", "recipe.test_every=150", "prune.score=x",
        "prune.rates=[0.5]", "prune.densities=[0.1, 0.2]", "levels=3", "branch=[{name='rinit', count=0}]",
        "sed=1", "oops",
    }  # fmt: skip
    lines = refusal(SMALL, sorted(wrong), scale=float("nan")).splitlines()
    for said in (
        "trials = 0", "'lenett'", "'mnits'", "recipe.lr:", "recipe.test_every", "score 'x'", "exclude each other",
        "'rinit'", "branch[0].count", "key 'sed'", "'oops' is not a setting", "--scale takes",
    ):  # fmt: skip
        assert sum(said in line for line in lines) == 1, said
    assert len(lines) == 12


def test_a_problem_is_said_once() -> None:
    """What follows from a wrong value only is no problem of its own."""
    assert refusal(SMALL, ["recipe.eval_every=0"]).count("\n") == 0
    assert refusal(SMALL, ["recipe.optimizer=x", "recipe.momentum=0.5"]).count("\n") == 0
    assert refusal(SMALL, ["model.name=x", "model.layers=[3]"]).count("\n") == 0
    assert (
        refusal(SMALL, ["recipe.lr=" + "x" * 5000])
        == "recipe.lr: expected a number, not '" + "x" * 59 + "..." + "x" * 9 + "'"
    )
    assert refusal(small(**{f"x{n}": 1 for n in range(50)})).splitlines()[20:] == ["and 30 more"]


def test_contradictions_beyond_one_table() -> None:
    for ladder in ("densities", "rates"):
        said = f"levels = 2, but {ladder} names 1: give --levels 1 or more of them"
        assert said in refusal(SMALL, [f"prune.{ladder}=[0.5]"], levels=2)
        assert said in refusal(SMALL, [f"prune.{ladder}=[0.5]", "levels=2"])
        assert said in refusal(small(prune={ladder: [0.5]}))
    assert "must increase" in refusal(small(strategy="oneshot", prune={"rates": [0.5, 0.3]}))
    assert "exclude each other" in refusal(small(prune={"rates": [0.5, 0.3], "densities": [0.5, 0.3]}))
    evaluations = small(recipe={"eval_every": 1}, branch=[{"name": "reinit", "iterations": 2_000_000}])
    assert "2,000,000 iterations with recipe.eval_every = 1 make more than" in refusal(evaluations)
    for beyond in ({"drops": [10**6]}, {"warmup": 10**6}, {"report_at": [10**6]}, {"eval_every": 10**6}):
        resolve(small(recipe=beyond))  # what lies beyond the last iteration just does not happen
    resolve(small(levels=0, branch=[{"name": "reinit", "levels": "1-18"}]))
    resolve(small(levels=0))


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({}, ["name is missing: name of the experiment and of its run folder", "recipe is missing"]),
        (small(recipe=None), ["recipe = None: expected a table"]),
        ({"name": "x", "recipe": {}}, ["recipe.lr is missing: learning rate", "recipe.iterations is missing"]),
        (small(data=3, prune=[1]), ["data = 3: expected a table", "prune = [1]: expected a table"]),
        (
            small(branch={"name": "reinit"}),
            ["branch = {'name': 'reinit'}: expected tables, each below a line [[branch]]"],
        ),
        (small(**{"recipe.lr": 1}), ["recipe.lr as one word is not a key: give lr in the table recipe"]),
        (small(recip={"lr": 1}), ["unknown key 'recip'; did you mean 'recipe"]),
    ],
)
def test_tables_of_the_wrong_shape(tables: dict[str, Any], said: list[str]) -> None:
    lines = refusal(tables).splitlines()
    assert len(lines) == len(said) and all(s in line for s, line in zip(said, lines, strict=True))


def test_a_key_below_what_is_no_table() -> None:
    assert "recipe.lr cannot be set: recipe is not a table" in refusal({"name": "x", "recipe": 3}, ["recipe.lr=1"])
    assert "branch = {'name'" in refusal(small(branch={"name": "reinit"}), branches="reinit")
    assert "branch[0] = 1: expected a table" in refusal(small(branch=[1]), branches="reinit")


@pytest.mark.parametrize("scale", [0, -1, float("nan"), float("inf"), -float("inf"), 1001, 1e300])
def test_a_scale_that_is_none(scale: float) -> None:
    assert "--scale takes a number above 0, 1000 at most" in refusal(SMALL, scale=scale)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("lent", "unknown preset 'lent'; did you mean 'lenet'? (see `lth list presets`"),
        ("", "unknown preset ''"),
        ("../lenet", "unknown preset '../lenet'"),
        ("lenet.tml", "a file's name ends in .toml"),
        ("no.toml", "there is no file no.toml; `lth show lenet > no.toml` writes one to begin with"),
    ],
)
def test_a_source_that_is_not_there(name: str, said: str) -> None:
    assert said in refusal(name)


def test_a_runs_folder_is_no_source_but_its_experiment_is(tmp_path: Path) -> None:
    (tmp_path / "experiment.toml").write_text(to_toml(resolve(SMALL)))
    assert f"did you mean '{tmp_path}/experiment.toml'?" in refusal(f"{tmp_path}/")


FILES = {
    b"": "name is missing",
    bytes(range(256)): "cannot be read: 'utf-8' codec can't decode",
    b"\xff\xfe": "cannot be read",
    b"name": "is not valid TOML",
    b"name='x'\nname='y'": "is not valid TOML: Cannot overwrite a value",
    b"a=" + b"[" * 90_000: "is not valid TOML: tables and lists are nested too deeply",
    b"a=" + b"{a=" * 5000: "is not valid TOML: tables and lists are nested too deeply",
    b"[a" + b".a" * 5000 + b"]": "is not valid TOML: a key of 5,001 parts is more than 8",
    b"a=" + b"9" * 5000: "is not valid TOML: Exceeds the limit",
}


@pytest.mark.parametrize("content", FILES, ids=lambda content: ascii(content)[2:20])
def test_a_file_that_is_no_experiment_is_named(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_bytes(content)
    assert FILES[content] in refusal(str(file))
    message = refusal(file)
    assert FILES[content] in message and str(file) in message


def test_files_that_are_none_and_files_of_other_editors(tmp_path: Path) -> None:
    (tmp_path / "folder.toml").mkdir()
    assert "folder.toml cannot be read: Is a directory" in refusal(str(tmp_path / "folder.toml"))
    (tmp_path / "loop.toml").symlink_to("loop.toml")
    assert "loop.toml cannot be read: Too many levels" in refusal(str(tmp_path / "loop.toml"))
    text = to_toml(resolve(SMALL))
    (tmp_path / "x.toml").write_bytes(("\ufeff" + text.replace("\n", "\r\n")).encode())
    assert resolve(str(tmp_path / "x.toml")) == resolve(SMALL)


# ----------------------------------------------------------------------------------------------------------------- fuzz

FRAGMENTS = [
    *("nan", "inf", "-1", "0", "1", "0.5", "1e999", "true", "''", '"x"', "[]", "[[]]", "{}", "[1, 'a']", "1979-05-27"),
    *(
        "99999999999999999999",
        "{a = {}}",
        "[nan]",
        "'1-99999'",
        "[0.5, 0.2]",
        "'ticket'",
        "[{name = 'reinit'}]",
        "\x00",
    ),
    *("'''", "[", "0x1F", "reinit", "mnist", "momentum", "global", "[true]", "[{}]", "{name = []}", "١", "\ud800"),
]
anything = st.sampled_from(FRAGMENTS) | st.text(max_size=20)
keys_or_not = st.sampled_from([*config.keys(), "recipe", "branch.0.count", "data.name.x", "", "."]) | st.text(
    max_size=8
)


def resolves_or_is_refused(*args: Any, **kwargs: Any) -> None:
    try:
        experiment = resolve(*args, **kwargs)
    except UsageError as error:
        assert str(error).strip()
    else:
        assert resolve(tomllib.loads(to_toml(experiment))) == experiment


@given(st.lists(st.tuples(keys_or_not, anything), max_size=5), st.none() | anything, st.none() | st.floats())
@settings(max_examples=400, deadline=None)
def test_any_settings_resolve_or_are_refused(
    pairs: list[tuple[str, str]], branches: str | None, scale: float | None
) -> None:
    resolves_or_is_refused("lenet", [f"{k}={v}" for k, v in pairs], branches=branches, scale=scale)


LINES = config.presets()["lenet"].splitlines()


@given(st.lists(st.tuples(st.integers(0, len(LINES) - 1), st.sampled_from("-+=v["), anything), max_size=4))
@settings(max_examples=300, deadline=None)
def test_any_file_resolves_or_is_refused(tmp_path_factory: pytest.TempPathFactory, edits: Any) -> None:
    """The lenet preset with lines removed, added, with other values, and in the wrong tables."""
    lines = list(LINES)
    for at, edit, text in edits:
        key = lines[at].partition("=")[0]
        lines[at] = {
            "-": "",
            "+": f"{lines[at]}\n{text}",
            "=": f"{key}={text}",
            "v": text,
            "[": f"[{text}]\n{lines[at]}",
        }[edit]
    file = tmp_path_factory.getbasetemp() / "fuzz.toml"
    file.write_text("\n".join(lines), encoding="utf-8", errors="surrogatepass")
    resolves_or_is_refused(file)


# ---------------------------------------------------------------------------------------------------------------- scale


def test_scale_multiplies_what_is_counted_in_iterations() -> None:
    tables = small(
        recipe={
            "iterations": 1000,
            "warmup": 25,
            "drops": [500, 7],
            "report_at": [999],
            "eval_every": 70,
            "test_every": 140,
        },
        branch=[{"name": "reinit", "iterations": 300}, {"name": "random-mask"}],
    )
    experiment = resolve(tables, scale=0.1)
    assert experiment.recipe == resolve(tables).recipe.model_copy(
        update={"iterations": 100, "warmup": 2, "drops": (50, 1), "report_at": (100,)}
    )
    assert [branch.iterations for branch in experiment.branch] == [30, None]
    assert experiment.scale == 0.1 and experiment.folder_name == "small-scale0.1"
    assert resolve(tables).folder_name == "small" and resolve(tables, scale=1) == resolve(tables)
    assert resolve(tomllib.loads(to_toml(experiment))) == experiment  # scaled once, not again


def test_the_smallest_and_the_largest_scale() -> None:
    tiny = resolve(small(recipe={"drops": [5], "warmup": 3}), scale=1e-9)
    assert (tiny.recipe.iterations, tiny.recipe.drops, tiny.recipe.warmup) == (1, (1,), 0)
    assert resolve(SMALL, scale=1000).recipe.iterations == 40_000
    assert scaled(resolve(SMALL, scale=0.5), 0.5).scale == 0.25
    with pytest.raises(UsageError, match="scale = 1000000"):
        scaled(resolve(SMALL, scale=1000), 1000)
    with pytest.raises(UsageError, match=r"scale = 0\.0"):
        scaled(resolve(SMALL, scale=1e-300), 1e-300)
    assert "evaluations per training" in refusal(small(recipe={"iterations": 10**6, "eval_every": 1}), scale=1000)
    assert "recipe.iterations = 1000000000000000" in refusal(
        small(recipe={"iterations": 10**12, "eval_every": 10**9}), scale=1000
    )


# --------------------------------------------------------------------------------------------------------------- digest


def test_the_digest_is_of_what_leads_to_a_level_and_nothing_else() -> None:
    digest = lambda level=1, **changes: resolve(small(**changes)).digest(level)
    same = [{"trials": 9}, {"levels": 9}, {"branch": [{"name": "reinit"}]}, {"name": "x"}, {"about": "y"}]
    other = [{"seed": 2}, {"scale": 0.5}, {"strategy": "oneshot"}, {"recipe": {"lr": 0.2}}, {"data": {"validation": 7}}]
    assert {digest(**changes) for changes in same} == {digest()}
    assert len({digest(), *(digest(**changes) for changes in other)}) == len(other) + 1
    short, long = {"densities": [0.5, 0.3]}, {"densities": [0.5, 0.3, 0.1]}
    assert digest(2, prune=short) == digest(2, prune=long)
    assert digest(2, prune=short) != digest(1, prune=short) != digest(1)


def test_the_digest_is_the_same_in_every_process() -> None:
    code = f"from lth.config import resolve; print(resolve({SMALL!r}).digest(2))"
    found = set()
    for seed in "12":
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
        found.add(done.stdout.strip())
    assert found == {resolve(SMALL).digest(2)}


# ---------------------------------------------------------------------------------------------------------------- merge


def test_trials_levels_and_branches_are_added_and_nothing_is_taken_away() -> None:
    stored = resolve(small(trials=3, levels=1, branch=[{"name": "reinit", "count": 2, "levels": "1"}]))
    asked = resolve(small(trials=2, levels=2, branch=[{"name": "reinit", "levels": "2"}, {"name": "random-mask"}]))
    for merged in (merge(stored, asked), merge(asked, stored)):
        assert (merged.trials, merged.levels) == (3, 2)
        assert {(b.name, b.count, b.levels) for b in merged.branch} == {("reinit", 2, (1, 2)), ("random-mask", 1, None)}
    everywhere = resolve(small(branch=[{"name": "reinit"}]))
    assert merge(stored, everywhere).branch[0].levels is None
    assert merge(stored, stored) == stored
    assert merge(stored, resolve(small(name="other", about="other"))).name == "small"


def test_a_longer_ladder_is_taken_from_either_side() -> None:
    short = resolve(small(levels=1, prune={"densities": [0.5]}))
    long = resolve(small(levels=2, prune={"densities": [0.5, 0.3]}))
    assert merge(short, long).prune == merge(long, short).prune == long.prune
    with pytest.raises(UsageError, match=r"prune.densities: \[0.5, 0.3\] there, \[0.4\] here"):
        merge(long, resolve(small(levels=1, prune={"densities": [0.4]})))


def test_every_difference_is_named() -> None:
    stored = resolve(small(branch=[{"name": "reinit", "iterations": 5}]))
    asked = resolve(
        small(seed=2, recipe={"lr": 0.2, "optimizer": "momentum"}, branch=[{"name": "reinit", "iterations": 6}]),
        scale=0.5,
    )
    with pytest.raises(UsageError) as caught:
        merge(stored, asked)
    first, *lines = str(caught.value).splitlines()
    assert first == "it holds another experiment:"
    for said in (
        "recipe.iterations: 40 there, 20 here", "recipe.lr: 0.1 there, 0.2 here",
        "recipe.momentum: nothing there, 0.9 here",
        'recipe.optimizer: "adam" there, "momentum" here', "scale: 1.0 there, 0.5 here", "seed: 1 there, 2 here",
    ):  # fmt: skip
        assert said in lines
    assert re.search(r"branch reinit: .*iterations = 5.* there, .*iterations = 3.* here", lines[-1])
    assert len(lines) == 7


def test_what_is_merged_can_be_read_back() -> None:
    """Two runs that are possible can be too much together: that must not be written to experiment.toml."""
    many, deep = resolve(small(trials=30_000, levels=1)), resolve(small(trials=1, levels=5000))
    with pytest.raises(UsageError, match="at most 100,000"):
        merge(many, deep)


@given(experiments(), st.integers(1, 5), st.integers(0, 2))
@settings(max_examples=50, deadline=None)
def test_an_extension_holds_all_trainings_of_both(tables: dict[str, Any], trials: int, levels: int) -> None:
    stored = resolve(tables)
    asked = resolve(tables | {"branch": []}, trials=trials, levels=min(levels, tables["levels"]))
    merged = merge(stored, asked)
    ids = [{training.id for training in plan(e)} for e in (merged, stored, asked)]
    assert ids[0] >= ids[1] | ids[2]
    for a, b in itertools.combinations((merged, stored, asked), 2):
        assert a.digest(1) == b.digest(1)


# ------------------------------------------------------------------------------------------------------------- the rest


def test_nearest_names() -> None:
    assert config.nearest("lenett", ["lenet", "conv2"]) == "; did you mean 'lenet'?"
    assert config.nearest("zzz", ["lenet", "conv2"]) == "" == config.nearest("x", [])
    known = config.keys()
    for key, meant in {
        "lr": "recipe.lr",
        "rate": "prune.rate",
        "validation": "data.validation",
        "seeds": "seed",
    }.items():
        assert config.nearest_key(key, known) == f"; did you mean {meant!r}?"


@pytest.mark.parametrize(
    ("name", "expected"),
    [("mnist", False), ("./mnist", True), ("a/b", True), ("x.npz", True), ("X.NPZ", True), ("", False), (".", False)],
)
def test_a_path_has_a_slash_or_an_ending(name: str, expected: bool) -> None:
    assert config.is_path(name) is expected
