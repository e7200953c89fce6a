"""Figures of synthetic runs: what is drawn is what the tables say, read back from the artists."""

from __future__ import annotations

import itertools
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from PIL import Image

from lth import config
from lth.errors import LthError, UsageError
from lth.papers import behind
from lth.results import captions, looks, panels, plots, records, sheets, tables, widths
from lth.results.series import Series, pick_levels
from test_records import density_of, make_run, training

pytestmark = pytest.mark.figures


def curve(early_stop: int = 301, offset: float = 0.0, test_every: int = 1, last: int = 1001) -> str:
    lines = ["iteration,val_loss,val_accuracy,test_loss,test_accuracy"]
    for n, i in enumerate(range(1, last + 1, 100)):
        loss = 2.3 if i == 1 else 0.1 + abs(i - early_stop) / 10000 + offset
        test = f"{loss + 0.01!r},{1 - loss / 3!r}" if n % test_every == 0 or i == last else ","
        lines.append(f"{i},{loss!r},{1 - loss / 3!r},{test}")
    return "\n".join(lines) + "\n"


def synthetic(
    folder: Path,
    trials: int = 3,
    levels: int = 3,
    reinits: int = 2,
    curves: str | dict | None = None,
    changes: dict | None = None,
    without: tuple = (),
    **settings,
) -> records.Records:
    """A run whose early stops and accuracies are 1000 and 0.9, and more by the trial's square, less by level."""
    rows = {}
    for trial in range(1, trials + 1):
        for level in range(levels + 1):
            for n in range(reinits + 1 if level else 1):
                label = f"reinit-{n}" if n else "ticket"
                rows[trial, level, label] = training(
                    level,
                    early_stop_iteration=1001 + 100 * trial**2 + 10 * level + 1000 * n,
                    test_accuracy_at_early_stop=0.9 + 0.01 * trial**2 - 0.001 * level - 0.05 * n,
                )
    rows = {place: row | (changes or {}).get(place, {}) for place, row in rows.items() if place not in without}
    settings = {"branch": [{"name": "reinit", "count": reinits}] if reinits else []} | settings
    return tables.load(make_run(folder, rows, curves or curve(), **settings))


def bars(axes: Axes) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Of each series its points (x, mean) and its bars' ends (low, high), as drawn."""
    drawn = {}
    for container in axes.containers:
        assert isinstance(container, ErrorbarContainer)
        line, _, collections = container.lines
        segments = np.array(collections[0].get_segments()) if collections else np.empty((0, 2, 2))
        drawn[container.get_label()] = line.get_xydata(), segments[:, :, 1]
    return drawn


def texts(figure: Figure) -> str:
    axes = [t for a in figure.axes for t in (*a.texts, a.title, a.xaxis.label, a.yaxis.label)]
    legends = [t.get_text() for holder in (figure, *figure.axes) for t in legend_texts(holder)]
    return "\n".join([figure.get_supxlabel(), *(t.get_text() for t in axes), *legends])


def legend_texts(holder: Figure | Axes) -> list:
    legends = holder.legends if isinstance(holder, Figure) else [holder.get_legend()]
    return [text for legend in legends if legend for text in legend.get_texts()]


# ----------------------------------------------------------------------------------------------------- what is drawn


def test_error_bars_are_minimum_and_maximum_of_what_is_drawn(tmp_path: Path) -> None:
    run = synthetic(tmp_path / "run")
    for quantity in ("early_stop_iteration", "test_accuracy_at_early_stop"):
        (axes,) = plots.by_density_figure([run], [quantity]).axes
        drawn = bars(axes)
        assert [*drawn] == ["ticket", "reinit (2 a trial)"]
        for label, name in zip(drawn, ("ticket", "reinit"), strict=True):
            points, ends = drawn[label]
            for (percent, mean), (low, high) in zip(points, ends, strict=True):
                rows = run.summary[np.isclose(100 * run.summary["density"], percent)]
                values = rows.loc[rows["branch"].str.startswith(name), quantity].to_numpy()
                assert len(values) == (3 if name == "ticket" else 6)
                assert (mean, low, high) == pytest.approx((values.mean(), values.min(), values.max()), rel=1e-12)
        assert drawn["ticket"][0][:, 0] == pytest.approx([100, 80, 64, 51.2])
        assert drawn["reinit (2 a trial)"][0][:, 0] == pytest.approx([80, 64, 51.2])


