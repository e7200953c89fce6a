"""Tables made of synthetic runs with known answers: rows, means, the winning level, and what is damaged."""

from __future__ import annotations

import csv
import gzip
import json
import math
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from lth import config
from lth.errors import UsageError
from lth.results import records, statistics, tables, terminal, verdict

REPORTED = ["test_accuracy_at_101", "val_accuracy_at_101"]


def density_of(level: int) -> float:
    return 0.8**level


def training(level: int, **changes) -> dict:
    """The summary row of one training, all of the contract's columns that its place does not say."""
    row = {
        "density": density_of(level),
        "weights": round(266200 * density_of(level)),
        "status": "done",
        "early_stop_iteration": 4001,
        "val_loss_at_early_stop": 0.07,
        "val_accuracy_at_early_stop": 0.978,
        "test_accuracy_at_early_stop": 0.979,
        "train_accuracy_at_early_stop": 0.99,
        "final_test_accuracy": 0.98,
        "final_train_accuracy": 1.0,
        "final_val_accuracy": 0.981,
        "test_accuracy_at_101": 0.93,
        "val_accuracy_at_101": None,
        "iterations": 50000,
        "engine": "torch",
        "precision": "float32",
        "seconds": 12.5,
        "more": {"than": "the table has columns for"},
    }
    return row | changes


LOSSES = "iteration,val_loss,val_accuracy,test_loss,test_accuracy\n"
WHOLE = LOSSES + "".join(f"{i},0.5,0.875,,\n" for i in range(1, 50002, 2000))  # 26 evaluations: early stops are reached
CURVE = "iteration,val_loss,val_accuracy,test_loss,test_accuracy\n1,2.25,0.125,2.3,0.1\n101,0.5,0.875,,\n"


def make_run(folder: Path, rows: dict[tuple[int, int, str], dict], curve: str | dict = CURVE, **settings) -> Path:
    """A run's folder with one training for each (trial, level, branch), in no particular order."""
    tables = config.read("lenet") | {
        "trials": max((trial for trial, _, _ in rows), default=1),
        "levels": max((level for _, level, _ in rows), default=0),
        **settings,
    }
    tables["recipe"] = tables["recipe"] | {"report_at": [101]}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "experiment.toml").write_text(config.to_toml(config.resolve(tables)))
    places = list(rows)
    random.Random(0).shuffle(places)
    for trial, level, branch in places:
        path = folder / f"trial-{trial}" / f"level-{level:02d}" / ("" if branch == "ticket" else branch)
        path.mkdir(parents=True, exist_ok=True)
        (path / "summary.json").write_text(json.dumps(rows[trial, level, branch], sort_keys=True))
        text = curve if isinstance(curve, str) else curve[trial, level, branch]
        (path / "curve.csv").write_text(text)
    return folder


def table(rows: dict[tuple[int, int, str], dict]) -> pd.DataFrame:
    return pd.DataFrame([dict(zip(records.PLACE, place, strict=True)) | row for place, row in rows.items()])


NOISES = ["noise-0.5-1", "noise-2-1", "noise-10-1"]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    labels = [
        "ticket",
        "random-mask-1",
        *(f"reinit-{n}" for n in range(1, 12)),
        "noise-0.5-1",
        "noise-2-1",
        "noise-10-1",
    ]
    rows = {(trial, level, "ticket"): training(level) for trial in (1, 2) for level in (0, 2, 10)}
    rows |= {(10, 2, label): training(2) for label in labels}
    return make_run(tmp_path / "run", rows)


# ------------------------------------------------------------------------------------------------------------- tables


