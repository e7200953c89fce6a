"""The paper as data: curves find their experiments, claims their values, and runs the experiment that they repeat."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from lth import config
from lth.papers import PAPERS, curves, judging, lottery_ticket, papers
from lth.papers.behind import behind
from lth.papers.claims import Claim
from lth.papers.curves import Key
from lth.papers.lottery_ticket import series
from lth.papers.paper import known_setups
from lth.papers.setups import Setup, differences, experiment, fit, role_of, setup

PAPER = lottery_ticket.paper()
CURVES, CLAIMS = PAPER.curves, PAPER.claims
SETUPS = known_setups(PAPER)

LENET, CONV2 = Setup("lenet"), Setup("conv2")


def test_the_registry_names_each_paper_lazily() -> None:
    assert papers() == (PAPER,) and PAPER.cite == "Frankle & Carbin"
    assert [entry.make for entry in PAPERS.values()] == ["lth.papers.lottery_ticket:paper"]


# -------------------------------------------------------------------------------------------------------------- curves


def test_every_point_that_was_read_is_there() -> None:
    table = series.table()
    assert len(table) == 19_667
    assert list(table)[:6] == ["figure", "panel", "metric", "series", "linestyle", "level"]
    assert len(CURVES) == 596
    assert sum(len(curve.x) for curve in CURVES) == 19_667
    figures = {"1", *map(str, range(3, 15)), "17", "18", "25", *map(str, range(32, 37)), *map(str, range(38, 46))}
    assert {curve.figure for curve in CURVES} == figures


DEEP_LAYERWISE = setup("resnet18-lr0.01", {"prune.scope": "layerwise"})
MOMENTUM = {"prune.conv_rate": 0.1, "recipe.optimizer": "momentum", "recipe.lr": 0.002}
CONTINUED = setup("conv2", {"strategy": "continued"})
WARM_500 = setup("resnet18", {"recipe.lr": 0.03, "recipe.warmup": 500})
VGG, RESNET = Setup("vgg19-warmup"), Setup("resnet18-warmup")
ES, TEST, VAL = "early_stop_iteration", "test_accuracy_at_early_stop", "val_accuracy_at_early_stop"
LAST, AT_112K, AT_30K = "final_test_accuracy", "test_accuracy_at_112000", "test_accuracy_at_30000"
SHOWN = [
    ("1", "Conv ES", "Conv-6", setup("conv6", {"prune.conv_rate": 0.1}), "ticket", ES),
    ("1", "Lenet acc@ES test", "Lenet , random", LENET, "random-mask", TEST),
    ("4", "a ES iter (val)", "Random Reinit (Oneshot)", Setup("lenet-oneshot"), "reinit", ES),
    ("5", "acc@20/25/30K test", "Conv-4 reinit", Setup("conv4"), "reinit", LAST),
    ("6", "acc@ES test", "Conv-2 dropout", Setup("conv2-dropout"), "ticket", TEST),
    ("6", "acc@ES test", "Conv-2", CONV2, "ticket", TEST),
    ("7", "test acc 112K", "rate 0.1, warmup 10K , rand reinit", VGG, "reinit", AT_112K),
    ("10", "acc@ES val", "Conv-2 (continued training)", CONTINUED, "ticket", VAL),
    ("14", "Resnet-18 (0.03, warmup 20000)", "random sparsity", RESNET, "random-mask", LAST),
    ("14", "Lenet", "original initialization", LENET, "ticket", LAST),
    ("17", "acc@ES test", "sampled from ticket", LENET, "sampled", TEST),
    ("18", "acc@ES test", "Prune at Iteration 0", LENET, "prune-at-0", TEST),
    ("25", "acc@ES test", "noise 3.0", LENET, "noise-3", TEST),
    ("32", "Conv-2 ES", "0.0002", CONV2, "ticket", ES),
    ("34", "Conv-6 acc@ES val", "0.002", setup("conv6", MOMENTUM), "ticket", VAL),
    ("38", "112K", "rate 0.03, warmup 10K (global)", VGG, "ticket", AT_112K),
    ("41", "30K", "rate 0.01 , rand reinit", DEEP_LAYERWISE, "reinit", AT_30K),
    ("44", "10K", "rate 0.03, warmup 500", WARM_500, "ticket", "val_accuracy_at_10000"),
    ("3", "right", "21.1 (reinit)", LENET, "reinit", "test_accuracy"),
]  # fmt: skip


@pytest.mark.parametrize(("figure", "panel", "series", "of", "role", "column"), SHOWN)
def test_what_a_series_shows(figure: str, panel: str, series: str, of: Setup, role: str, column: str) -> None:
    (curve,) = (c for c in CURVES if (c.figure, c.panel, c.series) == (figure, panel, series))
    assert (curve.setup, curve.role, curve.column) == (of, role, column)


def test_figure_38s_line_is_figure_7s_whatever_its_legend_says() -> None:
    own = [c for c in CURVES if (c.setup, c.role, c.column) == (VGG, "ticket", AT_112K)]
    seven, thirty_eight = (next(c for c in own if c.figure == figure) for figure in ("7", "38"))
    assert thirty_eight.mean[:20] == pytest.approx(seven.mean[:20], abs=1e-5)


def test_no_two_series_of_a_figure_are_the_same() -> None:
    found = Counter((c.figure, c.panel, c.setup, c.role, c.column, c.percent) for c in CURVES)
    assert [key for key, n in found.items() if n > 1] == []


def test_levels_have_the_densities_of_the_experiment() -> None:
    for of, densities in {
        LENET: [(265_200 * 0.8**k + 1_000 * 0.9**k) / 266_200 for k in range(25)],
        CONV2: [(38_592 * 0.9**k + 4_259_840 * 0.8**k + 2_560 * 0.9**k) / 4_300_992 for k in range(23)],
        Setup("vgg19"): [(20_018_880 * 0.8**k + 5_120) / 20_024_000 for k in range(31)],
    }.items():
        curve = next(c for c in CURVES if c.level and c.setup == of and c.role == "ticket")
        for level, percent in zip(curve.level, curve.x, strict=True):
            assert level >= len(densities) or percent == pytest.approx(100 * densities[level], rel=2e-3)


def test_bars_hold_their_means_and_are_these_where_none_is_drawn() -> None:
    for curve in CURVES:
        assert all(low <= mean <= high for low, mean, high in zip(curve.low, curve.mean, curve.high, strict=True))
    curve = curves.by_density(PAPER)[Key(LENET, "ticket", "early_stop_iteration")]
    assert (curve.mean[0], curve.low[0], curve.high[0]) == (4401.0, 2101.0, 5701.0)


# --------------------------------------------------------------------------------------------------------- experiments


def test_every_setup_of_the_paper_is_itself_and_no_other() -> None:
    assert len(SETUPS) == 121
    for of in SETUPS:
        assert fit(experiment(of), SETUPS) == fit(experiment(of), [of])
        assert fit(experiment(of), SETUPS).setup == of
    presets = {name for name in config.presets() if name not in ("lenet-fashion", "conv6-256", "vit")}
    assert presets <= {of.preset for of in SETUPS}


@pytest.mark.parametrize(
    "settings",
    [
        ["seed=9", "name=mine", "recipe.eval_every=500", "recipe.report_at=[300]", "recipe.precision=bfloat16"],
        ["recipe.test_every=1000", "recipe.train_accuracy=false", "model.layers=[300,100]", "prune.conv_rate=0.4"],
        ['prune.groups=["output","fc","conv"]', "about=''"],
    ],
)
def test_what_changes_nothing_changes_nothing(settings: list[str]) -> None:
    run = config.resolve("lenet", settings, trials=2, levels=3, branches="reinit:3")
    assert fit(run, SETUPS).setup == LENET and differences(run, LENET) == {}


@pytest.mark.parametrize(
    ("source", "settings", "nearest", "keys"),
    [
        ("lenet", ["recipe.lr=0.001"], LENET, {"recipe.lr"}),
        ("lenet", ["model.layers=[100,100]", "prune.rate=0.1"], LENET, {"model.layers", "prune.rate"}),
        ("lenet", ["data.validation=10000"], LENET, {"data.validation"}),
        ("lenet", ["model.init_sigma=0.1"], LENET, {"model.init_sigma"}),
        ("conv2", ["recipe.optimizer=momentum", "recipe.lr=0.3"], None, {"recipe.lr"}),
        ("lenet-oneshot", ["prune.rates=[0.5,0.6]"], Setup("lenet-oneshot"), {"prune.rates"}),
        ("lenet-fashion", [], None, set()),
        ("conv6-256", [], None, set()),
    ],
)
def test_another_experiment_is_none_of_the_papers(
    source: str, settings: list[str], nearest: Setup | None, keys: set[str]
) -> None:
    found = fit(config.resolve(source, settings, levels=2), SETUPS)
    assert found.setup is None
    assert nearest is None or found.nearest == nearest
    assert {*(found.differs or {})} == keys


def test_a_ladder_cut_short_is_the_same_ladder() -> None:
    rates = [0.025 * n for n in range(1, 6)]
    run = config.resolve("lenet-oneshot", {"prune.rates": [round(rate, 3) for rate in rates]}, levels=5)
    assert fit(run, SETUPS).setup == Setup("lenet-oneshot")


@pytest.mark.parametrize(
    ("source", "settings", "scale", "iterations", "scheduled"),
    [
        ("lenet", [], 0.1, (50000, 5000), False),
        ("conv2", ["recipe.iterations=30000"], None, (20000, 30000), False),
        ("vgg19-warmup", [], 0.1, (112480, 11248), True),
        ("resnet18", [], 0.333, (30000, 9990), True),
        ("resnet18-warmup", ["recipe.iterations=22000"], None, (30000, 22000), True),
    ],
)
def test_the_same_at_another_length(
    source: str, settings: list[str], scale: float | None, iterations: tuple[int, int], scheduled: bool
) -> None:
    found = fit(config.resolve(source, settings, scale=scale), SETUPS)
    assert (found.setup, found.iterations, found.scheduled) == (Setup(source), iterations, scheduled)
    assert found.shorter == (iterations[1] < iterations[0])


def test_roles_are_played_by_rules_and_not_by_names() -> None:
    branches = [
        {"name": "reinit", "mask": "random"},
        {"name": "anew", "mask": "ticket", "start": "fresh"},
        {"name": "random-mask"},
        {"name": "noise-0.5"},
        {"name": "loud", "mask": "ticket", "start": "noise", "sigma": 3},
        {"name": "noise-0.7"},
        {"name": "sampled"},
        {"name": "prune-at-0", "iterations": 100},
        {"name": "mine", "mask": "random", "start": "fresh"},
    ]
    run = config.resolve(config.read("lenet") | {"branch": branches})
    roles = {branch.name: role_of(run, branch.name, curves.roles(PAPER)) for branch in run.branch}
    assert roles == {
        "reinit": None, "anew": "reinit", "random-mask": "random-mask", "noise-0.5": "noise-0.5", "loud": "noise-3",
        "noise-0.7": None, "sampled": "sampled", "prune-at-0": "prune-at-0", "mine": None,
    }  # fmt: skip


# ------------------------------------------------------------------------------------------------------ behind a run's


def test_curves_behind_a_run_are_those_of_its_branches() -> None:
    run = config.resolve("lenet", branches="reinit:3,random-mask:1,noise-0.5")
    found = behind(PAPER, run, "test_accuracy_at_early_stop")
    assert [(c.figure, c.role) for c in found] == [("4", "ticket"), ("4", "reinit"), ("1", "random-mask")]
    assert [c.role for c in behind(PAPER, run, "test_accuracy_at_early_stop", "25")] == [
        "ticket",
        "reinit",
        "noise-0.5",
    ]
    assert [c.figure for c in behind(PAPER, run, "final_test_accuracy")] == ["4", "4", "14"]
    assert behind(PAPER, run, "seconds") == []
    assert behind(PAPER, config.resolve("lenet-fashion"), "test_accuracy_at_early_stop") == []


def test_curves_behind_a_run_of_another_length_are_those_that_can_be_compared() -> None:
    run = config.resolve("conv2", scale=0.5)
    ticket, reinit = behind(PAPER, run, "test_accuracy_at_early_stop")
    assert ticket.level[-1] == 22 and reinit.level[-1] == 14  # later ones stop after 10,000
    assert behind(PAPER, config.resolve("lenet", scale=0.02), "early_stop_iteration") == []
    assert [c.role for c in behind(PAPER, run, "early_stop_iteration")] == ["ticket", "reinit"]
    assert behind(PAPER, run, "final_test_accuracy") == []
    run = config.resolve("resnet18", scale=0.5)
    assert behind(PAPER, run, "test_accuracy_at_30000") == behind(PAPER, run, "val_accuracy_at_early_stop") == []


def test_a_part_of_a_curve_goes_no_further_than_the_run() -> None:
    (curve,) = behind(PAPER, config.resolve("lenet", branches=""), "early_stop_iteration")
    cut = curves.part(curve, [100.0, 80.04, 51.28])
    assert (
        cut.level == (0, 1, 2, 3) and cut.mean == curve.mean[:4] and cut.x == curve.x[:4] and cut.high == curve.high[:4]
    )
    assert curves.part(curve, [1e-9]).x == ()


def test_curves_by_iteration() -> None:
    shown = [c for c in CURVES if not c.level and (c.setup, c.column) == (LENET, "val_loss")]
    assert {(c.percent, c.role) for c in shown} >= {(1.9, "ticket"), (51.3, "reinit"), (100.0, "ticket")}
    loss = next(c for c in shown if (c.percent, c.role) == (21.1, "ticket"))
    assert min(zip(loss.mean, loss.x, strict=True))[1] == pytest.approx(3801, abs=1)


# -------------------------------------------------------------------------------------------------------------- claims

VALUES = [  # as worked out by hand from the plotted means
    ("C2.1", "lenet", [1 - 3541 / 4401]),
    ("C2.2", "lenet", [5161 / 4401]),
    ("C2.3", "lenet", [0.0041]),
    ("C2.5", "lenet", [0.0022]),
    ("C2.6", "lenet", [0.9999, 0.9999]),
    ("C2.7", "lenet", [-0.0004, -0.0001]),
    ("C2.8", "lenet", [7633 / 3541]),
    ("C2.9", "lenet", [0.0048]),
    ("C2.14", "lenet", [0.0038]),
    ("C3.1", "conv2", [2321 / 661]),
    ("C3.2", "conv4", [2701 / 781]),
    ("C3.3", "conv6", [3341 / 1321]),
    ("C3.4", "conv2", [0.0337]),
    ("C3.5", "conv4", [0.0352]),
    ("C3.6", "conv6", [0.0291]),
    ("C3.8", "conv6-dropout", [0.0252]),
    ("C3.9", "conv4-dropout", [0.0459]),
    ("C3.10", "conv4-dropout", [2.0]),
    ("C4.2", "vgg19-lr0.01", [-0.0082, -0.0118]),
    ("C4.3", "vgg19-warmup", [0.0085]),
    ("C4.5", "vgg19-warmup", [-0.0004, 0.0200]),
    ("C4.7", "resnet18", [0.9053]),
    ("C4.9", "resnet18-warmup", [-0.0003]),
    ("CC.1", "lenet", [1.68, 1.92, 2101 / 1001]),
    ("CE.1", "lenet", [0.0009, 0.0074, 0.0139]),
    ("CE.2", "conv4", [0.0052]),
    ("CE.2", "conv6", [0.0067]),
    ("CE.2", "vgg19-warmup", [0.0045]),
    ("CF.3", "lenet", [0.0041, 0.0008]),
    ("CF.4", "lenet", [0.0015, 0.0068]),
    ("CF.9", "lenet", [0.0009, 0.0021]),
    ("CI.1", "vgg19-warmup", [-0.0004]),
    ("CI.3", "resnet18-lr0.01", [0.0243]),
    ("CB.1", "lenet-continued", [-0.0050, 2.58]),
]


@pytest.mark.parametrize(("id", "preset", "values"), VALUES)
def test_the_papers_figures_give_what_they_give(id: str, preset: str, values: list[float]) -> None:
    (claim,) = (claim for claim in CLAIMS if (claim.id, claim.setup) == (id, Setup(preset)))
    found = [judging.figure_value(PAPER, check, claim.setup, claim.figures) for check in claim.checks]
    for check, value, wanted in zip(claim.checks, found, values, strict=True):
        assert value == pytest.approx(
            wanted, abs=6e-3 if check.kind == "times" else 1.5e-3 if "I.4" in claim.section else 8e-5
        )


def test_the_claims_are_all_there_and_once_each() -> None:
    ids = {claim.id for claim in CLAIMS}
    wanted = {f"C2.{n}" for n in range(1, 15)} | {f"C3.{n}" for n in [*range(1, 11), "7b", "7c"]}
    wanted |= {f"C4.{n}" for n in range(1, 12)} | {"CB.1", "CC.1", "CD.1", "CE.1", "CE.2", "CA.1"}
    wanted |= {f"CF.{n}" for n in range(1, 10)} | {f"CH.{n}" for n in range(1, 12)} | {"CI.1", "CI.2", "CI.3"}
    assert ids == wanted and len(ids) == 66
    found = Counter((claim.id, claim.setup) for claim in CLAIMS)
    assert [key for key, n in found.items() if n > 1] == []


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: f"{claim.id} {claim.setup.text}")
def test_a_claim_says_which_levels_it_means(claim: Claim) -> None:
    """What is measured has a figure to be near to, and the percent that it is said to be at is that of its level."""
    assert bool(claim.checks) != bool(claim.lacks) and claim.text
    for check in claim.checks:
        figure = judging.figure_value(PAPER, check, claim.setup, claim.figures)
        assert figure is not None or check.rules == ("same",)
        if figure is not None and "above" in check.rules:
            assert figure > check.null  # the paper's own figure is on the side that it claims
        terms = [term for term in (check.a, check.b) if term and isinstance(term.level, int)]
        percents = {f"{ladder(term.of or claim.setup)[term.levels[0]]:.1f}" for term in terms}
        assert {*re.findall(r"at (\d+\.\d)%", check.what)} <= percents


def ladder(of: Setup) -> dict[int, float]:
    """The percent of weights at each level of an experiment."""
    known = [c for c in CURVES if c.level]
    own = [c for c in known if c.setup == of] or [c for c in known if c.setup.preset == of.preset]
    return {0: 100.0, **{level: x for c in own for level, x in zip(c.level, c.x, strict=True)}}