def test_early_stop_and_accuracy_do_not_exchange_their_bars(tmp_path: Path) -> None:
    stop, accuracy, final = plots.figures([synthetic(tmp_path / "run")])["overview"].axes
    assert bars(stop)["ticket"][1][0] == pytest.approx([1101, 1901])
    assert bars(accuracy)["ticket"][1][0] == pytest.approx([0.91, 0.99])
    assert bars(final)["ticket"][0][:, 1] == pytest.approx([0.98] * 4)


def test_curves_are_the_mean_of_trials_with_a_band(tmp_path: Path) -> None:
    by_trial = {(t, level, "ticket"): curve(offset=0.01 * t * (level + 1)) for t in (1, 2, 3) for level in (0, 1)}
    run = synthetic(tmp_path / "run", levels=1, reinits=0, curves=by_trial)
    (axes,) = plots.by_iteration_figure([run], "val_loss").axes
    first, second = axes.get_lines()
    assert [line.get_label() for line in (first, second)] == ["100", "80.0"]
    assert dict(first.get_xydata())[301] == pytest.approx(0.12)
    assert dict(second.get_xydata())[301] == pytest.approx(0.14)
    corners = axes.collections[1].get_paths()[0].vertices
    assert sorted(corners[corners[:, 0] == 301, 1])[:: len(corners)] == pytest.approx([0.12])
    assert corners[corners[:, 0] == 301, 1].max() == pytest.approx(0.16)


def test_only_tickets_are_drawn_by_iteration_and_only_where_evaluated(tmp_path: Path) -> None:
    places = itertools.product((1, 2, 3), (0, 1, 2, 3), ("ticket", "reinit-1", "reinit-2"))
    curves = {place: curve(test_every=5, offset=float(place[2] != "ticket")) for place in places}
    run = synthetic(tmp_path / "run", curves=curves)
    (axes,) = plots.by_iteration_figure([run], "test_loss").axes
    assert len(axes.get_lines()) == 4
    for line in axes.get_lines():
        assert line.get_xydata().tolist() == [pytest.approx(point) for point in ([1, 2.31], [501, 0.13], [1001, 0.18])]