def test_rows_stand_by_trial_level_branch_and_iteration(run: Path) -> None:
    assert tables.write(run) == 6 + 16
    with (run / "summary.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == [*records.PLACE, *records.RESULTS, *REPORTED, *records.EFFORT]
    assert [row[:2] for row in rows[:6]] == [["1", "0"], ["1", "2"], ["1", "10"], ["2", "0"], ["2", "2"], ["2", "10"]]
    reinits = [f"reinit-{n}" for n in range(1, 12)]
    assert [row[2] for row in rows[6:]] == [
        "ticket",
        "noise-0.5-1",
        "noise-2-1",
        "noise-10-1",
        "random-mask-1",
        *reinits,
    ]
    curves = [line.split(",") for line in (run / "curves.csv").read_text().splitlines()]
    assert curves[0] == list(records.CURVES)
    assert [row[:3] for row in curves[1::2]] == [row[:3] for row in rows]
    assert [row[4] for row in curves[1:]] == ["1", "101"] * len(rows)


def test_contract_of_the_columns() -> None:
    experiment = config.resolve("lenet", ["recipe.report_at=[500,100,100]"])
    assert ",".join(records.summary_columns(experiment)) == (
        "trial,level,branch,density,weights,status,early_stop_iteration,early_stop_reached,val_loss_at_early_stop,"
        "val_accuracy_at_early_stop,test_accuracy_at_early_stop,train_accuracy_at_early_stop,final_test_accuracy,"
        "final_train_accuracy,final_val_accuracy,test_accuracy_at_100,val_accuracy_at_100,test_accuracy_at_500,"
        "val_accuracy_at_500,iterations,engine,precision,seconds"
    )
    assert ",".join(records.CURVES) == (
        "trial,level,branch,density,iteration,val_loss,val_accuracy,test_loss,test_accuracy"
    )


def test_numbers_pass_through_as_they_are_written(tmp_path: Path) -> None:
    numbers = {"final_train_accuracy": 1.0, "val_loss_at_early_stop": 5e-324, "density": 0.1 + 0.2, "seconds": 1e22}
    rows = {(1, 0, "ticket"): training(0, **numbers, val_accuracy_at_early_stop=None)}
    run = make_run(tmp_path / "run", rows, CURVE + "201,1e-05,1.0,0.30000000000000004,1.0\n")
    tables.write(run)
    row = next(csv.DictReader((run / "summary.csv").read_text().splitlines()))
    assert [row[name] for name in numbers] == ["1.0", "5e-324", "0.30000000000000004", "1e+22"]
    assert row["val_accuracy_at_early_stop"] == row["val_accuracy_at_101"] == ""
    assert "files" not in row
    last = (run / "curves.csv").read_text().splitlines()[-1]
    assert last == "1,0,ticket,0.30000000000000004,201,1e-05,1.0,0.30000000000000004,1.0"
    loaded = tables.load(run)
    assert loaded.summary["val_loss_at_early_stop"][0] == 5e-324
    assert loaded.curves["test_loss"].iloc[-1] == 0.1 + 0.2


def test_evaluations_are_sorted_by_number(tmp_path: Path) -> None:
    header, first, second = CURVE.splitlines()
    run = make_run(
        tmp_path / "run", {(1, 0, "ticket"): training(0)}, "\n".join([header, second, "21,1,1,,", first, ""])
    )
    assert tables.load(run).curves["iteration"].tolist() == [1, 21, 101]


def test_made_again_the_tables_are_the_same_bytes(run: Path, tmp_path: Path) -> None:
    tables.write(run)
    first = [(run / name).read_bytes() for name in ("summary.csv", "curves.csv")]
    before = sorted(run.iterdir())
    tables.write(run)
    assert sorted(run.iterdir()) == before  # nothing is left beside
    for path in before[:-1]:
        if path.suffix == ".csv":
            path.unlink()
    moved = shutil.copytree(run, tmp_path / "elsewhere")
    tables.load(moved)
    assert [(moved / name).read_bytes() for name in ("summary.csv", "curves.csv")] == first


def test_unfinished_and_foreign_folders_are_passed_over(run: Path) -> None:
    count = tables.write(run)
    for name in ("trial-1/.level-03", "trial-1/level-02/.reinit-1", ".trial-3/level-00", "trial-1/level-02/Notes"):
        shutil.copytree(run / "trial-1/level-10", run / name)
    (run / "trial-2/level-03").mkdir()
    assert tables.write(run) == count


def test_continued_training_stands_beside_the_tickets(tmp_path: Path) -> None:
    rows = {(1, level, label): training(level) for level in (0, 1) for label in ("ticket", "continued")[: level + 1]}
    summary = tables.load(make_run(tmp_path / "run", rows, strategy="continued")).summary
    assert list(summary["branch"]) == ["ticket", "ticket", "continued"]


def test_a_training_that_ends_while_tables_are_made_is_in_them(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tables.load(run).summary
    last = max(run.glob("trial-1/level-*"))
    last.rename(run / "later")
    tables.write(run)
    make, calls = tables.texts, []

    def slow(*given: Any) -> dict[str, str]:
        calls.append(1)
        made = make(*given)
        if len(calls) == 1:
            (run / "later").rename(last)
            tables.write(run)  # as a run does that ends now
        return made

    monkeypatch.setattr(tables, "texts", slow)
    (run / "summary.csv").write_text((run / "summary.csv").read_text().replace(",done,", ",gone,", 1))
    assert len(tables.load(run).summary) == len(whole)
    assert (run / "summary.csv").read_text().count("\n") == len(whole) + 1


def test_collect_reads_without_writing(run: Path) -> None:
    collected = tables.collect(run)
    assert not list(run.glob("*.csv"))
    loaded = tables.load(run)
    pd.testing.assert_frame_equal(collected.summary, loaded.summary)
    pd.testing.assert_frame_equal(collected.curves, loaded.curves)
    assert loaded.experiment.name == "lenet"
    assert loaded.environment is None


def test_three_files_are_enough_and_curves_may_be_packed(run: Path, tmp_path: Path) -> None:
    whole = tables.load(run)
    folder = tmp_path / "results"
    folder.mkdir()
    for name in ("experiment.toml", "summary.csv"):
        shutil.copy(run / name, folder)
    (folder / "curves.csv.gz").write_bytes(gzip.compress((run / "curves.csv").read_bytes()))
    (folder / "environment.json").write_text('{"threads": 2}')
    read = tables.load(folder)
    pd.testing.assert_frame_equal(read.curves, whole.curves)
    assert read.environment == {"threads": 2}
    assert tables.write(folder) == 0
    assert not (folder / "curves.csv").exists()


def test_tables_grow_with_the_run_and_never_lose_rows(run: Path) -> None:
    assert len(tables.load(run).summary) == 22
    shutil.copytree(run / "trial-1/level-00", run / "trial-3/level-00")
    assert len(tables.load(run).summary) == 23
    shutil.rmtree(run / "trial-10")  # as where someone keeps the tables and a few tickets
    assert len(tables.load(run).summary) == 23


def test_rebuilding_is_cheap(tmp_path: Path) -> None:
    lines = "".join(f"{100 * i + 1},{0.5 / (i + 1)!r},0.9731,{0.6 / (i + 1)!r},0.9712\n" for i in range(500))
    labels = ["ticket", *(f"reinit-{n}" for n in range(1, 20))]
    rows = {(1, level, label): training(level) for level in range(5) for label in labels}
    run = make_run(tmp_path / "run", rows, CURVE.splitlines(keepends=True)[0] + lines)
    code = "import sys, time; from lth.results import tables; t = time.process_time(); tables.write(sys.argv[1])\n"
    code += "print(time.process_time() - t); assert 'torch' not in sys.modules"
    out = subprocess.run([sys.executable, "-c", code, str(run)], capture_output=True, text=True, check=True)
    assert float(out.stdout) < 10 * 100 / 3000  # ten seconds for 3,000 trainings


# ------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("summary.csv", "", "delete it, and `lth report"),
        ("summary.csv", "trial,level\n1,0\n", "no column branch, density"),
        ("summary.csv", None, "its last line is truncated"),
        ("summary.csv", ("0.979", "high"), "test_accuracy_at_early_stop holds a value that is not a number"),
        ("summary.csv", ("1,0,ticket", "1.5,0,ticket"), "trial holds a value that is not an integer"),
        ("summary.csv", ("1,0,ticket,1.0", "1,0,ticket,"), "column density has blanks"),
        ("summary.csv", ("\n1,2,ticket,", "\n1,0,ticket,"), "it has trial 1, level 0, branch ticket twice"),
        ("environment.json", "{", "environment.json is damaged"),
        ("experiment.toml", "name = ", "experiment.toml is not valid TOML"),
    ],
)
def test_damaged_files_are_named_with_what_to_do(run: Path, name: str, text: str | tuple | None, said: str) -> None:
    tables.write(run)
    old = (run / name).read_text() if (run / name).exists() else ""
    text = old[:-3] if text is None else old.replace(*text, 1) if isinstance(text, tuple) else text
    (run / name).write_text(text)
    with pytest.raises(UsageError) as error:
        tables.load(run)
    assert said in str(error.value)
    assert str(run / name) in str(error.value)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("curves.csv", "2.25,", '2.25,"'),
        ("curves.csv", "val_loss", "loss"),
        ("curves.csv", "0.875", "0.876"),
        ("summary.csv", "0.979", "0.978"),
    ],
)
def test_tables_that_are_not_what_the_trainings_make_are_made_again(
    run: Path, name: str, old: str, new: str, caplog: pytest.LogCaptureFixture
) -> None:
    tables.write(run)
    right = (run / name).read_text()
    assert old in right
    (run / name).write_text(right.replace(old, new, 1))
    found = tables.load(run)
    assert (run / name).read_text() == right
    assert f"{run / name} did not match the trainings' files" in caplog.text
    pd.testing.assert_frame_equal(found.summary, tables.collect(run).summary)


