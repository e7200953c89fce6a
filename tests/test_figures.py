"""Every figure of the paper from its trainings to its picture, at a tiny scale and on networks of a few weights."""

from __future__ import annotations

import io
import shlex
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from typer.testing import CliRunner

import lth
from lth import config
from lth.cli import app
from lth.errors import UsageError
from lth.execution import figures as paper_figures
from lth.execution.figures import Version, figures, make, needed
from lth.measures import histograms
from lth.measures import tables as measures
from lth.models import conv, resnet, vgg
from lth.papers import drawing, lottery_ticket
from lth.papers.drawing import draw
from lth.papers.setups import Setup, setup
from lth.plan import plan
from lth.results import looks, sheets, tables
from test_verify import at_length, papers_values
from test_verify import make as made

QUIET = Console(quiet=True)
WIDTHS = {"conv2": (4,), "conv4": (4, 4), "conv6": (4, 4, 4)}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """230 coloured images of 16 x 16 in ten classes."""
    rng = np.random.default_rng(0)
    labels = np.arange(230) % 10
    pixels = rng.integers(0, 120, (230, 16, 16, 3))
    pixels[np.arange(230), labels] += 120
    path = tmp_path_factory.mktemp("images") / "tiny.npz"
    train, test = slice(0, 200), slice(200, 230)
    x = pixels.astype(np.uint8)
    np.savez(path, x_train=x[train], y_train=labels[train], x_test=x[test], y_test=labels[test])
    return path


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all figures, which share what they can."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def small_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The paper's convolutional networks, narrow; their layers and groups are the same."""
    monkeypatch.setattr(conv, "HIDDEN", (8, 8))
    for name, widths in WIDTHS.items():
        named = name.replace("-", "_")
        monkeypatch.setattr(conv, named, replace(getattr(conv, named), build=partial(conv.build, widths)))
    monkeypatch.setattr(vgg, "MODULES", ((4, 4), (4,), (4,)))

    class Narrow(resnet.ResNet):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            self.blocks = self.blocks[:1] + type(self.blocks)(resnet.Block(16, 64, 2))

    monkeypatch.setattr(resnet, "resnet18", replace(resnet.resnet18, build=Narrow))


def tiny(images: Path, levels: int = 1) -> Version:
    settings = (f"data.name={images}", "data.validation=30", "recipe.precision=float32")
    return Version(trials=1, levels=levels, scale=1e-4, settings=settings)


def test_all_figures_that_show_results_are_there() -> None:
    assert list(figures()) == [1, *range(3, 46)] and len(figures()) == 44


def test_a_figure_has_all_series_that_were_read_off_it() -> None:
    for number in {int(curve.figure) for curve in lottery_ticket.paper().curves}:
        shown = [curve for panel in figures()[number].panels for curve in panel.paper]
        assert shown == [curve for curve in lottery_ticket.paper().curves if curve.figure == str(number)]
    assert {n for n in figures() if not any(p.paper for p in figures()[n].panels)} == {
        15, 16, 19, 20, 21, 22, 23, 24, 26, 27, 28, 29, 30, 31, 37
    }  # fmt: skip


@pytest.mark.parametrize("number", figures())
def test_its_full_plan_is_the_papers(number: int, tmp_path: Path) -> None:
    """All of its experiments resolve; trials are the preset's, or the appendices' three; and no run is needed twice."""
    runs = needed(figures()[number], Version(), tmp_path)
    assert len({run.folder for run in runs}) == len(runs) == len({run.setup for run in runs})
    for run in runs:
        own = config.resolve(run.setup.preset).trials  # 3 for vgg19-warmup, else 5
        assert run.experiment.trials == (3 if number >= 26 and number != 37 else own)
        assert plan(run.experiment)
        assert run.folder.parent == tmp_path


SAVED = (1, 15, 26)  # written as files: one of each kind of figure; of the others the drawing is looked at