def test_figures_and_files(tmp_path: Path) -> None:
    run = synthetic(tmp_path / "run", scale=0.1)
    paths = plots.draw([run], tmp_path / "figures")
    names = [*plots.BY_DENSITY, "test-accuracy-at-iterations", *plots.BY_ITERATION]
    assert paths == [tmp_path / "figures" / f"{name}.{kind}" for name in names for kind in ("png", "svg", "pdf")]
    for path in paths:
        assert path.stat().st_size > 10_000
        if path.suffix == ".svg":
            root = ElementTree.parse(path).getroot()
            words = {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
            assert {"ticket", "percent of weights remaining"} & words  # text as text, not as outlines
        caption = path.with_suffix(".txt").read_text()
        assert "mean (min-max) of 3 trials" in caption and ("Error bars" in caption or "Bands" in caption)
        tex = path.with_suffix(".tex").read_text()
        assert f"{{{path.stem}.pdf}}" in tex and f"\\label{{fig:{path.stem}}}" in tex
    with Image.open(paths[0]) as image:
        assert image.width >= 1800
    for figure in plots.figures([run]).values():
        assert "lenet: mean (min-max) of 3 trials, 50,000 iterations, at scale 0.1 of the full iterations" in " ".join(
            texts(figure).split()
        )


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    run = synthetic(tmp_path / "run", levels=1, trials=2)
    figure = plots.by_density_figure([run], ["early_stop_iteration"])
    svg = sheets.save(figure, tmp_path / "here")[1].read_bytes()
    code = (
        "import sys; from pathlib import Path; from lth.results import plots, sheets, tables\n"
        "figure = plots.by_density_figure([tables.load(sys.argv[1])], ['early_stop_iteration'])\n"
        "sheets.save(figure, Path(sys.argv[2])); assert not {'torch', 'matplotlib.pyplot'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code, str(run.folder), str(tmp_path / "there")], check=True)
    assert (tmp_path / "there.svg").read_bytes() == svg
    assert (tmp_path / "there.png").read_bytes() == (tmp_path / "here.png").read_bytes()
    assert b"<dc:date>" not in svg


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "figures").write_text("a file stands here")
    with pytest.raises(LthError, match=r"figures could not be written: File exists"):
        plots.draw([synthetic(tmp_path / "run", levels=0)], tmp_path / "figures")


# ------------------------------------------------------------------------------------------------------- what there is


def test_unfinished_runs_draw_what_there_is(tmp_path: Path) -> None:
    diverged = {"status": "diverged", "early_stop_iteration": None, "test_accuracy_at_early_stop": None}
    blank = {"train_accuracy_at_early_stop": None, "final_train_accuracy": None}
    places = [(t, level, "ticket") for t in (1, 2, 3) for level in range(5)]
    changes = dict.fromkeys(places, blank) | {(2, 1, "ticket"): diverged | blank}
    curves = dict.fromkeys(places, curve(test_every=100)) | {
        (2, 1, "ticket"): "\n".join(curve().split("\n")[:3]) + "\n"
    }
    curves[1, 2, "ticket"] = curve().replace("0.1,", "nan,").replace("0.12,", "inf,")
    without = ((2, 2, "ticket"), (2, 3, "ticket"), (3, 3, "ticket"), *((t, 4, "ticket") for t in (1, 2, 3)))
    run = synthetic(tmp_path / "run", 3, 4, 0, curves, changes, without)
    drawn = plots.figures([run])
    for figure in drawn.values():
        figure.draw_without_rendering()
    assert "train-accuracy" not in drawn
    assert len(drawn) == len(plots.BY_DENSITY) - 1 + 1 + len(plots.BY_ITERATION)
    assert all(
        np.isfinite(line.get_ydata()).all() for line in drawn["validation-loss-by-iteration"].axes[0].get_lines()
    )
    points, ends = bars(drawn["early-stop-iteration"].axes[0])["ticket"]
    assert points[:, 1] == pytest.approx([(1101 + 1401 + 1901) / 3, (1111 + 1911) / 2, (1121 + 1921) / 2, 1131])
    assert ends[1] == pytest.approx([1111, 1911])  # without the diverged trial
    assert ends[3] == pytest.approx([1131, 1131])
    said = drawn["early-stop-iteration"].get_supxlabel()
    assert "mean (min-max) of 1 to 3 trials, 50,000 iterations; diverged and left out: 1 of 9 trainings" in " ".join(
        said.split()
    )


@pytest.mark.parametrize(("trials", "levels"), [(1, 0), (2, 0), (1, 1)])
def test_the_smallest_runs(tmp_path: Path, trials: int, levels: int) -> None:
    run = synthetic(tmp_path / "run", trials, levels, reinits=levels, curves=curve(last=101))
    drawn = plots.figures([run])
    assert len(drawn) == 9
    for figure in drawn.values():
        figure.draw_without_rendering()
    for points, ends in bars(drawn["early-stop-iteration"].axes[0]).values():
        assert len(points) == 1 or levels
        assert len(ends) == (0 if trials == 1 else len(points))


def test_where_every_trial_diverged_there_is_nothing_to_draw(tmp_path: Path) -> None:
    run = synthetic(tmp_path / "run", 1, 0, changes={(1, 0, "ticket"): {"status": "diverged"}})
    assert plots.draw([run], tmp_path / "figures") == []
    assert plots.draw([tables.load(make_run(tmp_path / "new", {}))], tmp_path / "figures") == []


# ------------------------------------------------------------------------------------------------------------ overlays


def test_resetting_beside_continued_training(tmp_path: Path) -> None:
    reset = synthetic(tmp_path / "lenet", levels=2, reinits=1)
    rows = {
        (trial, level, label): training(level, early_stop_iteration=5001 + 100 * trial + 1000 * (label != "ticket"))
        for trial in (1, 2)
        for level in (0, 1, 2)
        for label in ("ticket", "continued")[: level + 1]
    }
    folder = make_run(tmp_path / "continued", rows, curve(), name="lenet-continued", strategy="continued", branch=[])
    drawn = plots.figures([reset, tables.load(folder)], behind.series)
    (axes,) = drawn["early-stop-iteration"].axes
    series = bars(axes)
    both = ["lenet: ticket", "lenet: reinit", "lenet-continued: ticket", "lenet-continued: continued"]
    legend = [t.get_text() for t in drawn["early-stop-iteration"].legends[0].get_texts()]
    assert list(series) == both and {*both, "the paper (lenet-continued)"} <= {*legend}
    assert series["lenet-continued: ticket"][0][:, 1] == pytest.approx([5151] * 3)
    assert series["lenet-continued: continued"][0][:, 1] == pytest.approx([6151] * 2)
    assert [a.get_title() for a in drawn["test-loss-by-iteration"].axes] == [
        "Lenet: test loss", "Lenet-continued: test loss",
    ]  # fmt: skip
    caption = " ".join(drawn["early-stop-iteration"].get_supxlabel().split())
    assert caption == (
        "lenet: mean (min-max) of 3 trials, 50,000 iterations. "
        "lenet-continued: mean (min-max) of 2 trials, 50,000 iterations. "
        "Error bars: minimum and maximum. Wide, pale lines: the paper's curves. "
        "Cross: an early stop that was not reached."
    )
    alone = plots.figures([tables.load(folder)])["early-stop-iteration"]
    assert list(bars(alone.axes[0])) == ["ticket", "continued"]


def test_runs_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    runs = [synthetic(tmp_path / name, 1, 0, scale=scale) for name, scale in [("a", 1.0), ("b", 1.0), ("c", 0.5)]]
    assert captions.run_names(runs) == ["a", "b", "c"]
    assert captions.run_names(runs[::2]) == ["lenet", "lenet-scale0.5"]
    assert captions.run_names(runs[:1]) == ["lenet"]
    assert captions.run_names([runs[0], runs[0]]) == [str(tmp_path / "a")] * 2


def test_ten_runs_fit_one_figure(tmp_path: Path) -> None:
    runs = [synthetic(tmp_path / f"lr-{i}", 2, 1, reinits=1, name=f"lr-{i}") for i in range(10)]
    figure = plots.by_density_figure(runs, ["early_stop_iteration"])
    figure.draw_without_rendering()
    assert figure.axes[0].bbox.height / figure.dpi > 0.6 * sheets.PANEL[1]
    assert len(plots.by_iteration_figure(runs, "test_loss").axes) == 10


def test_a_panel_has_at_most_40_error_bars(tmp_path: Path) -> None:
    assert [panels.bars_every(points) for points in ([4, 3], [20, 20], [21, 20], [39, 39, 22, 18], [3] * 60)] == [
        1, 1, 2, 3, 3,
    ]  # fmt: skip
    run = synthetic(tmp_path / "run", levels=24, reinits=1)
    figure = plots.by_density_figure([run], ["early_stop_iteration"])
    ends = [len(end) for _, end in bars(figure.axes[0]).values()]
    assert sum(ends) <= panels.MOST_BARS < 49 and "at every 2nd level" in texts(figure)


def test_branches_of_another_length_have_no_final_accuracy_beside_the_tickets(tmp_path: Path) -> None:
    branch = [{"name": "reinit", "count": 1, "iterations": 100}]
    drawn = plots.figures([synthetic(tmp_path / "run", reinits=1, branch=branch)])
    assert list(bars(drawn["final-test-accuracy"].axes[0])) == ["ticket"]
    assert list(bars(drawn["test-accuracy-at-early-stop"].axes[0])) == ["ticket", "reinit"]


def test_widths_for_papers(tmp_path: Path) -> None:
    assert (widths.width_of("icml-column"), widths.width_of("5.5"), widths.width_of(None)) == (3.25, 5.5, None)
    for wrong in ("icml-colum", "0", "wide", "nan"):
        with pytest.raises(UsageError, match="a width is a number of inches"):
            widths.width_of(wrong)
    run = synthetic(tmp_path / "run")
    figure = plots.by_density_figure([run], plots.BY_DENSITY["overview"], width=3.25)
    assert figure.get_figwidth() == 3.25 and len({axes.get_subplotspec().colspan.start for axes in figure.axes}) == 1
    assert figure.get_supxlabel() == "" and "3 trials" in figure.get_label()


def test_captions_are_escaped_for_latex() -> None:
    assert r"\caption{5\% of a\_b \& \textbackslash{}c}" in sheets.tex("x", "5% of a_b\n& \\c")


# ------------------------------------------------------------------------------------------------------- looks and axes


def grey(colour: str) -> float:
    red, green, blue = (int(to_hex(colour)[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return 0.299 * red + 0.587 * green + 0.114 * blue


def test_families_differ_without_colour() -> None:
    names = ["ticket", "continued", "random-mask", "reinit", "noise-0.5", "noise-2", "resampled"]
    families = {name: looks.family_look(name, names) for name in names}
    for part in ("color", "marker", "linestyle"):
        assert len({look[part] for look in families.values()}) == len(names)
    assert looks.family_look("reinit") == families["reinit"]  # the same in every figure
    runs = [looks.run_look(i, "ticket") for i in range(14)]
    assert len({(look["color"], look["marker"]) for look in runs}) == 14
    assert looks.run_look(1, "reinit")["linestyle"] == families["reinit"]["linestyle"]


def test_levels_go_from_dark_to_light() -> None:
    greys = [grey(looks.level_look(i, 8)["color"]) for i in range(8)]
    assert greys == sorted(greys)
    assert greys[-1] < 0.8  # shows on white


@pytest.mark.parametrize("log", [True, False])
@pytest.mark.parametrize("width", [2.0, 4.3, 9.0])
def test_ticks_of_the_percent_axis_do_not_overlap(width: float, log: bool) -> None:
    figure = Figure(figsize=(width, 3), layout="constrained")
    axes = figure.subplots()
    percents = [100 * density_of(level) for level in range(34)]
    axes.plot(percents, percents)
    panels.percent_axis(axes, percents, log)
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in axes.get_xticklabels()]
    assert len(boxes) >= 3
    assert all(a.x1 < b.x0 for a, b in itertools.pairwise(boxes))
    assert axes.get_xticklabels()[0].get_text() == "100"
    assert {tick.get_text() for tick in axes.get_xticklabels()} <= {captions.format_percent(p) for p in percents}
    left, right = axes.get_xlim()
    assert left > 100 > percents[-1] > right
    assert axes.get_xscale() == ("log" if log else "linear")


def test_percent_said() -> None:
    said = [captions.format_percent(100 * density) for density in (1, 0.8, 0.512345, 0.0687, 0.00995, 0.0041, 0.00091)]
    assert said == ["100", "80.0", "51.2", "6.9", "1.0", "0.41", "0.091"]


@pytest.mark.parametrize(
    ("levels", "winning", "picked"),
    [
        (range(4), 2, [0, 1, 2, 3]),
        (range(25), None, [0, 3, 7, 10, 14, 17, 21, 24]),
        (range(25), 8, [0, 3, 8, 10, 14, 17, 21, 24]),
        (range(25), 23, [0, 3, 7, 10, 14, 17, 23, 24]),
        (range(25), 14, [0, 3, 7, 10, 14, 17, 21, 24]),
    ],
)
def test_a_readable_selection_of_levels(levels: range, winning: int | None, picked: list[int]) -> None:
    assert pick_levels(levels, winning) == picked


def test_the_papers_curves_lie_behind_ours_and_go_no_further(tmp_path: Path) -> None:
    run = synthetic(tmp_path / "run", levels=3, reinits=1)
    (axes,) = plots.figures([run], behind.series)["early-stop-iteration"].axes
    drawn = {str(line.get_label()): line for line in axes.lines}
    paper, reinit = drawn["the paper"], drawn["the paper: reinit"]
    assert np.allclose(paper.get_xydata()[:, 1], [4401, 4721, 4081, 3601], atol=1)
    assert np.allclose(paper.get_xydata()[:, 0], [100, 80.04, 64.06, 51.28], rtol=1e-3)
    assert len(reinit.get_xydata()) == 3 and reinit.get_linestyle() == "--" and paper.get_linestyle() == "-"
    ours = [container.lines[0] for container in axes.containers if isinstance(container, ErrorbarContainer)]
    assert max(paper.get_zorder(), reinit.get_zorder()) < min(line.get_zorder() for line in ours)
    assert grey(to_hex(paper.get_color())) > 0.2 + max(grey(to_hex(line.get_color())) for line in ours[:1])
    assert paper.get_linewidth() > 2 * ours[0].get_linewidth()
    assert "the paper" in texts(plots.figures([run], behind.series)["overview"])
    assert "the paper" not in texts(plots.figures([run])["overview"])


def test_other_experiments_have_nothing_of_the_papers_behind_them(tmp_path: Path) -> None:
    recipe = config.read("lenet")["recipe"] | {"lr": 0.001}
    run = synthetic(tmp_path / "run", recipe=recipe)
    assert "the paper" not in texts(plots.figures([run], behind.series)["overview"])


def test_a_collapsed_branch_does_not_press_the_others_together(tmp_path: Path) -> None:
    changes = {
        (trial, level, "reinit-1"): {"test_accuracy_at_early_stop": 0.1} for trial in (1, 2, 3) for level in (11, 12)
    }
    changes |= {(3, 1, "ticket"): {"test_accuracy_at_early_stop": 1.0}}
    run = synthetic(tmp_path / "run", 3, 12, 1, changes=changes)
    figure = plots.by_density_figure([run], ["test_accuracy_at_early_stop"])
    bottom, top = figure.axes[0].get_ylim()
    assert 0.5 < bottom < 0.85
    assert 1.0 < top < 1.02
    assert "Triangles: means below the axis, the lowest 10.0%." in " ".join(texts(figure).split())
    (triangles,) = [
        line for line in figure.axes[0].lines if line.get_marker() == "v" and line.get_linestyle() == "None"
    ]
    assert len(triangles.get_xdata()) == 2 and set(triangles.get_ydata()) == {bottom}


def test_no_curve_is_cut_off_whole() -> None:
    """The worst of three networks, outlying at every point, shows its best one; the rest of it may leave the frame."""
    x = np.linspace(100, 1, 12)
    means = [np.linspace(0.98, 0.985, 12), np.linspace(0.975, 0.98, 12), np.linspace(0.96, 0.5, 12)]
    axes = Figure().subplots()
    panels.focus(axes, [Series("", x, mean, mean, mean) for mean in means])
    assert 0.5 < axes.get_ylim()[0] < 0.96


def test_early_stops_of_one_level_fit_their_panel(tmp_path: Path) -> None:
    changes = {(trial, 0, "ticket"): {"early_stop_iteration": 2000 + 50 * trial} for trial in (1, 2)}
    run = synthetic(
        tmp_path / "run", 2, 0, 0, changes=changes, recipe=config.read("lenet")["recipe"] | {"lr": 0.1}
    )  # none of the paper's
    figure = plots.by_density_figure([run], ["early_stop_iteration"])
    bottom, top = figure.axes[0].get_ylim()
    assert bottom == 0 and top == pytest.approx(1.05 * 2100)  # room for half a marker


def test_the_steep_beginning_leaves_the_frame_and_the_early_stop_stays(tmp_path: Path) -> None:
    run = synthetic(tmp_path / "run", 2, 2, 0, curves=curve(early_stop=5001, last=20001))
    figure = plots.by_iteration_figure([run], "val_loss")
    (axes,) = figure.axes
    assert 1.1 < axes.get_ylim()[1] < 1.2  # the loss is 2.3 at iteration 1, and 1.1 at the right
    assert axes.get_ylim()[0] < 0.1
    assert axes.get_xlim()[1] == pytest.approx(0.3 * 50000 * 1.01)
    assert "iteration (of 20,001)" in texts(figure)


def test_a_collapsed_level_at_the_end_of_its_curve_stays_in_sight() -> None:
    axes = Figure().subplots()
    x = np.arange(1, 2001, 100.0)
    ends = [0.97, 0.98, 0.96, 0.93]
    curves = [Series("", x, 0.1 + (end - 0.1) * (x > 1), x, x) for end in ends]
    panels.zoom(axes, curves, 2000)
    assert axes.get_ylim()[0] < 0.93
    assert axes.get_ylim()[0] > 0.9


def test_the_papers_curve_stands_behind_ours() -> None:
    axes = Figure().subplots()
    x = np.array([100.0, 80.0, 64.0])
    ours = Series("ticket", x, x, x - 1, x + 1, looks.family_look("ticket"))
    panels.draw_bars(axes, [Series("paper", x, x, x - 2, x + 2, looks.paper_look("ticket")), ours])
    paper, ticket = (container.lines[0] for container in axes.containers)
    assert paper.get_zorder() < ticket.get_zorder()
    assert grey(to_hex(paper.get_color())) > grey(to_hex(ticket.get_color()))
    assert bars(axes)["paper"][1][0] == pytest.approx([98, 102])


def test_quantities_in_words() -> None:
    assert captions.quantity_label("test_accuracy_at_30000") == "test accuracy at iteration 30,000"
    assert captions.quantity_label("val_accuracy_at_101") == "validation accuracy at iteration 101"
    assert captions.quantity_label("test_accuracy_at_early_stop") == "test accuracy at early stop"
    assert captions.quantity_label("seconds") == "seconds"
