"""What is committed below results/ is what its commands made, and what its pages say is computed from it."""

from __future__ import annotations

import gzip
import importlib.util
import json
import shlex
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest
import typer
from typer.testing import CliRunner

from lth import config, plan
from lth.cli import app
from lth.config import Experiment
from lth.errors import UsageError
from lth.execution import figures
from lth.results import records, tables
from lth.storage import manifest

RESULTS = Path(__file__).parents[1] / "results"


def module(name: str) -> ModuleType:
    """A script of results/, which is no package."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, RESULTS / f"{name}.py")
        assert spec and spec.loader
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


score = module("score")
make = module("make")
RUNS = score.kept()
FOLDERS = sorted({Path(name).parts[0] for name in RUNS})
pytestmark = pytest.mark.skipif(not RUNS, reason="no results are committed yet")


@pytest.fixture(scope="module")
def cards():
    return score.cards(RUNS)


@pytest.mark.parametrize("name", RUNS)
def test_a_score_card_is_of_its_tables(name: str, cards) -> None:
    for file, text in score.files(cards[name]).items():
        assert (RESULTS / name / file).read_text() == text
    assert json.loads((RESULTS / name / "verify.json").read_text())["run"] == RUNS[name].experiment.name


@pytest.mark.parametrize("name", RUNS)
def test_a_run_is_whole(name: str) -> None:
    """A row for each training that its experiment asks for, but for those below a ticket that diverged."""
    run = RUNS[name]
    rows = [tuple(row) for row in run.summary[[*records.PLACE]].itertuples(index=False)]
    diverged = run.summary[(run.summary["status"] == "diverged") & (run.summary["branch"] == "ticket")]
    ends = dict(zip(diverged["trial"], diverged["level"], strict=True))
    planned = plan.trainings(run.experiment)
    reached = [(t.trial, t.level, t.branch) for t in planned if t.level <= ends.get(t.trial, t.level)]
    assert sorted(rows) == sorted(reached)
    assert {"versions", "machine", "means"} <= {*(run.environment or {})}


@pytest.mark.parametrize("name", RUNS)
def test_a_runs_tables_are_sealed(name: str) -> None:
    folder = RESULTS / name
    document = manifest.read(folder, RUNS[name].experiment)
    assert document and document["left_out"] == sorted(make.LEFT_OUT)
    assert {*document["files"]} == {path.relative_to(folder).as_posix() for path in folder.rglob("*.csv*")}
    assert all(manifest.read_table(folder, file) for file in document["files"])


def test_a_changed_number_in_committed_results_is_noticed(tmp_path: Path) -> None:
    """By verify, by report, and by repair, which finds nothing to make the table again from."""
    folder = Path(shutil.copytree(RESULTS / "lenet", tmp_path / "lenet"))
    first = CliRunner().invoke(app, ["repair", str(folder)])
    assert first.stdout.startswith(f"{folder}: nothing is damaged; left out on purpose: ")
    text = (folder / "summary.csv").read_text()
    (folder / "summary.csv").write_text(text.replace("0.9", "0.1", 1))
    for command in ("verify", "report"):
        ended = CliRunner().invoke(app, [command, str(folder)])
        assert isinstance(ended.exception, UsageError)
        assert f"{folder / 'summary.csv'} is damaged: it does not match manifest.json" in str(ended.exception)
    assert f"{folder / 'summary.csv'} is damaged" in CliRunner().invoke(app, ["repair", str(folder), "--yes"]).stdout


@pytest.mark.parametrize("folder", FOLDERS)
def test_its_commands_make_its_experiments(folder: str) -> None:
    """The experiments that the commands beside a folder's runs ask for are those that it holds."""
    wanted: dict[str, Experiment] = {}
    for command in make.COMMANDS[folder]:
        _, name, *arguments = shlex.split(command)
        group = typer.main.get_command(app)
        given = group.commands[name].make_context(name, arguments).params  # type: ignore[attr-defined]
        if name == "figure":
            version = figures.Version(given["trials"], given["levels"], given["branches"], given["scale"])
            for run in figures.needed(figures.figure_of(int(given["figure_"])), version, Path(given["out"])):
                wanted.setdefault(run.folder.name, run.experiment)  # unless a command before made it with more levels
        else:
            known = {key: given[key] for key in ("trials", "levels", "branches", "scale")}
            (settings,) = config.sweep(given["settings"] or ())
            wanted[Path(given["out"]).name] = config.resolve(given["source"], settings, **known)
    stored = {Path(name).name: run.experiment for name, run in RUNS.items() if Path(name).parts[0] == folder}
    unnamed = lambda experiment: experiment.model_copy(update={"name": "", "about": ""})  # which change nothing
    assert {name: unnamed(one) for name, one in wanted.items()} == {n: unnamed(one) for n, one in stored.items()}
    assert (RESULTS / folder / "command.sh").read_text().startswith(f"# make results-{folder}\n")