def test_tables_of_other_trainings_are_refused(run: Path) -> None:
    tables.write(run)
    text = (run / "summary.csv").read_text()
    (run / "summary.csv").write_text(text.replace("\n1,0,ticket", "\n7,0,ticket", 1))
    with pytest.raises(UsageError, match=r"summary.csv is damaged: its rows belong to other trainings"):
        tables.load(run)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("summary.json", "{"),
        ("summary.json", "[]"),
        ("curve.csv", ""),
        ("curve.csv", "iteration,val_loss\n1,2\n"),
        ("curve.csv", CURVE + "201,0.5,"),
        ("curve.csv", CURVE + "x,0.5,0.9,,\n"),
        ("curve.csv", None),
    ],
)
def test_a_damaged_training_is_named(run: Path, name: str, text: str | None) -> None:
    path = run / "trial-2/level-10" / name
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(UsageError, match=r"level-10.* is damaged: .*`lth repair .*/run` shows what can be done"):
        tables.load(run)
    assert not (run / "curves.csv").exists()
    assert not [path for path in run.iterdir() if path.name.startswith(".")]


def test_a_packed_table_that_is_cut_off(run: Path) -> None:
    tables.write(run)
    packed = gzip.compress((run / "curves.csv").read_bytes())
    (run / "curves.csv").unlink()
    (run / "curves.csv.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(UsageError, match=r"curves.csv.gz is damaged"):
        tables.load(run)


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere is not a run folder: it does not exist"):
        tables.load(tmp_path / "nowhere")
    with pytest.raises(UsageError, match=r"holds no experiment.toml"):
        tables.load(tmp_path)


def test_a_run_of_which_nothing_is_finished(tmp_path: Path) -> None:
    run = tables.load(make_run(tmp_path / "run", {}))
    assert run.summary.empty and list(run.curves.columns) == list(records.CURVES)
    assert terminal.headline_table(run) == []
    assert verdict.of(run).winning is None
    assert "nothing trained yet" in rendered(run)
    (run.folder / "summary.csv").write_text(",".join(records.summary_columns(run.experiment)) + "\n")
    with pytest.raises(UsageError, match=r"curves.csv is missing.*copy the folder again"):
        tables.load(run.folder)


# -------------------------------------------------------------------------------------------------- means and winning


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("ticket", "ticket"),
        ("continued", "continued"),
        ("reinit-12", "reinit"),
        ("random-mask-1", "random-mask"),
        ("noise-0.5-1", "noise-0.5"),
        ("noise-2-10", "noise-2"),
    ],
)
def test_family(label: str, name: str) -> None:
    assert statistics.family(label) == name


