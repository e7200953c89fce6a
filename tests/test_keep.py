"""Disk: whose trained weights stay, what is made again without them, and what is said before the disk is full."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import lth
from lth.config import resolve
from lth.errors import LthError, UsageError
from lth.execution import pace, resources, setup
from lth.execution.repair import repair
from lth.plan import keeps_trained, plan, readers, reads_trained
from lth.storage import layout, outcomes
from stored_runs import contents

QUIET = Console(quiet=True)


def run(tables: dict[str, Any], out: Path, keep: str, **options: Any) -> dict[str, Any]:
    """Run it; its files, but for the experiment's, which says `keep`."""
    lth.run(tables | {"store": {"keep": keep}}, out=out, engine="torch", workers=1, console=QUIET, **options)
    return {name: content for name, content in contents(out).items() if name != "experiment.toml"}


def trained(files: dict[str, Any]) -> set[str]:
    return {name.rpartition("/")[0] for name in files if name.endswith(layout.TRAINED)}


def without(files: dict[str, Any]) -> dict[str, Any]:
    return {name: content for name, content in files.items() if not name.endswith(layout.TRAINED)}


STRATEGIES = {
    "resetting": {"trial-1/level-02", "trial-2/level-02"},
    "continued": {"trial-1/level-02/continued", "trial-2/level-02/continued"},
    "oneshot": {"trial-1/level-00", "trial-2/level-00"},
}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_is_kept_and_that_nothing_else_changes(strategy: str, tiny: dict[str, Any], tmp_path: Path) -> None:
    tiny |= {"trials": 2, "strategy": strategy, "branch": [{"name": "reinit"}]}
    everything = run(tiny, tmp_path / "all", "all")
    last = run(tiny, tmp_path / "last", "last")
    tickets = run(tiny, tmp_path / "tickets", "tickets")
    assert len(trained(everything)) == len(plan(resolve(tiny)))
    assert trained(last) == STRATEGIES[strategy] and trained(tickets) == set()
    assert without(everything) == without(last) == without(tickets)
    said: list[str] = []
    repair(tmp_path / "tickets", yes=False, say=said.append)
    assert said == [f"{tmp_path / 'tickets'}: nothing is damaged"]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("keep", ["last", "tickets"])
def test_a_run_of_which_little_is_kept_can_be_extended(
    strategy: str, keep: str, tiny: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny |= {"trials": 2, "strategy": strategy}
    whole = run(tiny, tmp_path / "whole", keep, levels=3)
    run(tiny, tmp_path / "grown", keep)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "grown").rglob("summary.json")}
    assert run(tiny, tmp_path / "grown", keep, levels=3) == whole
    assert before == {path: path.stat().st_mtime_ns for path in before}  # what was done again is no new training


def test_other_bits_are_not_trained_on(tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tiny, tmp_path / "run", "tickets")
    from lth.execution import job

    right = job.perform
    monkeypatch.setattr(job, "perform", lambda *given: {n: c + b"x" for n, c in right(*given).items()})
    with pytest.raises(LthError, match=r"level-02: the repeated training has other bits"):
        run(tiny, tmp_path / "run", "tickets", levels=3)
    assert not (tmp_path / "run/trial-1/level-03").exists()


def test_the_checkpoint_of_a_training_that_is_done_again_stays(tiny: dict[str, Any], tmp_path: Path) -> None:
    """Its summary is there, its trained weights are not: what is begun of them is not thrown away."""
    run(tiny, tmp_path / "run", "last")
    again, whole = (layout.checkpoint_path(tmp_path / "run", f"trial-1/level-0{n}") for n in (0, 2))
    for path in (again, whole):
        path.write_bytes(b"begun")
    outcomes.clear_unfinished(tmp_path / "run")
    assert again.exists() and not whole.exists()


def test_keeping_less_later_gives_the_place_back(tiny: dict[str, Any], tmp_path: Path) -> None:
    assert len(trained(run(tiny, tmp_path / "run", "all"))) == 3
    assert trained(run(tiny, tmp_path / "run", "last")) == {"trial-1/level-02"}
    assert resolve(tmp_path / "run/experiment.toml").store.keep == "last"


def test_keeping_more_later_makes_nothing_damaged(tiny: dict[str, Any], tmp_path: Path) -> None:
    """What an earlier call did not keep is not there, and is no damage."""
    run(tiny, tmp_path / "run", "tickets")
    said: list[str] = []
    run(tiny, tmp_path / "run", "all", trials=2)
    assert resolve(tmp_path / "run/experiment.toml").store.keep == "all"
    repair(tmp_path / "run", yes=True, say=said.append)
    assert said == [f"{tmp_path / 'run'}: nothing is damaged"] and (tmp_path / "run/trial-1/level-02").exists()


def test_a_diverged_trunk_needs_nothing_more(tiny: dict[str, Any], tmp_path: Path) -> None:
    tiny["recipe"] |= {"optimizer": "sgd", "lr": 1e30}
    assert trained(run(tiny, tmp_path / "run", "tickets")) == set()


def test_the_plan_says_who_reads_trained_weights(tiny: dict[str, Any]) -> None:
    experiment = resolve(tiny | {"branch": [{"name": "random-mask"}]})
    read = {t.id: reads_trained(t) for t in plan(experiment)}
    assert read["trial-1/level-00"] is None and read["trial-1/level-01/random-mask-1"] is None
    assert read["trial-1/level-02"] == "trial-1/level-01"
    assert [t.id for t in readers(experiment, "trial-1/level-01")] == ["trial-1/level-02"]
    assert not list(readers(experiment, "trial-1/level-02")) and keeps_trained(experiment, "trial-1/level-01")


def test_a_disk_that_is_too_small_is_said_before_the_start(
    tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 10_000))
    with pytest.raises(UsageError, match=r"run would take about \d+ MiB, and 0 MiB are free there; .* store.keep=last"):
        run(tiny | {"levels": 40, "prune": {"rate": 0.1}}, tmp_path / "run", "all")
    assert not (tmp_path / "run").exists()


def test_the_estimate_is_near(tiny: dict[str, Any], tmp_path: Path) -> None:
    from lth import data

    tiny["model"]["layers"] = [300, 100]
    for keep in ("all", "tickets"):
        experiment = resolve(tiny | {"store": {"keep": keep}})
        loaded = data.load(experiment.data.name)
        bench = setup.set_up(experiment, resources.Resources("torch", "cpu", "float32", 1), tmp_path, loaded)
        run(tiny, tmp_path / keep, keep)
        ladder = setup.check(experiment, loaded)
        size = sum(path.stat().st_size for path in (tmp_path / keep).rglob("*") if path.is_file())
        assert 0.7 < sum(map(pace.bytes_of(bench, ladder), plan(experiment))) / size < 1.6


def test_weights_that_were_not_kept_are_not_exported(tiny: dict[str, Any], tmp_path: Path) -> None:
    run(tiny, tmp_path / "run", "tickets")
    with pytest.raises(UsageError, match=r"store.keep.*--weights start .*; lth run --ticket .*/ticket.safetensors"):
        lth.export(tmp_path / "run", 1, 1, tmp_path / "weights.pt")
    lth.export(tmp_path / "run", 1, 1, tmp_path / "weights.pt", weights="start", say=print)
