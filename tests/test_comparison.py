"""Several runs ranked in one table: `lth.compare`, sweeps and reports."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console
from typer.testing import CliRunner

import lth
from lth.cli import app
from lth.errors import UsageError
from lth.execution import sweep
from lth.report import page
from lth.results import comparison
from lth.results.intervals import student
from lth.results.records import Records
from test_report import a_run

pytestmark = pytest.mark.figures

DENSE = ([5000, 5200, 5100], [0.960, 0.962, 0.961])


def runs(tmp_path: Path) -> list[Records]:
    """Winning at level 2, at level 1 with one trial at 2, never, and at level 1 in all trials."""
    better, worse = ([4000] * 3, [0.970, 0.972, 0.971]), ([9000] * 3, [0.95, 0.951, 0.952])
    split = ([4000, 9000, 9000], [0.970, 0.95, 0.951])
    levels = {
        0.001: {0: DENSE, 1: better, 2: better},
        0.002: {0: DENSE, 1: better, 2: split},
        0.003: {0: DENSE, 1: worse, 2: ([9000] * 3, [0.90, 0.91, 0.92])},
        0.004: {0: DENSE, 1: ([4000] * 3, [0.980, 0.982, 0.981]), 2: worse},
    }
    return [a_run(tmp_path / f"lr{lr}", of, recipe=recipe(lr)) for lr, of in levels.items()]


def recipe(lr: float) -> dict[str, Any]:
    return lth.Recipe(optimizer="adam", lr=lr, iterations=50000, batch=60, eval_every=100).model_dump(
        exclude_unset=True
    )


def test_runs_are_ranked_by_winning_density_then_accuracy(tmp_path: Path) -> None:
    rows = comparison.ranked(runs(tmp_path)[::-1])
    assert [row.settings["recipe.lr"] for row in rows] == ["0.001", "0.004", "0.002", "0.003"]
    assert [(row.wins, row.level) for row in rows] == [(True, 2), (True, 1), (True, 1), (False, 1)]
    assert all(set(row.settings) == {"recipe.lr"} for row in rows)
    first, _, third, last = rows
    mean, error = 0.971, math.sqrt((0.001**2 + 0.001**2) / 2 / 3)
    assert first.score.value == pytest.approx(mean)
    assert first.score.high - mean == pytest.approx(student(2) * error)
    assert first.early_stop is not None and first.early_stop.value == 4000
    percents = {level.level: level.percent for level in third.judged.levels}
    assert third.winners == {1: percents[2], 2: percents[1], 3: percents[1]}
    assert comparison.winning_range(third) == (percents[2], percents[1]) and comparison.winning_range(last) is None


def test_the_headline_claims_what_trials_resolve(tmp_path: Path) -> None:
    first, second, third, last = runs(tmp_path)
    said = comparison.headline(comparison.ranked([first, second]))
    assert said == (
        "Of 2 runs, recipe.lr = 0.001 has the sparsest winning tickets, 64.0% of the weights; next is recipe.lr = "
        "0.002, 80.0%. 3 trials do not tell the two apart."
    )
    fourth = runs(tmp_path / "again")[3]
    assert comparison.headline(comparison.ranked([first, fourth])).endswith(
        "The winning levels of single trials differ (95% interval, paired, 3 trials)."
    )
    assert comparison.headline(comparison.ranked([first, third])).endswith("No other run has a winning level.")
    assert comparison.headline(comparison.ranked([third, last])).startswith("Of 2 runs, recipe.lr = 0.004 has")
    assert comparison.headline(comparison.ranked([second, fourth])).startswith(
        "All 2 runs have the sparsest winning tickets, 80.0% of the weights. Most accurate of them: recipe.lr = 0.0"
    )
    alone = a_run(tmp_path / "alone", {0: ([900], [0.9]), 1: ([800], [0.95])}, recipe=recipe(0.5))
    never = a_run(tmp_path / "never", {0: ([900], [0.9]), 1: ([900], [0.85])}, recipe=recipe(0.6))
    assert comparison.headline(comparison.ranked([never, never])).startswith("None of 2 runs has a winning level.")
    assert "trial" not in comparison.headline(comparison.ranked([alone, never]))
    assert comparison.headline([]) == "Nothing is trained yet."


def test_tables_for_people_and_for_programs(tmp_path: Path) -> None:
    every = runs(tmp_path)
    rows = comparison.ranked(every)
    assert comparison.heads(rows)[0] == "recipe.lr" and comparison.cells(rows)[0][:2] == ["0.001", "64.0 (each trial)"]
    assert comparison.cells(rows)[2][1] == "80.0 (64.0 to 80.0)" and comparison.cells(rows)[3][1] == "none"
    table = lth.compare([run.folder for run in every])
    assert table["recipe.lr"].tolist() == ["0.001", "0.004", "0.002", "0.003"]
    assert table["winning_density"].round(2).tolist()[:3] == [0.64, 0.8, 0.8] and math.isnan(
        table["winning_density"][3]
    )
    assert table["test_accuracy"][0] == pytest.approx(0.971) and table["resolved"].tolist()[3] == ""
    combined = comparison.combined(every)
    assert len(combined) == sum(len(run.summary) for run in every) and list(combined)[:3] == [
        "run",
        "recipe.lr",
        "trial",
    ]
    with pytest.raises(UsageError, match="not an empty list"):
        lth.compare([])


def test_other_data_are_not_comparable(tmp_path: Path) -> None:
    levels: Any = {0: DENSE, 1: DENSE}
    both = [a_run(tmp_path / name, levels, data={"name": name}) for name in ("mnist", "fashion-mnist")]
    assert comparison.remarks(comparison.ranked(both))[0].startswith("The runs are trained on different data")
    assert [row.settings["data.name"] for row in comparison.ranked(both)] == ["mnist", "fashion-mnist"]


def test_a_report_of_several_runs_has_the_table_first(tmp_path: Path) -> None:
    every = runs(tmp_path)
    html = page.main(every)
    assert html.index('id="comparison"') < html.index('id="chart-accuracy"') < html.index('id="each-run"')
    assert html.count("<td>0.001</td><td>64.0 (each trial)</td>") == 1
    folders = [str(run.folder) for run in every]
    done = CliRunner().invoke(app, ["report", *folders, "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "has the sparsest winning tickets" in " ".join(done.output.split())
    written = pd.read_csv(tmp_path / "out" / "comparison.csv")
    assert len(written) == 36 and sorted({*written["recipe.lr"]}) == [0.001, 0.002, 0.003, 0.004]


def test_a_sweep_ends_with_the_comparison(tiny: dict[str, Any], tmp_path: Path) -> None:
    console = Console(record=True, width=100, file=io.StringIO())
    options: dict[str, Any] = {"levels": 1, "engine": "torch", "workers": 1, "console": console, "pictures": False}
    found = sweep.sweep(tiny, ["recipe.lr=[0.01,0.02]"], out=tmp_path, **options)
    text = " ".join(console.export_text().split())
    assert "recipe.lr" in text and "runs has a winning level. Most accurate: recipe.lr =" in text
    table = pd.read_csv(tmp_path / "tiny-lr" / "comparison.csv")
    assert table["recipe.lr"].tolist() == [0.01, 0.01, 0.02, 0.02] and table["level"].tolist() == [0, 1, 0, 1]
    assert len(lth.compare(found)) == 2