def test_aggregate_counts_every_training_and_leaves_out_what_has_no_value() -> None:
    rows = {
        (1, 1, "reinit-1"): training(1, final_test_accuracy=0.9),
        (1, 1, "reinit-2"): training(1, final_test_accuracy=0.8),
        (2, 1, "reinit-1"): training(1, final_test_accuracy=0.1, status="diverged"),
        (2, 1, "reinit-2"): training(1, final_test_accuracy=math.nan),
        (2, 1, "reinit-10"): training(1, final_test_accuracy=0.4, status="collapsed"),
        (1, 2, "reinit-1"): training(2, status="diverged"),
        (1, 1, "continued"): training(1, final_test_accuracy=0.6),
        (1, 1, "ticket"): training(1, final_test_accuracy=0.7, early_stop_iteration=101),
        (2, 1, "ticket"): training(1, final_test_accuracy=0.5, early_stop_iteration=301),
    }
    found = statistics.aggregate(table(rows), "final_test_accuracy")
    assert list(found.columns) == ["family", "level", "mean", "min", "max", "n", "density", "weights"]
    assert found[["family", "level", "min", "max", "n"]].values.tolist() == [
        ["ticket", 1, 0.5, 0.7, 2],
        ["continued", 1, 0.6, 0.6, 1],
        ["reinit", 1, 0.4, 0.9, 3],
    ]
    assert found["mean"].tolist() == pytest.approx([0.6, 0.6, 0.7])
    assert found["density"].tolist() == pytest.approx([0.8] * 3)
    early_stop = statistics.aggregate(table(rows), "early_stop_iteration", by=["branch", "level"])
    assert early_stop[["branch", "mean", "n"]].values.tolist() == [
        ["ticket", 201, 2],
        ["continued", 4001, 1],
        ["reinit-1", 4001, 1],
        ["reinit-2", 4001, 2],
        ["reinit-10", 4001, 1],
    ]
    assert statistics.aggregate(table(rows).iloc[:0], "final_test_accuracy").empty
    with pytest.raises(UsageError, match=r"no column 'final_test'.*final_test_accuracy"):
        statistics.aggregate(table(rows), "final_test")


