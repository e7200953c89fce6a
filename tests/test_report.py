"""The report without a browser: what it says, what its charts are made of, and that nothing in it can become code."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects
import pytest
from typer.main import get_command
from typer.testing import CliRunner

from lth import config
from lth.cli import app
from lth.errors import UsageError
from lth.measures import anatomy
from lth.measures import tables as measures
from lth.measures.ticket_anatomy import Anatomy, dissect
from lth.report import charts, page, words
from lth.report.beside import Beside, Claim, beside
from lth.report.charts import Line
from lth.results import sentences, tables, verdict
from lth.results.records import Records
from test_plots import curve
from test_records import make_run, training

pytestmark = pytest.mark.figures

HOSTILE = "</script ></script><img src=x onerror=\"window.hacked='yes'\">&amp;<!--"


def a_run(
    folder: Path,
    by_level: Mapping[int, tuple[list[int], list[float]]],
    branch: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Records:
    """A run of which each level's early stops and test accuracies are given, by trial; None is no training."""
    rows = {
        (trial, level, "ticket"): training(level, early_stop_iteration=stop, test_accuracy_at_early_stop=accuracy)
        for level, (stops, accuracies) in by_level.items()
        for trial, (stop, accuracy) in enumerate(zip(stops, accuracies, strict=True), start=1)
        if stop is not None
    }
    changes = branch or {}
    for place, change in changes.items():
        rows[place] = rows.get(place, training(place[1])) | change
    branches = [{"name": "reinit"}] if any(place[2] == "reinit-1" for place in rows) else []
    return tables.load(make_run(folder, rows, curve(last=12001), **{"branch": branches} | settings))


# ------------------------------------------------------------------------------------------------------------- words


def test_the_first_screen_says_what_was_run_what_it_shows_and_what_is_next(tmp_path: Path) -> None:
    levels = {0: ([5200] * 5, [0.975] * 5), 1: ([4000] * 5, [0.979] * 5), 2: ([9000] * 5, [0.99] * 5)}
    run = a_run(tmp_path / "run", levels)
    assert words.subject(run).endswith(": 5 trials, 2 prunings down to 64.0% of the weights, 50,000 iterations.")
    assert words.headline(run) == "Winning level: 80.0% of the weights, resolved by 5 trials."
    facts = dict(sentences.facts(verdict.of(run)))
    assert facts["winning level"] == "80.0% of the weights (level 1)"
    assert facts["compared with the whole network"].startswith(
        "early stop 1.30 times sooner (95% interval 1.30 to 1.30)"
    )
    assert facts["matching level"].startswith("64.0% of the weights (level 2), the sparsest within")
    html = page.main([run])
    top = html[: html.index('<section id="score"')]
    for text in (words.subject(run), words.headline(run), *facts, *facts.values(), "Holm", 'id="chart-accuracy"'):
        assert text in html.replace("&#x27;", "'")[: len(top)], text
    assert "Unfinished" not in top and html.rindex("<h2>") == html.index("<h2>Settings</h2>")


def test_a_step_without_a_command_has_no_empty_box(tmp_path: Path) -> None:
    levels = {0: ([12001], [0.9]), 1: ([12001], [0.9])}
    run = a_run(tmp_path / "run", levels)
    ((what, command), *_) = words.next_steps(run)
    assert what.startswith("The early stop was not reached") and not command
    assert what in page.main([run]).replace("&#x27;", "'") and "<code></code>" not in page.main([run])


