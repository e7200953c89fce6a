"""A list of values for a key makes a run each, and one report over all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lth import config
from lth.errors import UsageError
from lth.execution import sweep
from lth.results import tables

pytestmark = pytest.mark.figures

QUIET = Console(quiet=True)


def test_lists_stand_for_all_their_pairs() -> None:
    members = config.sweep(["recipe.lr=[0.1,0.2]", "prune.rate=[0.3,0.4]", "seed=5"])
    assert members == [{"recipe.lr": lr, "prune.rate": rate, "seed": 5} for lr in (0.1, 0.2) for rate in (0.3, 0.4)]


def test_a_key_of_lists_takes_a_list_of_lists() -> None:
    assert config.sweep({"model.layers": [20, 10]}) == [{"model.layers": [20, 10]}]
    assert [m["model.layers"] for m in config.sweep(["model.layers=[[20,10],[5]]"])] == [[20, 10], [5]]
    assert len(config.sweep(['branch=[{name="reinit"},{name="random-mask"}]'])) == 1
    assert config.sweep(["prune.densities=[]"]) == [{"prune.densities": []}]


@pytest.mark.parametrize("setting", ["recipe.lr=[]", "recipe.lr=[0.1,0.1]"])
def test_a_list_has_different_values(setting: str) -> None:
    with pytest.raises(UsageError, match=r"recipe.lr takes a list of different values"):
        config.sweep([setting])


def test_too_many_runs_are_refused() -> None:
    with pytest.raises(UsageError, match="1,001 runs is more than 1,000"):
        config.sweep([f"seed={list(range(1001))}"])


def test_members_are_called_after_what_differs() -> None:
    assert config.member_name("lenet", {"recipe.lr": 0.0008, "recipe.optimizer": "sgd"}) == "lenet-lr0.0008-sgd"
    assert config.member_name("lenet", {"model.layers": (25, 9)}) == "lenet-layers25x9"
    assert config.member_name("conv2", {"prune.groups": ["fc", "output"]}) == "conv2-groupsfcxoutput"


def test_a_sweep_runs_each_and_lays_them_over_each_other(tiny: dict[str, Any], tmp_path: Path) -> None:
    options: dict[str, Any] = {"levels": 1, "engine": "torch", "workers": 1, "console": QUIET, "pictures": False}
    found = sweep.sweep(tiny, ["recipe.lr=[0.01,0.02]", "seed=3"], out=tmp_path, **options)
    assert [run.folder.name for run in found] == ["tiny-lr0.01", "tiny-lr0.02"]
    assert [tables.load(run.folder).experiment.recipe.lr for run in found] == [0.01, 0.02]
    assert (tmp_path / "tiny-lr" / "report.html").exists()
    assert (tmp_path / "tiny-lr" / "figures" / "overview.png").exists()
    again = sweep.sweep(tiny, ["recipe.lr=0.01", "seed=3", "name=tiny-lr0.01"], out=tmp_path / "tiny-lr0.01", **options)
    assert len(again) == 1  # one value is no sweep, and out is the run's own folder


def test_a_sweep_of_a_name_of_its_own_has_a_folder_a_member(tiny: dict[str, Any], tmp_path: Path) -> None:
    options: dict[str, Any] = {"levels": 0, "engine": "torch", "workers": 1, "console": QUIET, "pictures": False}
    found = sweep.sweep(tiny, ["recipe.lr=[0.01,0.02]", "name=mine"], out=tmp_path, **options)
    assert [run.folder.name for run in found] == ["mine-lr0.01", "mine-lr0.02"]
    named = sweep.sweep(tiny, ['name=["a","b"]'], out=tmp_path, **options)
    assert [run.folder.name for run in named] == ["a", "b"]


def test_members_that_would_be_one_run_are_refused(tiny: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--levels would make the runs of levels=\[...\] one"):
        sweep.sweep(tiny, ["levels=[1,2]"], levels=0, out=tmp_path / "out", console=QUIET)
    for name in ("a_b.py", "a-b.py"):
        (tmp_path / name).write_text("")
    names = ", ".join(f"'{tmp_path}/{name}:build'" for name in ("a_b.py", "a-b.py"))
    with pytest.raises(UsageError, match=r"two runs of the sweep would go into .*: give values whose names differ"):
        sweep.sweep(tiny, [f"model.name=[{names}]"], out=tmp_path / "out", console=QUIET)
    assert not (tmp_path / "out").exists()


def test_a_wrong_value_in_a_list_is_refused_before_any_work(tiny: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"recipe.lr"):
        sweep.sweep(tiny, ["recipe.lr=[0.01,-1.0]"], out=tmp_path / "out", console=QUIET)
    assert not (tmp_path / "out").exists()