def test_a_mean_lies_between_minimum_and_maximum() -> None:
    rows = {(trial, 0, "ticket"): training(0, final_test_accuracy=0.1) for trial in range(1, 7)}
    found = statistics.aggregate(table(rows), "final_test_accuracy")
    assert found["min"][0] <= found["mean"][0] <= found["max"][0]


def tickets(*levels: list[tuple[float, float] | None]) -> pd.DataFrame:
    """Tickets of (early-stop iteration, test accuracy there), a list of trials for each level."""
    return table(
        {
            (trial, level, "ticket"): training(level, early_stop_iteration=pair[0], test_accuracy_at_early_stop=pair[1])
            for level, pairs in enumerate(levels)
            for trial, pair in enumerate(pairs, start=1)
            if pair
        }
    )


def winning_level(summary: pd.DataFrame) -> int | None:
    return verdict.judge(summary, config.resolve("lenet").recipe).winning


DENSE = [(4001, 0.98), (3001, 0.97)]


@pytest.mark.parametrize(
    ("levels", "winning"),
    [
        ([DENSE, [(3901, 0.981), (3001, 0.97)], [(3801, 0.982), (3001, 0.97)]], 2),
        ([DENSE, [(3901, 0.981), (3001, 0.97)], [(3801, 0.979), (3001, 0.97)]], 1),  # level 2: less accurate
        ([DENSE, [(3901, 0.981), (3001, 0.97)], [(4001, 0.99), (3101, 0.99)]], 1),  # level 2: later
        ([DENSE, [(4101, 0.98), (3001, 0.98)]], None),
        ([DENSE, [(1001, 0.5), (1001, 0.5)], [(3901, 0.98), (3001, 0.98)]], 2),  # a level between may lose
        ([DENSE, [(5001, 0.99), (1001, 0.97)]], 1),  # on average, not in every trial
        ([DENSE, [(3501, 0.975), (3501, 0.975)]], 1),
        ([[(1, 0.97), (1, 0.9784)], [(1, 0.9742), (1, 0.9742)]], 1),  # equal counts; sums differ in their last bit
        ([DENSE, [(4001, 0.975), (3001, 0.9749)]], None),  # one test example in 10,000 is no rounding
        ([DENSE, [None, (3001, 0.97)]], 1),  # compared with the level 0 of its own trials
        ([DENSE, [None, (3501, 0.975)]], None),
        ([[None, (3001, 0.97)], [(100, 1.0), None]], None),  # no trial has both
        ([DENSE], None),
        ([DENSE, [(math.nan, 0.99), (3501, math.nan)]], None),
    ],
)
def test_winning_level(levels: list, winning: int | None) -> None:
    assert winning_level(tickets(*levels)) == winning


def test_winning_index_needs_no_table() -> None:
    rows = [(1, 0.8, [(-100.0, 0.01)]), (2, 0.64, [(0.0, -1e-12)]), (3, 0.5, [(1.0, 0.1)])]
    assert statistics.winning_index(rows) == 2
    assert statistics.winning_index([(4, 0.3, [(0, 0)]), (3, 0.3, [(0, 0)])]) == 3
    assert statistics.winning_index([]) is None


def test_only_tickets_that_did_not_diverge_win() -> None:
    better = {"early_stop_iteration": 101, "test_accuracy_at_early_stop": 1.0}
    rows = {(1, 0, "ticket"): training(0), (1, 1, "reinit-1"): training(1, **better)}
    assert winning_level(table(rows)) is None
    assert winning_level(table(rows | {(1, 1, "ticket"): training(1, **better, status="diverged")})) is None
    assert winning_level(table(rows | {(1, 1, "ticket"): training(1, **better)})) == 1


def test_the_smallest_density_wins_whatever_its_level() -> None:
    rows = {(1, level, "ticket"): training(level, density=d) for level, d in enumerate([1.0, 0.1, 0.5])}
    assert winning_level(table(rows)) == 1


# ---------------------------------------------------------------------------------------------------------- headline