def test_next_steps_are_commands_that_the_run_calls_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    levels = {0: ([5200, 5100], [0.975] * 2), 1: ([4000, 5300], [0.979] * 2)}
    run = a_run(tmp_path / "run", levels)
    again = f"lth run {run.folder}/experiment.toml --out {run.folder}"
    asked = [command for _, command in words.next_steps(run)]
    assert asked == [
        f"{again} --trials 5",
        f"{again} --branches reinit:1",
        f"{again} --levels 6",
        f"lth export {run.folder} --to ticket.safetensors",
    ]
    for line in asked:
        _, name, *arguments = shlex.split(line)
        get_command(app).commands[name].make_context(name, arguments)  # type: ignore[attr-defined]
    alone = dataclasses.replace(run, summary=run.summary[run.summary["trial"] == 1])
    assert words.next_steps(alone)[0] == ("Train the 2 trainings that are missing:", again)
    monkeypatch.setattr(words, "each_training", lambda folder: iter(()))
    asked = [command for _, command in words.next_steps(run)]
    assert asked == [f"lth run {run.folder}/experiment.toml"], "tables alone cannot be extended"


@pytest.mark.parametrize(
    ("levels", "said"),
    [
        ({}, "Nothing is trained yet."),
        ({0: ([900], [0.9])}, "No ticket can be compared"),
        ({1: ([9], [0.9])}, "No ticket"),
    ],
)
def test_the_headline_of_what_is_hardly_begun(tmp_path: Path, levels: Any, said: str) -> None:
    run = a_run(tmp_path / "run", levels, trials=2, levels=3)
    assert words.headline(run).startswith(said)
    expected = f"{len(run.summary)} of 8 trainings are stored"
    assert expected in " ".join(words.notes(run))
    assert "<main" in page.main([run])


def test_diverged_and_collapsed_trainings_are_counted_and_what_they_end_is_not_missed(tmp_path: Path) -> None:
    changes = {
        (1, 1, "ticket"): {"status": "diverged", "early_stop_iteration": None, "test_accuracy_at_early_stop": None},
        (2, 2, "ticket"): {"status": "collapsed"},
    }
    levels: Any = {0: ([900, 900], [0.9, 0.9]), 1: ([900, 900], [0.9, 0.9]), 2: ([None, 900], [None, 0.9])}
    run = a_run(tmp_path / "run", levels, changes)
    said = " ".join(words.notes(run))
    assert words.progress(run) == (5, 5) and "Unfinished" not in said
    assert "1 of 5 trainings diverged; means leave it out." in said and "1 of 5 trainings collapsed" in said


def test_the_winning_level_and_unreached_early_stops_are_marked(tmp_path: Path) -> None:
    rows = {(1, 1, "reinit-1"): {"early_stop_iteration": 12001}}
    run = a_run(tmp_path / "run", {0: ([900] * 2, [0.97] * 2), 1: ([900] * 2, [0.98] * 2)}, rows)
    lines = {name: line for _, lines in charts.by_density([run]) for name, line in lines.items()}
    ticket, reinit = lines["early_stop_iteration"]
    assert (ticket.winning, ticket.late, reinit.winning, reinit.late) == (1, [], None, [1])
    assert all(line.late == [] for line in lines["final_test_accuracy"])
    assert {curves["winning"] for curves in charts.data_by_iteration([run])} == {1}
    html = page.main([run])
    assert "<td>1 *</td>" in html and "early-stop iteration; * winning level; + early stop not reached" in html


# ------------------------------------------------------------------------------------------------------------ charts


@pytest.fixture
def run(tmp_path: Path) -> Records:
    levels = {n: ([900 - 10 * n, 880 - 10 * n], [0.9 + 0.01 * n, 0.91 + 0.01 * n]) for n in range(4)}
    return a_run(tmp_path / "run", levels, {(t, n, "reinit-1"): {} for t in (1, 2) for n in (1, 2, 3)})


