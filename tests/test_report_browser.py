"""The report in a real browser: no error, no request, the tables' own numbers; by keyboard, and on a phone."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import browser
from browser import Browser
from lth.measures import anatomy
from lth.measures import tables as measures
from lth.measures.ticket_anatomy import dissect
from lth.report import page, serve
from lth.report.beside import Beside
from lth.report.charts import Line
from lth.results import tables, verdict
from lth.storage import layout
from test_plots import curve
from test_records import density_of, make_run, training

pytestmark = [pytest.mark.figures, pytest.mark.skipif(browser.why_not() is not None, reason=str(browser.why_not()))]

SHAPES = {"fc1.weight": (30, 36), "fc2.weight": (20, 30), "output.weight": (4, 20)}
LEVELS = 5
HOSTILE = "</script ></script><img src=x onerror=\"window.hacked='yes'\"><!--"
Y = "return document.querySelector(arguments[0]).data.map(t => [t.name, [...t.y]])"
NOT_OURS = "/^(the paper|winning level|early stop not)/"
OURS = f"return document.querySelector(arguments[0]).data.map(t => t.name).filter(name => !{NOT_OURS}.test(name))"


def store(folder: Path, trial: int, level: int, label: str) -> None:
    """One more training of a synthetic run, its inside too."""
    rng = np.random.default_rng([trial, level, len(label)])
    changes = {
        "early_stop_iteration": int(rng.integers(100, 900)),
        "test_accuracy_at_early_stop": 0.9 + 0.1 * float(rng.random()),
        "final_test_accuracy": 0.8 + 0.1 * float(rng.random()),
        "seconds": float(rng.random()),
    }
    path = folder / f"trial-{trial}/level-{level:02d}" / ("" if label == "ticket" else label)
    path.mkdir(parents=True, exist_ok=True)
    if label == "ticket":
        start = {name: np.random.default_rng(trial).normal(size=shape) for name, shape in SHAPES.items()}
        mask = {name: rng.random(shape) < density_of(level) for name, shape in SHAPES.items()}
        rows = anatomy.to_rows((trial, level), dissect(mask, start, (1, 6, 6)))
        measures.write("anatomy", folder, measures.joined(measures.read("anatomy", folder), rows, anatomy.COLUMNS))
    (path / "curve.csv").write_text(curve(offset=0.01 * level + 0.001 * trial, last=2001))
    (path / "summary.json").write_text(json.dumps(training(level, **changes)))


def a_run(folder: Path, **settings: Any) -> Path:
    settings = {"branch": [{"name": "reinit"}], "trials": 2, "levels": LEVELS} | settings
    make_run(folder, {}, **settings)
    for level in range(LEVELS + 1):
        for trial in (1, 2):
            for label in ("ticket", "reinit-1") if level else ("ticket",):
                store(folder, trial, level, label)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = a_run(tmp_path_factory.mktemp("page") / "run")
    page.write([tables.load(folder)], folder / layout.REPORT)
    return folder


@pytest.fixture(scope="module")
def window() -> Iterator[Browser]:
    with browser.browser() as opened:
        yield opened


@pytest.fixture
def shown(window: Browser, folder: Path) -> Iterator[Browser]:
    """The page of a run without anything wrong: whatever a test does to it, the console stays empty."""
    window.screen()
    window.console()
    window.open(folder / layout.REPORT)
    yield window
    assert window.console() == []


def text(window: Browser, selector: str) -> str:
    return window.run("return document.querySelector(arguments[0]).innerText", selector)


def test_no_request_leaves_the_page(window: Browser, folder: Path) -> None:
    window.requests()
    window.open(folder / layout.REPORT)
    asked = window.requests()
    assert (folder / layout.REPORT).as_uri() in asked
    assert [address for address in asked if not address.startswith(("file:///", "data:"))] == []


def test_the_charts_hold_the_tables_numbers(shown: Browser, folder: Path) -> None:
    table = pd.read_csv(folder / "summary.csv")
    tickets = table["branch"] == "ticket"
    for chart, column in {
        "accuracy": "test_accuracy_at_early_stop",
        "early-stop": "early_stop_iteration",
        "loss": "val_loss_at_early_stop",
        "seconds": "seconds",
    }.items():
        drawn = dict(shown.run(Y, f"#chart-{chart} .plot"))
        assert np.allclose(drawn["ticket"], table[tickets].groupby("level")[column].mean(), rtol=1e-12)
        assert np.allclose(drawn["reinit"], table[~tickets].groupby("level")[column].mean(), rtol=1e-12)
    bars = shown.run(
        "const e = document.querySelector('#chart-seconds .plot').data[0].error_y; return [e.array, e.arrayminus]"
    )
    by_level = table[tickets].groupby("level")["seconds"]
    assert np.allclose(bars[0], by_level.max() - by_level.mean(), atol=1e-12)
    assert np.allclose(bars[1], by_level.mean() - by_level.min(), atol=1e-12)
    curves = pd.read_csv(folder / "curves.csv")
    last = curves[(curves["branch"] == "ticket") & (curves["level"] == LEVELS)].groupby("iteration")["val_loss"].mean()
    assert np.allclose(shown.run(Y, "#chart-iterations .plot")[-1][1], last, rtol=1e-4)


def test_what_is_drawn_can_be_seen_and_hovered(shown: Browser, folder: Path) -> None:
    """Points lie within the frame, and say their level, their number and n; a ring is around the winning level."""
    rings = int(verdict.of(tables.load(folder)).winning is not None)
    assert shown.run("return document.querySelectorAll('#chart-accuracy .point').length") == 2 * LEVELS + 1 + rings
    shown.run(
        "const plot = document.querySelector('#chart-accuracy .plot');"
        "const curveNumber = plot.data.findIndex(trace => trace.name === 'ticket');"
        "Plotly.Fx.hover(plot, [{curveNumber, pointNumber: 2}])"
    )
    said = shown.run("return document.querySelector('#chart-accuracy .hoverlayer').textContent")
    assert "level 2" in said and "64.0% of weights" in said and "n = 2" in said


def test_series_levels_and_axes_can_be_chosen_by_keyboard(shown: Browser) -> None:
    shown.run("document.querySelector('#series .chip:nth-child(2)').focus()")
    shown.press(" ", 32)
    assert shown.run(OURS, "#chart-accuracy .plot") == ["ticket"]
    assert shown.run("return document.activeElement.getAttribute('aria-pressed')") == "false"
    shown.press(" ", 32)
    assert shown.run(OURS, "#chart-accuracy .plot") == ["ticket", "reinit"]
    axis = "return document.querySelector('#chart-accuracy .plot').layout[arguments[0]].type"
    assert shown.run(axis, "xaxis") == "log" and shown.run(axis, "yaxis") == "linear"
    for selector in ("#density input[data-log]", "#chart-accuracy input[data-log]"):
        shown.run("document.querySelector(arguments[0]).focus()", selector)
        shown.press(" ", 32)
    assert shown.run(axis, "xaxis") == "linear" and shown.run(axis, "yaxis") == "log"
    before = len(shown.run(Y, "#chart-iterations .plot"))
    shown.run("document.querySelector('#levels .chip').focus()")
    shown.press(" ", 32)
    shown.press(" ", 32)
    shown.press(" ", 32)  # the focus stays where it was
    assert len(shown.run(Y, "#chart-iterations .plot")) < before


def test_a_chart_can_be_saved_as_an_image(shown: Browser, tmp_path: Path) -> None:
    shown.command("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    shown.run("document.querySelector('#chart-early-stop [data-save]').focus()")
    shown.press(" ", 32)
    for _ in range(200):
        if saved := [*tmp_path.glob("*-early-stop.svg")]:
            break
        time.sleep(0.05)
    image = saved[0].read_text()
    assert image.startswith("<svg") and "early-stop iteration" in image and "ticket" in image and "reinit" in image


@pytest.mark.parametrize("high", [1.0, 0.004])
def test_axes_of_accuracy_stay_within_0_and_100_percent(window: Browser, tmp_path: Path, high: float) -> None:
    """An axis of a flat curve at 100% went from 0 to 200%."""
    rows = {(1, n, "ticket"): training(n, test_accuracy_at_early_stop=high) for n in range(3)}
    flat = "".join(f"{i},0.1,{high},0.1,{high}\n" for i in range(1, 400, 10))
    run = make_run(tmp_path / "run", rows, curve().partition("\n")[0] + "\n" + flat)
    window.screen()
    window.open(page.write([tables.load(run)], tmp_path / "page.html"))
    for chart in ("accuracy", "iterations"):
        axis = f"return document.querySelector('#chart-{chart} .plot').layout.yaxis.range"
        if chart == "iterations":
            window.run(
                "const s = document.querySelector('#chart-iterations [data-pick=quantity]'); s.value = 'val_accuracy';"
                "s.dispatchEvent(new Event('change'))"
            )
        bottom, top = window.run(axis)
        assert -0.02 <= bottom < top <= 1.03, chart


def test_another_quantity_has_its_own_table(shown: Browser, folder: Path) -> None:
    shown.run(
        "const s = document.querySelector('#chart-accuracy select'); s.value = 'final_test_accuracy';"
        "s.dispatchEvent(new Event('change')); document.querySelector('#table-accuracy').open = true"
    )
    table = pd.read_csv(folder / "summary.csv")
    means = table[table["branch"] == "ticket"].groupby("level")["final_test_accuracy"].mean()
    assert np.allclose(dict(shown.run(Y, "#chart-accuracy .plot"))["ticket"], means)
    said = text(shown, "#table-accuracy")
    assert "test accuracy at the last iteration" in said and "test accuracy at early stop" not in said
    assert all(f"{100 * mean:.2f}%" in said for mean in means)


def test_the_slider_goes_through_the_levels(shown: Browser, folder: Path) -> None:
    shown.run("document.querySelector('#level').focus()")
    shown.press("Home", 36)
    assert text(shown, "#level-said").startswith("Level 0: 100% of the weights (1,760)")
    for _ in range(3):
        shown.press("ArrowRight", 39)
    ticket = anatomy.read(folder)[1, 3]
    drawn = shown.run("return document.querySelector('#chart-pixels .plot').data[0].z")
    assert np.array_equal(drawn, np.array(ticket.pixels))
    assert text(shown, "#level-said").startswith("Level 3: ")
    assert shown.run("return document.querySelector('#level').getAttribute('aria-valuetext')") == text(
        shown, "#level-said"
    )
    said = text(shown, "#layers")
    for layer in ticket.layers:
        assert f"{layer.alive:,} of {layer.weights:,}" in said
        assert f"{layer.dead_units} of {layer.units}" in said
    alive = np.array(ticket.layers[0].alive_starts)
    assert np.allclose(dict(shown.run(Y, "#chart-starts .plot"))["survivors"], alive / alive.sum())
    shown.run("document.querySelector('#table-pixels').open = true")
    shown.wait("return document.querySelectorAll('#table-pixels td').length === 6 * 7")


def test_another_trial_and_layer_can_be_looked_into(shown: Browser, folder: Path) -> None:
    for name, value in (("trial", "2"), ("layer", "2")):
        shown.run(
            "const s = document.querySelector(`#tickets [data-pick=${arguments[0]}]`); s.value = arguments[1];"
            "s.dispatchEvent(new Event('change'))", name, value,
        )  # fmt: skip
    level = int(shown.run("return document.querySelector('#level').value"))
    inside = anatomy.read(folder)[2, level]
    assert f"{inside.layers[0].alive:,} of" in text(shown, "#layers")
    counts = np.array(inside.layers[2].alive_starts)
    assert np.allclose(dict(shown.run(Y, "#chart-starts .plot"))["survivors"], counts / counts.sum())


@pytest.mark.parametrize("width", [320, 390, 768])
def test_it_fits_narrow_screens(shown: Browser, folder: Path, width: int) -> None:
    shown.screen(width, 800)
    shown.open(folder / layout.REPORT)
    assert shown.run("return [innerWidth, document.documentElement.scrollWidth]") == [width, width]
    beyond = """
        const inside = (e) => e.closest(".scroll, .plot, [hidden]") || !e.getClientRects().length;
        const beyond = (e) => e.getBoundingClientRect().right > innerWidth;
        const all = [...document.querySelectorAll("main *")];
        return all.filter((e) => !inside(e) && beyond(e)).map((e) => e.outerHTML)"""
    assert shown.run(beyond) == []


def contrast(a: str, b: str) -> float:
    """WCAG's contrast of two colours, as `rgb(...)`."""

    def light(colour: str) -> float:
        parts = [int(part) / 255 for part in colour.strip("rgba()").split(",")[:3]]
        red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    high, low = sorted((light(a), light(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("dark", [False, True])
def test_dark_and_light_can_be_read(shown: Browser, dark: bool) -> None:
    shown.screen(dark=dark)
    shown.wait(
        "return document.querySelector('#chart-accuracy .plot').layout.font.color === "
        "getComputedStyle(document.documentElement).getPropertyValue('--text')"
    )
    colour = "return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]"
    page_, card = (shown.run(colour, selector, "backgroundColor") for selector in ("body", ".card"))
    assert contrast(page_, "rgb(0, 0, 0)") < 3 if dark else contrast(page_, "rgb(255, 255, 255)") < 1.3
    for selector in (".headline", ".quiet", "summary", ".card h3", "th"):
        assert contrast(shown.run(colour, selector, "color"), card) > 4.5
        assert contrast(shown.run(colour, selector, "color"), page_) > 4.5
    for path in range(2):
        stroke = shown.run(
            "return getComputedStyle(document.querySelectorAll('#chart-accuracy .js-line')[arguments[0]]).stroke", path
        )
        assert contrast(stroke, card) > 3


def test_everything_has_a_name_for_a_screen_reader(shown: Browser) -> None:
    tree = shown.command("Accessibility.getFullAXTree")["nodes"]
    roles = ("button", "slider", "combobox", "checkbox", "image", "img", "region", "figure", "table")
    nameless = [
        (node["role"]["value"], shown.command("DOM.describeNode", backendNodeId=node["backendDOMNodeId"])["node"])
        for node in tree
        if not node.get("ignored") and node["role"]["value"] in roles and not node.get("name", {}).get("value")
    ]
    assert nameless == []
    labels = shown.run("return [...document.querySelectorAll('.plot')].map(p => p.getAttribute('aria-label'))")
    assert len(labels) == 7 and all("table below" in label for label in labels)
    assert "ticket: 100% of" not in labels[0] and "at 100% of the weights" in labels[0]


def test_the_focus_goes_down_the_page(shown: Browser) -> None:
    shown.run("document.activeElement.blur(); scrollTo(0, 0)")
    places = []
    for _ in range(30):
        shown.press("Tab", 9)
        places.append(shown.run("return [...document.querySelectorAll('*')].indexOf(document.activeElement)"))
    assert places == sorted(places) and len({*places}) == 30


@pytest.mark.parametrize("low", [False, True])
def test_outliers_are_cut_and_said_but_never_a_whole_curve(window: Browser, tmp_path: Path, low: bool) -> None:
    accuracy = {(1, n, "ticket"): 0.95 + 0.001 * n for n in range(16)} | {(1, 15, "ticket"): 0.4}
    accuracy |= {(1, n, "reinit-1"): 0.2 for n in (1, 2)} if low else {}
    rows = {place: training(place[1], test_accuracy_at_early_stop=value) for place, value in accuracy.items()}
    run = make_run(tmp_path / "run", rows, curve(), branch=[{"name": "reinit", "levels": [1, 2]}])
    window.screen()
    window.open(page.write([tables.load(run)], tmp_path / "page.html"))
    bottom = window.run("return document.querySelector('#chart-accuracy .plot')._fullLayout.yaxis.range[0]")
    assert bottom < 0.2 if low else 0.9 < bottom < 0.95
    assert ("lowest mean is 40.00%" in text(window, "#chart-accuracy .note")) is not low


def test_hostile_names_are_shown_and_nothing_more(window: Browser, tmp_path: Path) -> None:
    hostile = [
        tables.load(
            a_run(tmp_path / f"<img src=x onerror=window.hacked=1>{n}", about=HOSTILE, data={"name": f"./{HOSTILE}"})
        )
        for n in (1, 2)
    ]
    line = Line("<img src=x onerror=window.hacked=1>", [100.0, 50.0], [0.9, 0.9], [0.9, 0.9], [0.9, 0.9])
    html = page.render(hostile).replace(page.main(hostile), page.main(hostile, paper=Beside({}, {"seconds": [line]})))
    path = tmp_path / "hostile.html"
    path.write_text(html)
    window.screen()
    window.console()
    window.open(path)
    for chart in ("accuracy", "seconds"):
        window.run(
            f"Plotly.Fx.hover(document.querySelector('#chart-{chart} .plot'), [{{curveNumber: 0, pointNumber: 0}}])"
        )
    assert window.run("return [typeof window.hacked, document.images.length]") == ["undefined", 0]
    assert window.console() == []
    window.run("document.querySelector('#each-run').open = true")
    assert HOSTILE in text(window, ".finding")
    assert "<img src=x onerror=window.hacked=1>1: ticket" in text(window, "#series")
    assert text(window, "#series").rstrip().endswith("the paper")


def test_a_served_page_is_renewed_in_place_until_the_run_ends(window: Browser, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", {}, trials=1, levels=3, branch=[])
    store(folder, 1, 0, "ticket")
    store(folder, 1, 1, "ticket")
    live = serve.Live([folder])
    window.screen()
    window.console()
    with serve.serving(live) as address:
        window.open(address)
        window.run("window.kept = 'same document'; document.querySelector('#level').focus()")
        window.press("Home", 36)
        window.run("document.querySelector('#table-loss').open = true")
        window.wait("return document.querySelector('#live').textContent.includes('2 of 4')")
        store(folder, 1, 2, "ticket")
        window.wait("return document.querySelector('#live').textContent.includes('3 of 4')")
        window.wait("return document.querySelector('#chart-loss .plot').data?.[0].y.length === 3")
        pressed = "return document.querySelectorAll('#levels .chip[aria-pressed=true]').length"
        assert window.run(pressed) == 3  # nobody chose levels: a new one is shown
        assert window.run("return window.kept") == "same document"
        assert (
            window.run("return document.activeElement.id + document.querySelector('#table-loss').open") == "leveltrue"
        )
        assert text(window, "#level-said").startswith("Level 0")
        window.run("document.querySelector('#levels .chip').click()")
        store(folder, 1, 3, "ticket")
    window.wait("return document.querySelector('#live').textContent.startsWith('The run has ended: 4 of 4')")
    assert window.run("return document.querySelector('#chart-loss .plot').data[0].y.length") == 4
    assert window.run(pressed) == 2  # now somebody has
    assert window.console() == []


def test_what_a_reader_chose_stays_as_branches_arrive(window: Browser, tmp_path: Path) -> None:
    branches = [{"name": "random-mask"}, {"name": "reinit"}]
    folder = make_run(tmp_path / "run", {}, trials=1, levels=1, branch=branches)
    for level, branch in ((0, "ticket"), (1, "ticket"), (1, "reinit-1")):
        store(folder, 1, level, branch)
    picked = "const s = document.querySelector('#chart-iterations [data-pick=curves]'); "
    said = picked + "return s.selectedOptions[0].textContent"
    window.screen()
    with serve.serving(serve.Live([folder])) as address:
        window.open(address)
        window.run(picked + "s.value = [...s.options].at(-1).value; s.dispatchEvent(new Event('change'))")
        first = window.run(said)
        store(folder, 1, 1, "random-mask-1")
        window.wait("return document.querySelector('#live').textContent.includes('4 of 4')")
        window.wait(picked + "return s.options.length === 3")
        assert window.run(said) == first == "reinit"