def test_pages_say_what_the_tables_do(cards) -> None:
    blocks = score.blocks(RUNS, cards)
    for page in score.PAGES:
        assert page.read_text() == score.fill(page.read_text(), blocks), "python results/score.py"
    assert all(f"<!-- {name} -->" in score.PAGES[0].read_text() for name in blocks)


def test_the_first_table_compares_a_fifth_of_the_weights() -> None:
    """Of one trial, by hand: at early stop where the learning rate is constant, else at the end."""
    value = lambda name, level, branch, column: RUNS[name].summary.set_index(["level", "branch"])[column][level, branch]
    _, _, weights, sooner, gained, than_reinit, above_reinit = score.glance("conv6", RUNS["conv6"])
    stop = lambda level, branch: value("conv6", level, branch, "early_stop_iteration")
    test = lambda level, branch: value("conv6", level, branch, "test_accuracy_at_early_stop")
    assert weights == f"{value('conv6', 8, 'ticket', 'density'):.1%}"
    assert sooner.startswith(f"{stop(8, 'ticket') / stop(0, 'ticket'):.2f} times (n = 1); the paper ")
    assert than_reinit.startswith(f"{stop(8, 'ticket') / stop(8, 'reinit-1'):.2f} times (n = 1); the paper ")
    for said, other in ((gained, test(0, "ticket")), (above_reinit, test(8, "reinit-1"))):
        assert said.startswith(f"{100 * (test(8, 'ticket') - other):+.2f} points (n = 1); the paper ")
    name = "resnet18/resnet18"
    end = lambda level: value(name, level, "ticket", "final_test_accuracy")
    _, _, _, sooner, gained, *others = score.glance(name, RUNS[name])
    assert gained.startswith(f"{100 * (end(4) - end(0)):+.2f} points") and {sooner, *others} == {"-"}


def test_a_smaller_run_of_an_experiment_does_not_speak_for_it() -> None:
    speaking = score.fullest(RUNS)
    assert "lenet" in speaking
    assert [name for name in RUNS if name.startswith("appendix-g") and name.endswith("/lenet")]
    assert not [name for name in speaking if name.startswith("appendix-g") and name.endswith("/lenet")]


def test_a_page_is_filled_between_its_marks() -> None:
    page = "a\n<!-- claims -->\nold\n<!-- end -->\nb\n<!-- curves -->\n<!-- end -->\n"
    filled = score.fill(page, {"claims": "new \\1\n", "curves": "x\n", "summary": "nowhere"})
    assert filled == "a\n<!-- claims -->\nnew \\1\n<!-- end -->\nb\n<!-- curves -->\nx\n<!-- end -->\n"


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run as a command leaves it, made of what is committed of it; what is kept goes into a folder beside."""
    monkeypatch.setattr(make, "HERE", tmp_path / "kept")
    monkeypatch.setattr(score, "HERE", tmp_path / "kept")
    stored = tmp_path / "runs" / "lenet-continued"
    shutil.copytree(RESULTS / "lenet-continued", stored)
    (stored / "curves.csv").write_bytes(gzip.decompress((stored / "curves.csv.gz").read_bytes()))
    return stored


def test_what_is_kept_of_a_run_is_what_is_committed(stored: Path) -> None:
    make.keep("lenet-continued", stored.parent)
    paths = lambda folder: {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    kept, committed = paths(make.HERE / "lenet-continued"), paths(RESULTS / "lenet-continued")
    cards = {Path("verify.txt"), Path("verify.json")}
    assert {*kept} == {*committed} - cards
    assert all(kept[p].read_bytes() == committed[p].read_bytes() for p in kept if p.suffix != ".png")


def test_what_cannot_be_read_replaces_nothing(stored: Path) -> None:
    kept = make.HERE / "lenet-continued" / "summary.csv"
    make.copy(stored / "summary.csv", kept)
    (stored / "curves.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"curves\.csv"):
        make.keep("lenet-continued", stored.parent)
    assert kept.exists()
    with pytest.raises(SystemExit, match="nothing is stored below"):
        make.keep("lenet", stored.parent)


def test_a_folder_is_enough_for_a_report(tmp_path: Path) -> None:
    name = next(iter(RUNS))
    done = CliRunner().invoke(app, ["report", str(RESULTS / name), "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "report.html").stat().st_size > 100_000
    assert tables.load(RESULTS / name).experiment == RUNS[name].experiment