def test_lines_are_the_means_of_the_table(run: Records) -> None:
    found = {chart.id: lines for chart, lines in charts.by_density([run])}
    assert list(found) == ["accuracy", "early-stop", "loss", "seconds"]
    table = pd.read_csv(run.folder / "summary.csv")
    tickets = table[table["branch"] == "ticket"].groupby("level")["early_stop_iteration"]
    ticket, reinit = found["early-stop"]["early_stop_iteration"]
    assert (ticket.family, reinit.family) == ("ticket", "reinit")
    assert ticket.mean == tickets.mean().tolist() and ticket.low == tickets.min().tolist()
    assert ticket.n == [2] * 4 and reinit.level == [1, 2, 3]
    assert np.allclose(ticket.percent, [100, 80, 64, 51.2])
    assert "test_accuracy_at_101" in found["accuracy"]
    last = pd.read_csv(run.folder / "curves.csv").groupby(["trial", "level", "branch"]).last()["test_loss"]
    assert np.allclose(found["loss"]["final_test_loss"][0].mean, last.iloc[0])


def test_curves_by_iteration_are_thinned_means(run: Records) -> None:
    ticket, reinit = charts.data_by_iteration([run])
    assert (ticket["family"], ticket["levels"], reinit["levels"]) == ("ticket", [0, 1, 2, 3], [1, 2, 3])
    table = pd.read_csv(run.folder / "curves.csv")
    mine = table[(table["branch"] == "ticket") & (table["level"] == 2)].groupby("iteration")["val_loss"].mean()
    mine = mine.loc[ticket["iterations"]]
    assert len(mine) <= charts.MOST_POINTS and [ticket["iterations"][n] for n in (0, -1)] == [1, 12001]
    assert np.allclose(ticket["quantities"]["val_loss"]["mean"][2], mine, rtol=1e-4)
    assert "low" not in ticket["quantities"]["val_loss"]  # all trials have the same curve


@pytest.mark.parametrize("count", [1, 50, 120, 501, 100_000])
def test_thinning_keeps_the_ends_and_the_order(count: int) -> None:
    iterations = np.arange(1, count + 1) * 100
    kept = charts.thinned(iterations)
    assert len(kept) == min(len(kept), 120) and kept[0] == 100 and kept[-1] == 100 * count
    assert np.all(np.diff(kept) > 0) and set(kept) <= set(iterations)


def test_diverged_trainings_are_in_no_curve(tmp_path: Path) -> None:
    rows = {(1, 0, "ticket"): {"status": "diverged", "early_stop_iteration": None}}
    run = a_run(tmp_path / "run", {0: ([900, 900], [0.9, 0.9]), 1: ([900, 900], [0.9, 0.9])}, rows)
    (curves,) = charts.data_by_iteration([run])
    assert curves["levels"] == [0, 1]
    (line,) = {chart.id: lines for chart, lines in charts.by_density([run])}["early-stop"]["early_stop_iteration"]
    assert line.n == [1, 2]


# -------------------------------------------------------------------------------------------------------------- page