def headline_run(folder: Path, trials: int = 3, reinits: int = 2, **settings) -> records.Records:
    rows = {}
    for trial in range(1, trials + 1):
        for level in range(4):
            when, accuracy = 30001 - 5000 * (level == 2) + 100 * trial, 0.975 + 0.001 * (level == 2) + 0.001 * trial
            rows[trial, level, "ticket"] = training(
                level, early_stop_iteration=when, test_accuracy_at_early_stop=accuracy - 0.01 * (level == 3)
            )
            for n in range(1, reinits + 1) if level else ():
                rows[trial, level, f"reinit-{n}"] = training(level, early_stop_iteration=40001 + n)
    return tables.load(make_run(folder, rows, WHOLE, **settings))


def test_headline_table(tmp_path: Path) -> None:
    run = headline_run(tmp_path / "run")
    rows = terminal.headline_table(run)
    assert [row.level for row in rows] == [0, 1, 2, 3]
    assert [row.winning for row in rows] == [False, False, True, False]
    assert [row.weights for row in rows] == [266200, 212960, 170368, 136294]
    assert rows[2].percent == pytest.approx(64)
    assert rows[2].early_stop["ticket"] == terminal.Stat(25201, 25101, 25301, 3)
    assert rows[2].score["ticket"] == pytest.approx((0.978, 0.977, 0.979, 3))
    assert rows[2].early_stop["reinit"] == (40002.5, 40002, 40003, 6)
    assert list(rows[0].early_stop) == ["ticket"]
    assert [row.n for row in rows] == [3] * 4


def rendered(run: records.Records, width: int = 80) -> str:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        for table in terminal.render_tables(run, console):
            console.print(table)
    return capture.get()


def test_the_table_fits_80_columns(tmp_path: Path) -> None:
    text = rendered(headline_run(tmp_path / "run"))
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    for said in ("64.0", "170,368", "25,201", "25,101-25,301", "97.80", "97.70-97.90", "40,002", "97.90"):
        assert said in text
    (line,) = [line for line in text.splitlines() if "25,201" in line]
    assert line.split()[:2] == ["*", "2"]
    assert "* winning level" in text
    assert "mean (min-max) of 3 trials" in text


def test_of_many_branches_each_has_a_table_where_the_terminal_is_narrow(tmp_path: Path) -> None:
    rows = {
        (trial, level, branch): training(level, early_stop_iteration=20000 + 10 * trial)
        for trial in (1, 2)
        for level in (0, 1)
        for branch in ("ticket", *(["reinit-1", "random-mask-1"] if level else []))
    }
    run = tables.load(make_run(tmp_path / "run", rows))
    narrow, wide = rendered(run), rendered(run, 200)
    assert max(map(len, narrow.splitlines())) <= 80
    assert [text.count("left %") for text in (narrow, wide)] == [2, 1]
    assert narrow.count("20,010-20,020") == 6 and wide.count("20,010-20,020") == 4
    for name in ("reinit", "random-mask"):
        assert narrow.count(f"{name} compared") == wide.count(f"{name} compared") == 1
    assert narrow.count("accuracy on the test set") == 1 and narrow.index("accuracy on") > narrow.rindex("20,020")


def test_the_table_says_what_diverged(tmp_path: Path) -> None:
    better = {"when": 100, "accuracy": 0.9}
    rows = {(trial, 0, "ticket"): training(0, **better) for trial in (1, 2)}
    assert "diverged" not in rendered(tables.load(make_run(tmp_path / "whole", rows)))
    rows |= {(trial, 1, "ticket"): training(1, **better, status="diverged") for trial in (1, 2)}
    assert "left out: 2 trainings that diverged" in rendered(tables.load(make_run(tmp_path / "lost", rows)))


def test_the_table_of_tickets_alone_has_a_line_a_level(tmp_path: Path) -> None:
    text = rendered(headline_run(tmp_path / "run", reinits=0, scale=0.1))
    assert "25,201  25,101-25,301" in text
    assert "scale 0.1" in text
    single = rendered(headline_run(tmp_path / "single", trials=1))
    assert "25,101-" not in single
    assert "lenet: 1 trial" in single


def test_the_table_of_a_run_whose_trials_diverged(tmp_path: Path) -> None:
    failed = training(0, status="diverged", early_stop_iteration=None, test_accuracy_at_early_stop=None)
    run = tables.load(make_run(tmp_path / "run", {(1, 0, "ticket"): failed}))
    (row,) = terminal.headline_table(run)
    assert (row.n, row.early_stop, row.winning) == (0, {}, False)
    assert "No ticket can be" in rendered(run)