@pytest.mark.parametrize("number", figures())
def test_from_trainings_to_picture(
    number: int, images: Path, out: Path, small_networks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, pictures = sheets.save, []

    def keep(picture: Any, path: Path) -> list[Path]:
        pictures.append(picture)
        return save(picture, path) if number in SAVED else []

    monkeypatch.setattr(sheets, "save", keep)
    paths = make(number, tiny(images), out, console=QUIET, workers=1, engine="torch")
    if number in SAVED:
        assert [path.suffix for path in paths] == [".png", ".svg", ".pdf"]
        assert all(path.stat().st_size > 1000 for path in paths)
    (drawn,) = pictures
    found = figures()[number]
    assert len(drawn.axes) == len(found.panels) + len(found.portraits)
    for axes, panel in zip(drawn.axes, found.panels, strict=False):
        labels = axes.get_legend_handles_labels()[1]
        shallow = [drawing._label(line) for line in panel.lines if line.level is None or line.level <= 1]
        assert {*shallow} <= {*labels}
        if panel.paper and panel.axis != "iteration":
            assert any(label.startswith("the paper") for label in labels)
    for axes, portrait in zip(drawn.axes, found.portraits, strict=False):
        assert bool(axes.patches) == (portrait.level <= 1)


def test_figures_share_their_trainings(images: Path, out: Path, small_networks: None, capsys: Any) -> None:
    """What figure 3 and figure 14 need of LeNet lies in one folder, and nothing there is trained twice."""
    version = tiny(images)
    folders = [{run.folder for run in needed(figures()[n], version, out)} for n in (3, 4, 14)]
    assert len(set.intersection(*folders)) == 1
    make(3, version, out, console=QUIET, workers=1, engine="torch")
    folder = set.intersection(*folders).pop()
    before = {path: path.stat().st_mtime_ns for path in folder.glob("trial-*/**/summary.json")}
    make(11, version, out, console=QUIET, workers=1, engine="torch")
    assert {path: path.stat().st_mtime_ns for path in folder.glob("trial-*/**/summary.json")} == before


@pytest.mark.parametrize("number", figures())
def test_a_title_has_room(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures of one panel are narrow: the title's end and its number were once outside of them."""
    for name in ("draw_panel", "draw_portrait"):
        monkeypatch.setattr(drawing, name, lambda *_: None)
    picture = draw(replace(figures()[number], by_test=False), {})
    picture.draw_without_rendering()
    box = picture._suptitle.get_window_extent()  # type: ignore[attr-defined]
    assert box.x0 > 0 and box.x1 < picture.bbox.x1


def test_a_smaller_version_lies_apart_and_says_so(tmp_path: Path) -> None:
    small, full = (needed(figures()[3], v, tmp_path)[0].folder for v in (Version(scale=0.1, trials=2), Version()))
    assert small == tmp_path / "scale0.1-trials2" / "lenet" and full == tmp_path / "lenet"
    assert "scale 0.1, trials 2" in Version(scale=0.1, trials=2).text and not Version().text


def test_an_amount_is_an_option_and_no_setting() -> None:
    with pytest.raises(UsageError, match="give --levels in place of the setting levels\ngive --branches in place of"):
        Version(settings=("levels=0", "recipe.lr=0.1", "branch=[]"))


OVERRULED = [
    (26, "recipe.lr=0.001", "lenet"),  # set by its setups
    (16, "recipe.lr=0.1", "lenet"),  # by its only one
    (31, "model.layers=[30,10]", "lenet"),
    (8, "recipe.lr=0.05", "resnet18"),  # different by preset
    (7, "recipe.warmup=10", "vgg19"),
    (14, "recipe.lr=0.05", "lenet"),
    (4, "strategy=oneshot", "lenet"),
    (37, "prune.groups=['conv']", "conv2"),
    (3, "name=mine", "lenet"),  # which is the folder's
]


@pytest.mark.parametrize(("number", "setting", "preset"), OVERRULED)
def test_what_a_figure_sets_itself_is_no_setting(
    number: int, setting: str, preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lth.execution.running.run", lambda *given, **options: pytest.fail("it ran"))
    key = setting.partition("=")[0]
    version = Version(settings=("data.validation=30", setting))
    with pytest.raises(UsageError) as caught:
        make(number, version, tmp_path / "runs", console=QUIET)
    (said,) = str(caught.value).splitlines()
    assert said.startswith(f"{key}: figure {number} sets it itself")
    assert said.endswith(f"lth run {preset} {shlex.quote(setting)}")
    assert not (tmp_path / "runs").exists()


def test_the_list_says_which_figures_set_it_themselves(tmp_path: Path) -> None:
    lines = list(paper_figures.listing(Version(settings=("recipe.lr=0.05",)), tmp_path))
    assert [int(line.split()[0]) for line in lines] == list(figures())
    theirs = {int(line.split()[0]) for line in lines if line.endswith(": it sets recipe.lr itself")}
    assert {8, 14, 16, 26, 42} <= theirs and not {3, 9, 15, 29} & theirs


@pytest.mark.parametrize(
    ("number", "setting"),
    [(26, "seed=2"), (26, "model.layers=[30,10]"), (1, "data.name=./my.npz"), (14, "recipe.eval_every=50")],
)
def test_what_a_figure_does_not_set_is_a_setting(number: int, setting: str, tmp_path: Path) -> None:
    key, value = config.parse_override(setting)
    for run in needed(figures()[number], Version(settings=(setting,)), tmp_path):
        found: Any = run.experiment
        for part in key.split("."):
            found = getattr(found, part)
        assert (list(found) if isinstance(found, tuple) else found) == value


def test_levels_go_as_far_as_a_layer_has_weights() -> None:
    from lth.papers.lottery_ticket.figures import levels_of

    assert levels_of(setup("lenet", {"prune.rate": 0.8})) < levels_of(setup("lenet", {"prune.rate": 0.6})) < 10
    assert levels_of(setup("lenet", {"model.layers": (25, 9)})) < levels_of(Setup("lenet"))


def test_what_is_no_figure_is_refused() -> None:
    with pytest.raises(UsageError, match="figure 2 is not one"):
        paper_figures.figure_of(2)


def test_the_list_has_a_line_a_figure_that_begins_with_its_number(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["figure", "--list", "--scale", "0.001", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert [int(line.split()[0]) for line in lines] == list(figures())
    assert all("stored" in line and "about" in line for line in lines)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--list", "--workers", "0"], "--workers takes a number from 1 to 1024, not 0"),
        (["--list", "recipe.lr=fast"], "recipe.lr: expected a number, not 'fast'"),
        (["--list", "3"], "give the number of a figure, such as lth figure 3, or --list"),
        (["three"], "'three' is not a figure of the paper"),
        (["3", "--engine", "fast"], "--engine takes auto, native, torch"),
    ],
)
def test_words_of_the_command_are_checked(words: list[str], said: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["figure", *words, "--out", str(tmp_path)])
    assert isinstance(result.exception, UsageError) and said in str(result.exception)


def test_the_list_takes_settings(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["figure", "--list", "recipe.batch=30", "--out", str(tmp_path)])
    assert result.exit_code == 0 and len(result.output.splitlines()) == len(figures())


# ------------------------------------------------------------------------------------------------------------- details


def test_early_stop_by_test_loss_is_its_minimum(tiny: dict[str, Any], tmp_path: Path) -> None:
    run = lth.run(tiny, out=tmp_path / "run", engine="torch", workers=1, pictures=False, console=QUIET)
    loaded = tables.load(run.folder)
    for _, row in drawing.by_test(loaded).summary.iterrows():
        own = loaded.curves[(loaded.curves["level"] == row["level"]) & (loaded.curves["branch"] == row["branch"])]
        best = own.loc[own["test_loss"].idxmin()]
        assert (row["early_stop_iteration"], row["test_accuracy_at_early_stop"]) == (
            best["iteration"], best["test_accuracy"]
        )  # fmt: skip


def test_movement_is_counted_from_the_tensors_and_kept(tiny: dict[str, Any], tmp_path: Path) -> None:
    """Figures 19 and 20: every weight of a layer is in one of two histograms, and the CSV is enough afterwards."""
    folder = lth.run(tiny, out=tmp_path / "run", engine="torch", workers=1, pictures=False, console=QUIET).folder
    path = measures.compute("movement", folder, levels=2)
    assert path == folder / "measures/movement.csv"
    table = measures.read("movement", folder)
    assert table is not None and set(table["level"]) == {2}
    bins = [str(n) for n in range(1, 41)]
    counts = table[table["kind"] == "movement"].groupby(["layer", "which"], sort=False)[bins].sum().sum(axis=1)
    alive = lth.Ticket.load(folder / "trial-1/level-02/ticket.safetensors").mask["fc1.weight"]
    assert counts["fc1.weight", "in the ticket"] == alive.sum()
    assert counts["fc1.weight", "not in it"] == (~alive).sum()
    stored = path.read_bytes()
    (folder / "trial-1/level-00/trained.safetensors").unlink()
    measures.compute("movement", folder, levels=[2], trials=1)
    assert path.read_bytes() == stored
    with pytest.raises(UsageError, match=r"lacks trial-1/level-00/trained\.safetensors"):
        measures.compute("movement", folder)
    path.rename(folder / "movement.csv")  # where version 0.1 wrote it
    old = measures.read("movement", folder)
    assert old is not None
    pd.testing.assert_frame_equal(old, table)


def test_a_scaled_run_has_its_columns_at_scaled_iterations() -> None:
    assert (
        drawing.scaled_column("test_accuracy_at_30000", config.resolve("resnet18", scale=0.1))
        == "test_accuracy_at_3000"
    )
    assert drawing.scaled_column("early_stop_iteration", config.resolve("lenet", scale=0.1)) == "early_stop_iteration"


def test_the_papers_curves_stand_as_they_are_beside_shorter_trainings() -> None:
    """Early stops do not move with a run's length; what is read at its end says how long the paper's trainings are."""
    run = at_length("lenet", 5_000, scale=0.1)
    wanted = figures()[4]
    runs = dict.fromkeys(wanted.needs(), run)
    for axes, panel in zip(draw(wanted, runs).axes, wanted.panels, strict=True):
        labels = [label for label in axes.get_legend_handles_labels()[1] if label.startswith("the paper")]
        assert labels == ["the paper, trainings of 50,000" if panel.column.startswith("final") else "the paper"]
        theirs = next(line for line in axes.lines if is_pale(line) and len(line.get_xdata()) > 2)
        assert theirs.get_ydata()[0] == next(curve.mean[0] for curve in panel.paper)


def is_pale(line: Any) -> bool:
    """Whether a line is a paper's: wide, and behind the others."""
    return line.get_linewidth() > 3 and line.get_zorder() == 1


def test_each_of_the_papers_lines_is_the_paler_one_of_ours() -> None:
    wanted = figures()[8]
    runs = {of: made(of, papers_values(of)) for of in wanted.needs()}
    for axes, panel in zip(draw(wanted, runs).axes, wanted.panels, strict=True):
        whole = [line for line in axes.lines if len(line.get_xdata()) > 2 and line.get_marker() not in ("|", "_", "v")]
        dark = [line for line in whole if not is_pale(line)]
        pale = [looks.pale({"color": line.get_color(), "linestyle": line.get_linestyle()}) for line in dark]
        ours = {(tuple(look["color"]), look["linestyle"]) for look in pale}
        theirs = [(tuple(line.get_color()), line.get_linestyle()) for line in whole if is_pale(line)]
        assert len(theirs) == len(panel.paper) == 6 and {*theirs} == ours and len(ours) == 6


def test_titles_say_what_is_shown_and_labels_look_alike_in_all_panels() -> None:
    titles = [panel.title for panel in figures()[4].panels]
    assert titles == ["", "", "", "", "one-shot", "one-shot"]
    drawn = draw(figures()[4], dict.fromkeys(figures()[4].needs(), at_length("lenet", 50_000)))
    assert [axes.get_title() for axes in drawn.axes][::4] == ["Early-stop iteration", "One-shot: early-stop iteration"]
    styles: dict[str, set[Any]] = {}
    for axes in drawn.axes:
        for container in axes.containers:
            line = container.lines[0]
            styles.setdefault(container.get_label(), set()).add((line.get_color(), line.get_marker()))
    assert len(styles) == 4 and all(len(looks_of) == 1 for looks_of in styles.values())
    assert len(drawn.legends) == 1 and not any(axes.get_legend() for axes in drawn.axes)


def test_smaller_versions_compare_the_same_densities(tmp_path: Path) -> None:
    runs = {run.setup.preset: run.experiment for run in needed(figures()[4], Version(levels=8), tmp_path)}
    assert runs["lenet"].levels == 8
    oneshot = runs["lenet-oneshot"]
    assert 1 - oneshot.prune.rates[oneshot.levels - 1] >= 0.8**8 > 1 - oneshot.prune.rates[oneshot.levels]


def test_histograms_of_unequal_limits_are_one_where_their_values_are() -> None:
    """Two trials, all of whose weights moved by 0.5, of limits 0.6 and 1.4."""
    counts = [np.histogram(np.full(1000, 0.5), histograms.BINS, (0, limit))[0] for limit in (0.6, 1.4)]
    edges, together = histograms.pooled([0.6, 1.4], counts, centred=False)
    assert together.sum() == pytest.approx(2000) and edges[0] == 0 and edges[-1] == 1.4
    assert all(low > 0.45 and high < 0.55 for low, high, n in zip(edges, edges[1:], together, strict=False) if n > 1)
    even = np.full(histograms.BINS, 10.0)
    edges, together = histograms.pooled([1.0, 1.0], [even, even], centred=True)
    assert together == pytest.approx(2 * even) and (edges[0], edges[-1]) == (-1, 1)


def test_an_axis_names_the_iteration_that_was_run() -> None:
    values = papers_values(Setup("resnet18"))
    columns = {f"test_accuracy_at_{n}": f"test_accuracy_at_{n // 5}" for n in (10_000, 20_000, 30_000)}
    values = {place: {columns.get(name, name): v for name, v in own.items()} for place, own in values.items()}
    scaled = config.resolve("resnet18", scale=0.2).model_dump()
    run = made(Setup("resnet18"), values, recipe=scaled["recipe"], scale=0.2)
    wanted = figures()[8]
    alone = replace(wanted, panels=tuple(replace(p, lines=p.lines[:1]) for p in wanted.panels))
    drawn = draw(alone, {line.setup: run for p in alone.panels for line in p.lines})
    at = [axes.get_title() for axes in drawn.axes]
    assert at == [f"Test accuracy at iteration {n:,}" for n in (2_000, 4_000, 6_000)]
    labels = {label for axes in drawn.axes for label in axes.get_legend_handles_labels()[1]}
    assert "the paper, trainings of 30,000" in labels


def test_the_papers_length_is_said_also_of_a_run_that_goes_down_in_steps_of_its_own() -> None:
    values = papers_values(Setup("vgg19"))
    columns = {f"test_accuracy_at_{n}": f"test_accuracy_at_{n // 20}" for n in (30_000, 60_000, 112_000)}
    values = {
        place: {columns.get(name, name): v for name, v in own.items()} for place, own in values.items() if place[0] <= 2
    }
    scaled = config.resolve("vgg19", {"prune.densities": [0.8, 0.02]}, scale=0.05, levels=2).model_dump()
    run = made(Setup("vgg19"), values, recipe=scaled["recipe"], prune=scaled["prune"], scale=0.05)
    wanted = figures()[7]
    alone = replace(wanted, panels=tuple(replace(p, lines=p.lines[:1]) for p in wanted.panels))
    drawn = draw(alone, {line.setup: run for p in alone.panels for line in p.lines})
    for axes in drawn.axes:
        assert "the paper, trainings of 112,480" in axes.get_legend_handles_labels()[1]


def test_a_dry_run_of_a_figure_trains_nothing(monkeypatch: pytest.MonkeyPatch, images: Path, tmp_path: Path) -> None:
    """Its times are worked out: measuring up to 30 networks took minutes."""
    from lth.execution import pace

    def refuse(*_: object) -> None:
        raise AssertionError("an update was measured")

    monkeypatch.setattr(pace, "measured", refuse)
    version = Version(trials=1, levels=1, settings=(f"data.name={images}", "data.validation=50"))
    console = Console(record=True, width=120, file=io.StringIO())
    assert make(5, version, tmp_path, console=console, dry_run=True, workers=2) == []
    text = console.export_text()
    assert text.count(" to do; engine ") == len(needed(figures()[5], version, tmp_path)) and not [*tmp_path.iterdir()]


def test_the_arithmetic_of_a_forward_pass() -> None:
    from lth.execution import pace

    assert pace.per_example(config.resolve("lenet").model) == 784 * 300 + 300 * 100 + 100 * 10
    conv2 = 32 * 32 * (3 * 9 * 64 + 64 * 9 * 64) + 16384 * 256 + 256 * 256 + 256 * 10
    assert pace.per_example(config.resolve("conv2").model) == conv2