class Parsed(HTMLParser):
    """A page's elements as a browser sees them, with the text of its scripts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] == "script":
            self.scripts[-1] += data
        else:
            self.text += data


def test_nothing_hostile_becomes_an_element(tmp_path: Path) -> None:
    levels = {0: ([900, 900], [0.9, 0.9]), 1: ([800, 800], [0.9, 0.9])}
    label = "b<img src=x onerror=window.hacked=1>-1"
    settings = {"about": HOSTILE, "data": {"name": f"./{HOSTILE}"}}
    runs = [a_run(tmp_path / f"<img src=x>{n}", levels, {(1, 1, label): {}}, **settings) for n in (1, 2)]
    for each in runs:
        (each.folder / "environment.json").write_text(json.dumps({"command": HOSTILE, "machine": {HOSTILE: HOSTILE}}))
    claim = Claim(*[HOSTILE] * 4, "agrees")
    line = Line(HOSTILE, [100.0], [0.9], [0.9], [0.9])
    paper = Beside({0: [claim]}, {"test_accuracy_at_early_stop": [line]}, {0: HOSTILE})
    html = page.main([tables.load(r.folder) for r in runs], "</main>", paper)
    parsed = Parsed(html)
    assert "img" not in [tag for tag, _ in parsed.tags] and len(parsed.scripts) == 1
    assert not [name for _, attributes in parsed.tags for name in attributes if name.startswith("on")]
    assert parsed.text.count(HOSTILE) >= 8  # it is there to be read
    data_block = html.partition('id="data">')[2].removesuffix("</script>\n</main>")
    assert not {*"<>&"} & {*data_block} and len(data_block) > 1000  # browsers end scripts sooner than Python's parser
    data = json.loads(parsed.scripts[0])
    assert data["density"][0]["quantities"]["test_accuracy_at_early_stop"]["paper"][0]["label"] == HOSTILE
    assert "b<img src=x onerror=window.hacked=1>" in json.dumps(data["looks"])


def test_the_page_is_whole_and_allows_itself_nothing_else(run: Records) -> None:
    html = page.render([run])
    parsed = Parsed(html)
    assert [tag for tag, a in parsed.tags if a.get("src") or tag in ("iframe", "object")] == []
    assert [a["href"] for tag, a in parsed.tags if "href" in a] == ["data:,"]
    policy = next(a["content"] for _, a in parsed.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy and policy.startswith("default-src 'none'") and "connect-src" not in policy
    assert "connect-src 'self'" in page.policy([], live=True)
    assert len(html.encode()) < 5.5e6
    assert html == page.render([run])


def test_the_score_card_and_the_papers_curves_have_their_place(run: Records) -> None:
    assert 'id="score"' not in page.main([run], paper=Beside())
    claim = Claim("early", "21% learns 2.51 times faster", "2.5", "2.3 (2.1-2.6, n = 5)", "not enough data")
    line = Line("the paper", [100.0, 80.0], [4401.0, 4721.0], [2101.0, 3400.0], [5701.0, 6500.0])
    html = page.main([run], paper=Beside({0: [claim]}, {"early_stop_iteration": [line]}))
    assert 'id="score"' in html and "2.3 (2.1-2.6, n = 5)" in html and 'class="left verdict not"' in html
    (data,) = re.findall('<script type="application/json" id="data">(.*?)</script>', html)
    (chart,) = [c for c in json.loads(data)["density"] if c["id"] == "early-stop"]
    assert chart["quantities"]["early_stop_iteration"]["paper"][0]["mean"] == [4401.0, 4721.0]


def test_a_run_of_the_papers_stands_beside_the_paper(run: Records, tmp_path: Path) -> None:
    found = beside([run])
    claims = {claim.id: claim for claim in found.cards[0]}
    assert claims["C2.8"].figure == "2.16 times (figure 4)" and claims["C2.8"].verdict == "not enough data"
    assert claims["C2.8"].run == "-; missing: level 7: `--levels 7`" and "(section 2)" in claims["C2.8"].text
    assert "lth run lenet" in found.notes[0] and "Student" in found.notes[0]
    ticket, reinit = found.lines["early_stop_iteration"]
    assert (ticket.family, ticket.level, reinit.level) == ("ticket", [0, 1, 2, 3], [1, 2, 3])
    assert np.allclose(ticket.mean, [4401, 4721, 4081, 3601], atol=1) and ticket.high[0] == 5701
    html = page.main([run])
    assert html.count('class="left verdict not"') == len(claims) and "Student" in html
    assert f"<summary>{len(claims)} claims that need more data</summary>" in html
    assert "level 7: <code>--levels 7</code>" in html and "`" not in html[: html.index('id="data"')]
    other = a_run(tmp_path / "other", {0: ([900], [0.9]), 1: ([800], [0.9])}, data={"name": "fashion-mnist"})
    assert beside([other]) == Beside() and list(beside([other, run]).cards) == [1]


def test_settings_are_complete_and_differences_marked(tmp_path: Path) -> None:
    levels = {0: ([900], [0.9]), 1: ([800], [0.9])}
    runs = [a_run(tmp_path / f"{seed}", levels, {(1, 1, "reinit-1"): {}}, seed=seed) for seed in (1, 2)]
    told = config.as_settings(runs[0].experiment)
    assert told["recipe.optimizer"] == "adam" and told["branch.reinit.count"] == "1" and told["seed"] == "1"
    html = page.main(runs)
    assert re.findall('<tr class="differs"><th scope="row"><code>(.*?)</code>', html) == ["seed"]
    assert "trainings at each level" in html  # the meaning of branch.reinit.count


def test_tables_alone_are_enough(run: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lth.results.plots.draw", lambda runs, folder, *more: [])
    bare = tmp_path / "results"
    bare.mkdir()
    for name in ("experiment.toml", "summary.csv", "curves.csv"):
        (bare / name).write_bytes((run.folder / name).read_bytes())
    done = CliRunner().invoke(app, ["report", str(bare)])
    assert done.exit_code == 0, done.output
    assert str(bare / "report.html") in done.output.replace("\n", "")
    html = (bare / "report.html").read_text()
    assert 'id="tickets"' not in html and words.headline(run) in html.replace("&#x27;", "'")


def test_a_large_run_makes_a_page_below_8_mb(tmp_path: Path) -> None:
    """5 trials, levels 0 to 24, 3 branches, an evaluation every 100 of 50,000 iterations, and all of the explorer."""
    rng = np.random.default_rng(0)
    labels = ["ticket", "reinit-1", "reinit-2", "random-mask-1"]
    places = [(t, n, label) for t in range(1, 6) for n in range(25) for label in labels if n or label == "ticket"]
    iterations = [1, *range(101, 50_000, 100), 50_000]
    rows = {place: training(place[1], seconds=float(rng.random())) for place in places}
    lines = [",".join([str(i), *map(repr, rng.random(4).tolist())]) for i in iterations]
    text = "iteration,val_loss,val_accuracy,test_loss,test_accuracy\n" + "\n".join(lines) + "\n"
    folder = make_run(tmp_path / "run", rows, text, branch=[{"name": "reinit", "count": 2}, {"name": "random-mask"}])
    shapes = {"fc1.weight": (300, 784), "fc2.weight": (100, 300), "output.weight": (10, 100)}
    start = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    at = [(trial, level) for trial, level, label in places if label == "ticket"]
    rows_of = lambda place: anatomy.to_rows(place, inside(start, 0.8 ** place[1], rng))
    measures.write(
        "anatomy", folder, measures.joined(None, [row for place in at for row in rows_of(place)], anatomy.COLUMNS)
    )
    html = page.render([tables.load(folder)])
    assert 5e6 < len(html.encode()) < 8e6


def inside(start: dict[str, np.ndarray], density: float, rng: np.random.Generator) -> Anatomy:
    mask = {name: rng.random(layer.shape) < density for name, layer in start.items()}
    return dissect(mask, start, (1, 28, 28))


def test_the_charts_are_ones_that_plotly_knows() -> None:
    """The page's script names attributes of traces; the library's own schema has them."""
    script = page.script()
    for trace, names in {"Scatter": ["error_y", "hoverinfo", "fillcolor"], "Heatmap": ["colorscale", "xgap"]}.items():
        for name in names:
            assert name in script and name in getattr(plotly.graph_objects, trace)()


# ------------------------------------------------------------------------------------------------------- command line


def test_options_that_would_do_nothing_are_refused(run: Records) -> None:
    for options, said in (
        (["--port", "1"], "--port needs --serve"),
        (["--serve", "--out", "x"], "--out does nothing"),
    ):
        done = CliRunner().invoke(app, ["report", str(run.folder), *options])
        assert isinstance(done.exception, UsageError) and said in str(done.exception)


def test_reports_never_import_torch_and_a_training_imports_no_charts() -> None:
    code = "import lth.report.page, lth.report.serve, lth.report.events, sys; assert 'torch' not in sys.modules"
    light = "import lth.execution.job, sys; assert not {'matplotlib', 'plotly', 'pandas'} & {*sys.modules}"
    for line in (code, light):
        subprocess.run([sys.executable, "-c", line], check=True)
