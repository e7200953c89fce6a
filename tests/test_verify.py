"""The score card on synthetic runs with known answers: right ones, wrong ones, and those that lack data."""

from __future__ import annotations

import gzip
import json
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from typer.testing import CliRunner

from lth import config
from lth.cli import app
from lth.config.registry import Entry
from lth.papers import PAPERS, intervals, judging, lottery_ticket, serialize, terminal, trials, wording
from lth.papers import card as cards
from lth.papers.agreement import Agreement
from lth.papers.behind import behind
from lth.papers.card import Card
from lth.papers.claims import Check, Claim, Term
from lth.papers.curves import by_density
from lth.papers.paper import Paper
from lth.papers.scores import Score
from lth.papers.setups import Setup, experiment, setup
from lth.papers.statements import Count
from lth.results import records
from lth.results.intervals import student
from lth.results.records import Records, summary_columns
from test_paper import ladder

PAPER = lottery_ticket.paper()
ES, TEST, LAST = "early_stop_iteration", "test_accuracy_at_early_stop", "final_test_accuracy"
Place = tuple[int, str]  # level and label
Values = dict[Place, dict[str, float]]
PRESETS = [name for name in config.presets() if name not in ("lenet-fashion", "conv6-256", "vit")]


def papers_values(of: Setup) -> Values:
    """What the paper plots of an experiment: by level and branch, its means, of as many columns as there are."""
    known = by_density(PAPER) | by_density(PAPER, PAPER.by_test) | by_density(PAPER)  # the main figures' first
    values: Values = {}
    for key, curve in known.items():
        if key.setup == of:
            label = key.role if key.role == "ticket" else f"{key.role}-1"
            for level, mean in curve.means.items():
                values.setdefault((level, label), {})[key.column] = mean
    if of.preset == "lenet-continued":  # the unpruned network is plotted once for both strategies
        values[0, "ticket"] = papers_values(Setup("lenet"))[0, "ticket"]
    return values


def branches(values: Values) -> list[dict[str, Any]]:
    return [{"name": name} for name in dict.fromkeys(label.rpartition("-")[0] for _, label in values) if name]


def make(
    of: Setup,
    values: Values,
    trials: int = 3,
    spread: Callable[[int, int, str, str], float] = lambda trial, level, label, column: 0.0,
    evaluations: Mapping[int, list[tuple[int, float, float]]] | None = None,
    **changes: Any,
) -> Records:
    """A run of `of` whose trainings have these values in every trial, but for what `spread` adds."""
    tables = experiment(of).model_dump() | {"trials": trials, "branch": branches(values)} | changes
    tables["levels"] = changes.get("levels", max((level for level, _ in values), default=0))
    run = config.resolve(tables)
    percents = ladder(of)
    rows, evaluated = [], []
    for trial in range(1, trials + 1):
        for (level, label), own in values.items():
            density = percents.get(level, 100 * 0.8**level) / 100
            row: dict[str, Any] = {"trial": trial, "level": level, "branch": label, "density": density, "weights": 1000}
            row |= {"status": "done", "iterations": run.recipe.iterations, "engine": "torch", "precision": "float32"}
            row |= {column: value + spread(trial, level, label, column) for column, value in own.items()}
            rows.append(row)
            for iteration, loss, accuracy in (evaluations or {}).get(level, []) if label == "ticket" else []:
                evaluated.append((trial, level, label, density, iteration, loss, 0.9, loss, accuracy))
    columns = dict.fromkeys([*summary_columns(run), *(column for own in values.values() for column in own)])
    summary = pd.DataFrame(rows, columns=[*columns])
    return Records(Path("run"), run, summary, pd.DataFrame(evaluated, columns=[*records.CURVES]))


def papers_run(preset: str, trials: int = 3, **changes: Any) -> Records:
    evaluations = {
        0: [(1, 2.3, 0.1), (1001, 0.1, 0.97), (2001, 0.07, 0.976), (50000, 0.12, 0.98)],
        7: [(1, 2.3, 0.1), (1001, 0.08, 0.976), (2001, 0.05, 0.98), (50000, 0.1, 0.98)],
    }
    return make(Setup(preset), papers_values(Setup(preset)), trials, evaluations=evaluations, **changes)


def scores(run: Records, *beside: Records) -> dict[str, Score]:
    return {score.claim.id: score for score in cards.card(run, beside).scores}


def verdicts(run: Records) -> dict[str, str]:
    return {id: score.verdict for id, score in scores(run).items()}


# ---------------------------------------------------------------------------------------------------------- right ones


@pytest.mark.parametrize("preset", PRESETS)
def test_the_papers_own_values_agree_with_the_paper(preset: str) -> None:
    card = cards.card(papers_run(preset))
    assert card.scores and card.curves
    for score in card.scores:
        elsewhere = any(
            term and term.of not in (None, Setup(preset)) for c in score.claim.checks for term in (c.a, c.b)
        )
        assert score.verdict == ("not enough data" if elsewhere or not score.claim.checks else "agrees"), score
        assert bool(score.missing) == (score.verdict == "not enough data")
    for entry in card.curves:
        assert entry.share == 1 and abs(entry.departure) < 1e-12


def test_a_lenet_run_has_all_that_the_paper_says_of_it() -> None:
    card = cards.card(papers_run("lenet"))
    assert len(card.scores) == 25
    assert [s.claim.id for s in card.scores if s.verdict != "agrees"] == [
        "C2.14",
        "CF.1",
        "CF.5",
        "CF.6",
        "CF.7",
        "CF.8",
    ]
    first = card.scores[0]
    assert first.figure == "19.5% earlier; earliest at 13.5%: 32.3% earlier (figure 4)"
    assert first.run == "19.5% earlier [19.5, 19.5] (19.5 to 19.5, n = 3)"
    drawn = [(entry.curve.role, entry.curve.column) for entry in card.curves]
    assert drawn[:9] == [(role, column) for column in (ES, TEST, LAST) for role in ("ticket", "random-mask", "reinit")]


def second() -> Paper:
    """A paper with one claim about LeNet, and no curves."""
    check = Check("points", Term("ticket", 7, TEST), Term("ticket", 0, TEST), ("above",))
    return Paper("Second & Other", (), (Claim("S1", "1", Setup("lenet"), "Tickets win", (), (check,)),), ())


def test_a_second_paper_is_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PAPERS, "second", Entry("another paper", "test_verify:second"))
    both = cards.card(papers_run("lenet"))
    assert [s.claim.id for s in both.scores][-2:] == ["CA.1", "S1"] and both.scores[-1].verdict == "agrees"
    assert both.notes[0] == "Frankle & Carbin: Compared with the paper's experiment, `lth run lenet`."
    assert both.notes[-1].startswith("Second & Other: ") and both.curves
    assert "S1" in printed(both)
    assert {s.claim.id for s in cards.card(papers_run("conv2")).scores} >= {"C3.1"}


# ---------------------------------------------------------------------------------------------------------- wrong ones


def test_a_reinit_as_good_as_the_ticket_differs() -> None:
    values = papers_values(Setup("lenet"))
    values |= {(level, "reinit-1"): values[level, "ticket"] for level in range(1, 19)}
    found = verdicts(make(Setup("lenet"), values))
    assert {id for id, verdict in found.items() if verdict == "differs"} == {
        "C2.7",
        "C2.8",
        "C2.9",
        "C2.11",
        "CD.1",
        "CF.3",
        "CF.9",
    }


def test_tickets_that_only_get_worse_differ() -> None:
    values = papers_values(Setup("conv2"))
    for (level, label), own in values.items():
        if label == "ticket":
            own |= {ES: 2321.0 + 100 * level, TEST: 0.6566 - 0.01 * level}
    found = verdicts(make(Setup("conv2"), values))
    assert [found[id] for id in ("C3.1", "C3.4", "C3.7", "CA.1")] == ["differs"] * 4
    assert found["C3.7b"] == "agrees"  # training accuracy is as it was


def test_an_accuracy_beyond_the_tolerance_differs() -> None:
    for points, verdict in ((0.0149, "agrees"), (0.0151, "differs"), (-0.0149, "agrees"), (-0.0151, "differs")):
        values = papers_values(Setup("resnet18"))
        values[0, "ticket"]["test_accuracy_at_30000"] += points
        assert verdicts(make(Setup("resnet18"), values))["C4.7"] == verdict


def test_a_quotient_beyond_a_quarter_differs() -> None:
    for factor, verdict in ((1.24, "agrees"), (1.26, "differs"), (0.76, "agrees"), (0.74, "differs")):
        values = papers_values(Setup("lenet"))
        values[15, "ticket"][ES] *= factor
        assert verdicts(make(Setup("lenet"), values))["C2.2"] == verdict


def test_what_holds_or_improves_may_improve_by_more_than_the_figure_has() -> None:
    """Conv-2's reinits at level 6: within 1.5 points of the unpruned network, or anything above."""
    for gain, verdict in ((0.06, "agrees"), (0.0, "agrees"), (-0.0149, "agrees"), (-0.0151, "differs")):
        values = papers_values(Setup("conv2"))
        values[6, "reinit-1"][TEST] = values[0, "ticket"][TEST] + gain
        assert verdicts(make(Setup("conv2"), values))["C3.7c"] == verdict


# ----------------------------------------------------------------------------------------------------- not enough data


@pytest.mark.parametrize(
    ("changes", "id", "missing"),
    [
        ({"without": "reinit"}, "C2.8", "the branch reinit: `--branches reinit:3`"),
        ({"without": "random-mask"}, "CE.1", "the branch random-mask: `--branches random-mask`"),
        ({"until": 5}, "C2.3", "level 9: `--levels 9`"),
        ({"until": 5, "levels": 24}, "C2.3", "level 9, trained without diverging"),
        ({"trials": 1}, "C2.1", "a second trial: one alone has no interval"),
        ({"blank": "final_train_accuracy"}, "C2.6", "final_train_accuracy, which is blank here"),
        ({"without": "ticket"}, "C2.1", "tickets: nothing is trained yet"),
    ],
)
def test_what_is_missing_is_said(changes: dict[str, Any], id: str, missing: str) -> None:
    values = {
        (level, label): {column: v for column, v in own.items() if column != changes.get("blank")}
        for (level, label), own in papers_values(Setup("lenet")).items()
        if not label.startswith(changes.get("without", "-")) and level <= changes.get("until", 99)
    }
    levels = {"levels": changes["levels"]} if "levels" in changes else {}
    score = scores(make(Setup("lenet"), values, changes.get("trials", 3), **levels))[id]
    assert (score.verdict, score.missing) == ("not enough data", missing)


def test_all_that_two_trainings_lack_is_said() -> None:
    values = {place: own for place, own in papers_values(Setup("lenet")).items() if place[1] == "ticket"}
    assert scores(make(Setup("lenet"), values))["CF.4"].missing == (
        "the branch reinit: `--branches reinit:3`; the branch prune-at-0: `--branches prune-at-0`"
    )


def test_claims_about_two_runs_name_the_other() -> None:
    assert scores(papers_run("lenet"))["C2.14"].missing == "another run, `lth run lenet-oneshot`: give its folder too"
    assert "`lth run conv2`" in scores(papers_run("conv2-dropout"), papers_run("lenet"))["C3.8"].missing


def test_claims_about_two_runs_read_both() -> None:
    """The paper's iteratively found tickets are ahead at 5%; with the runs' trials paired, in each of them."""
    lenet, oneshot = papers_run("lenet"), papers_run("lenet-oneshot")
    for card in (scores(lenet, oneshot), scores(oneshot, lenet, oneshot)):
        assert card["C2.14"].verdict == "agrees"
        assert card["C2.14"].judged[0].run.mean == pytest.approx(card["C2.14"].judged[0].figure)
    values = papers_values(Setup("lenet-oneshot"))
    values[38, "ticket"] = values[38, "ticket"] | {TEST: 0.99}
    assert scores(lenet, make(Setup("lenet-oneshot"), values))["C2.14"].verdict == "differs"
    del values[38, "ticket"]
    assert "level 38" in scores(lenet, make(Setup("lenet-oneshot"), values))["C2.14"].missing


def test_a_mean_outside_with_an_interval_that_reaches_in_needs_more_trials() -> None:
    """Level 15's early stop at 1.6 times level 0's, where the paper's is 1.17: outside of its 25%."""

    def spread(wide: float) -> Callable[[int, int, str, str], float]:
        extra = lambda trial: 1900 + wide * (trial - 2)
        return lambda trial, level, label, column: extra(trial) if (level, label, column) == (15, "ticket", ES) else 0.0

    values = papers_values(Setup("lenet"))
    wide, narrow = (scores(make(Setup("lenet"), values, spread=spread(d)))["C2.2"] for d in (1500, 10))
    assert (narrow.verdict, wide.verdict) == ("differs", "not enough data")
    assert wide.missing == "more trials: the interval of 3 reaches both sides"


def test_a_side_is_taken_with_the_whole_interval() -> None:
    """The ticket over reinit at level 18, as training accuracy: +1.9 points on average, but in one trial none."""
    values = papers_values(Setup("lenet"))
    spread = lambda trial, level, label, column: (
        0.01 * (trial - 2) if (level, label, column) == (18, "reinit-1", "final_train_accuracy") else 0.0
    )
    assert verdicts(make(Setup("lenet"), values, spread=spread))["CD.1"] == "not enough data"
    assert verdicts(make(Setup("lenet"), values, 30, lambda *place: spread(*place) / 30))["CD.1"] == "agrees"


def test_diverged_trainings_are_no_data() -> None:
    run = papers_run("lenet")
    run.summary.loc[(run.summary["level"] == 9) & (run.summary["branch"] == "ticket"), "status"] = "diverged"
    assert "level 9" in scores(run)["C2.3"].missing
    run = papers_run("lenet")
    run.summary.loc[(run.summary["level"] == 9) & (run.summary["trial"] == 2), "status"] = "diverged"
    judged = scores(run)["C2.3"].judged[0]
    assert judged.run and judged.run.n == 2 and judged.verdict == "agrees"


def test_a_mean_over_levels_is_of_trials_that_have_all_of_them() -> None:
    run = papers_run("lenet-oneshot")
    gone = (run.summary["level"] == 20) & (run.summary["trial"] == 2) & (run.summary["branch"] == "ticket")
    judged = scores(Records(run.folder, run.experiment, run.summary.loc[~gone], run.curves))["C2.12"].judged
    assert [j.run.n for j in judged if j.run] == [2, 3] and {j.verdict for j in judged} == {"agrees"}


# ------------------------------------------------------------------------------------------------ numbers, by hand


def test_students_t() -> None:
    """Against the integral of its density, by Simpson's rule."""
    for freedom in (1, 2, 4, 9, 29, 30, 31, 60, 400):
        t = student(freedom)
        constant = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(freedom * math.pi)
        x = np.linspace(0, t, 20_001)
        y = constant * (1 + x**2 / freedom) ** (-(freedom + 1) / 2)
        area = (x[1] - x[0]) / 3 * (y[0] + y[-1] + 4 * y[1:-1:2].sum() + 2 * y[2:-1:2].sum())
        assert 2 * area == pytest.approx(0.95, abs=2e-5), freedom


def test_differences_are_paired_and_quotients_are_of_means() -> None:
    a, b = np.array([2.0, 4.0, 9.0]), np.array([1.0, 2.0, 3.0])
    points = intervals.over_trials("points", a, b)
    assert (points.mean, points.min, points.max, points.n) == (3.0, 1.0, 6.0, 3)
    assert points.half == pytest.approx(4.3027 * math.sqrt(7) / math.sqrt(3), rel=1e-4)
    times = intervals.over_trials("times", a, b)
    assert (times.mean, times.min, times.max) == (2.5, 2.0, 3.0)
    assert times.high == math.inf  # by three such trials the mean of b may be 0
    assert wording.format_measured("times", times) == f"2.50 times [{times.low:.2f}, inf] (2.00 to 3.00, n = 3)"
    times, earlier = (intervals.over_trials(kind, 10 + a, 10 + b) for kind in ("times", "earlier"))
    assert times.low < times.mean < times.high < math.inf
    assert (earlier.mean, earlier.low, earlier.high) == (1 - times.mean, 1 - times.high, 1 - times.low)
    assert earlier.min == pytest.approx(1 - 19 / 13)
    alone = intervals.over_trials("accuracy", np.array([0.5]))
    assert alone.n == 1 and math.isnan(alone.low) and wording.format_measured("accuracy", alone) == "50.00% (n = 1)"


def test_branches_are_averaged_within_a_trial_before_they_count() -> None:
    values = {(0, "ticket"): {TEST: 0.97}, (7, "ticket"): {TEST: 0.98}}
    values |= {(7, f"reinit-{n}"): {TEST: 0.97 + 0.001 * n} for n in (1, 2, 3)}
    run = make(Setup("lenet"), values, 2, branch=[{"name": "reinit", "count": 3}])
    table = trials.trials(run, PAPER)
    found = judging.measure(table, Check("points", Term("ticket", 7, TEST), Term("reinit", 7, TEST), ("near",)))
    assert isinstance(found, intervals.Measured)
    assert (found.n, found.mean) == (2, pytest.approx(0.008))


@pytest.mark.parametrize(
    ("kind", "value", "said"),
    [
        ("times", 2.156, "2.16 times"), ("earlier", 0.195, "19.5% earlier"), ("earlier", -0.1, "10.0% later"),
        ("points", 0.0041, "+0.41 points"), ("points", -0.0041, "-0.41 points"), ("accuracy", 0.98372, "98.37%"),
    ],
)  # fmt: skip
def test_numbers_in_words(kind: Any, value: float, said: str) -> None:
    assert wording.format_value(kind, value) == said


# -------------------------------------------------------------------------------------------------------------- curves


def against(run: Records, role: str = "ticket", column: str = ES) -> Agreement:
    (found,) = (e for e in cards.card(run).curves if (e.curve.role, e.curve.column) == (role, column))
    return found


def test_a_curve_is_within_the_bar_or_the_tolerance() -> None:
    values = papers_values(Setup("lenet"))
    values[0, "ticket"][ES] = 2101.0  # the lower end of the bar, 52% below the mean
    values[8, "ticket"][ES] *= 0.76  # below the bar, within a quarter
    values[20, "ticket"][ES] *= 1.6
    values[3, "ticket"][ES] *= 0.3
    found = against(make(Setup("lenet"), values))
    assert (len(found.levels), len(found.within)) == (25, 23) and {*found.levels} - {*found.within} == {3, 20}
    assert (found.level, found.departure, found.share) == (3, pytest.approx(-0.7), 23 / 25)


def test_the_largest_departure_is_of_levels_and_signed() -> None:
    values = papers_values(Setup("lenet"))
    values[5, "ticket"][TEST] -= 0.02
    values[6, "ticket"][TEST] += 0.01
    found = against(make(Setup("lenet"), values), column=TEST)
    assert (found.level, found.departure) == (5, pytest.approx(-0.02)) and {5, 6} == {*found.levels} - {*found.within}
    assert found.means == (pytest.approx(0.98336, abs=1e-4), pytest.approx(0.96336, abs=1e-4))


def test_a_curve_counts_the_levels_that_both_have() -> None:
    values = {place: own for place, own in papers_values(Setup("lenet")).items() if place[0] <= 4}
    card = cards.card(make(Setup("lenet"), values))
    assert {len(e.levels) for e in card.curves if e.curve.role == "ticket"} == {5}
    assert {len(e.levels) for e in card.curves if e.curve.role == "reinit"} == {4}


def test_noise_on_the_tickets_start_is_no_reinit() -> None:
    values = {place: own for place, own in papers_values(Setup("lenet")).items() if place[1] == "ticket"}
    values |= {(level, "sampled-1"): dict(values[level, "ticket"]) for level in range(1, 19)}
    values |= {(level, "noise-0.7-1"): dict(values[level, "ticket"]) for level in range(1, 19)}
    card = cards.card(make(Setup("lenet"), values))
    assert {e.curve.role for e in card.curves} == {"ticket"}
    assert next(s for s in card.scores if s.claim.id == "C2.9").verdict == "not enough data"
    assert "curves of: random-mask, reinit" in " ".join(card.notes)


# ------------------------------------------------------------------------------------------- other lengths and settings


def at_length(preset: str, iterations: int, **changes: Any) -> Records:
    values = papers_values(Setup(preset))
    tables = experiment(Setup(preset)).recipe.model_dump() | {"iterations": iterations}
    return make(Setup(preset), values, recipe=tables, **changes)


def test_what_is_kept_of_a_run_changes_no_verdict() -> None:
    kept = [papers_run("lenet", store={"keep": keep}) for keep in ("all", "last", "tickets")]
    assert verdicts(kept[0]) == verdicts(kept[1]) == verdicts(kept[2]) and "agrees" in verdicts(kept[0]).values()
    assert all("store.keep" not in " ".join(cards.card(run).notes) for run in kept)


def test_of_runs_of_one_experiment_the_largest_speaks_whatever_their_order() -> None:
    oneshot, whole = papers_run("lenet-oneshot"), papers_run("lenet")
    few = make(Setup("lenet"), {at: v for at, v in papers_values(Setup("lenet")).items() if at[0] < 2}, 5)
    nothing = replace(whole, summary=whole.summary.iloc[:0], curves=whole.curves.iloc[:0])
    shorter = at_length("lenet", 20_000, trials=5)
    expected = scores(oneshot, whole)["C2.14"]
    assert expected.verdict == "agrees"
    for beside in ((whole, few), (few, whole), (whole, nothing), (nothing, whole, shorter), (whole, shorter, few)):
        told = {score.claim.id: score for score in cards.card(oneshot, [oneshot, *beside]).scores}
        assert told["C2.14"] == expected


def test_a_shorter_run_is_compared_at_early_stop_alone() -> None:
    """The paper's early stops of Conv-2's tickets all come before 15,000 iterations; those of its reinits do not."""
    card = cards.card(at_length("conv2", 15_000))
    found = {score.claim.id: score for score in card.scores}
    assert {"C3.1", "C3.4", "C3.7", "CA.1"} <= {id for id, score in found.items() if score.verdict == "agrees"}
    assert found["C3.7b"].missing == "trainings of 20,000 iterations; these have 15,000"
    assert all("early_stop" in entry.curve.column for entry in card.curves) and card.curves
    (reinit,) = (e for e in card.curves if (e.curve.role, e.curve.column) == ("reinit", ES))
    assert reinit.left_out == (16, 17, 18, 19, 20, 21, 22) and max(reinit.levels) == 15
    assert not any(e.left_out for e in card.curves if e.curve.role == "ticket")
    assert "have 20,000 iterations, these 15,000 iterations:" in " ".join(card.notes)
    assert (
        "before their early stop: random-mask at level 17, 18, 19, 20, 21, 22; reinit at level 16, 17, 18"
        in " ".join(card.notes)
    )


def test_a_training_that_ends_before_its_early_stop_has_none() -> None:
    """In 6,000 iterations, nothing is known where the paper's early stops come later, or one's own is the last."""
    values = papers_values(Setup("lenet"))
    values[9, "ticket"][ES] = 6_000.0
    run = make(Setup("lenet"), values, recipe=experiment(Setup("lenet")).recipe.model_dump() | {"iterations": 6_000})
    found = scores(run)
    missing = "longer trainings of ticket: 6,000 iterations may end before early stop"
    assert found["C2.2"].missing == found["C2.3"].missing == missing
    assert found["C2.1"].verdict == "agrees"
    assert "No curve has a level" not in " ".join(cards.card(run).notes)
    shortest = experiment(Setup("lenet")).recipe.model_dump() | {"iterations": 500}
    notes = cards.card(make(Setup("lenet"), papers_values(Setup("lenet")), recipe=shortest)).notes
    assert "No curve has a level that can be compared." in notes
    assert 9 in against(run).left_out and 15 in against(run).left_out and 7 in against(run).levels


@pytest.mark.parametrize(("last", "told"), [(5_400, True), (5_401, False), (5_900, False)])
def test_a_least_loss_in_the_last_tenth_of_a_training_may_not_be_the_least_of_a_longer_one(
    last: int, told: bool
) -> None:
    values = {place: own for place, own in papers_values(Setup("conv2")).items() if place[0] <= 8}
    values[6, "reinit-1"][ES] = float(last)
    recipe = experiment(Setup("conv2")).recipe.model_dump() | {"iterations": 6_000}
    run = make(Setup("conv2"), values, recipe=recipe)
    (reinit,) = (e for e in cards.card(run).curves if (e.curve.role, e.curve.column) == ("reinit", ES))
    assert (6 in reinit.levels, reinit.left_out) == ((True, ()) if told else (False, (6,)))
    missing = "longer trainings of reinit: 6,000 iterations may end before early stop"
    assert scores(run)["C3.7c"].missing == ("" if told else missing)


def test_what_ended_before_its_early_stop_is_a_bound_by_the_run_itself() -> None:
    """A reinit that stops as late as can be is later than the rest, by how much cannot be told."""
    values = {place: own for place, own in papers_values(Setup("conv2")).items() if place[0] <= 8}
    values = {place: own for place, own in values.items() if place[1] in ("ticket", "reinit-1")}
    spread = lambda trial, level, label, column: 20.0 * trial * (column == ES and label == "ticket")

    def told(*late: Place) -> dict[str, tuple[str, bool | None]]:
        changed = {place: own | {ES: 19_000.0} if place in late else own for place, own in values.items()}
        card = cards.card(make(Setup("conv2"), changed, spread=spread))
        return {f"{s.a} over {s.b}": (s.bound, s.differ) for s in card.statements if s.column == ES}

    assert told((8, "reinit-1")) == {
        "ticket over dense": ("", True),
        "reinit over dense": ("at least", True),
        "ticket over reinit": ("at most", True),
    }
    assert told((0, "ticket"), (8, "reinit-1")) == {
        "ticket over dense": ("at most", True),
        "ticket over reinit": ("at most", True),
    }
    assert told((0, "ticket"))["reinit over dense"] == ("at most", True)
    alone = spread
    spread = lambda trial, *place: 15_000.0 if (trial, *place) == (1, 8, "reinit-1", ES) else alone(trial, *place)
    assert told()["reinit over dense"] == ("at least", None)  # the other trials are not


def test_a_branch_of_another_length_is_compared_at_its_early_stops() -> None:
    """Conv-2's tickets for 5,000 iterations and its reinits for 6,000: the paper's end by 4,601 at level 8."""
    values = {place: own for place, own in papers_values(Setup("conv2")).items() if place[0] <= 9}
    recipe = experiment(Setup("conv2")).recipe.model_dump() | {"iterations": 5_000}
    reinit = {"name": "reinit", "count": 1, "levels": "1-9"}
    for length, whole, left_out in ((6_000, 9, ()), (4_700, 8, (9,))):
        run = make(Setup("conv2"), values, recipe=recipe, branch=[reinit | {"iterations": length}])
        run.summary.loc[run.summary["branch"].str.startswith("reinit"), "iterations"] = length
        (entry,) = (e for e in cards.card(run).curves if (e.curve.role, e.curve.column) == ("reinit", ES))
        assert (entry.levels, entry.left_out, entry.share) == (tuple(range(1, whole + 1)), left_out, 1)
        (grey,) = (c for c in behind(PAPER, run.experiment, ES) if c.role == "reinit")
        assert max(grey.level) == (10 if length == 6_000 else 8)
        assert not [c for c in behind(PAPER, run.experiment, LAST) if c.role == "reinit"]
        assert all("early_stop" in e.curve.column for e in cards.card(run).curves)


def test_the_last_iteration_of_a_branch_of_another_length_is_not_compared() -> None:
    values = papers_values(Setup("lenet"))
    branch = [{"name": "reinit", "count": 3, "iterations": 30_000}]
    run = make(Setup("lenet"), values, branch=branch)
    run.summary.loc[run.summary["branch"].str.startswith("reinit"), "iterations"] = 30_000
    assert scores(run)["CD.1"].missing == "trainings of reinit that are as long as the tickets'"
    assert scores(run)["C2.8"].verdict == "agrees"
    assert not [e for e in cards.card(run).curves if (e.curve.role, e.curve.column) == ("reinit", LAST)]


def test_a_scaled_run_with_a_schedule_is_not_compared() -> None:
    run = make(Setup("resnet18"), papers_values(Setup("resnet18")))
    scaled = config.resolve(run.experiment.model_dump(), scale=0.1)
    card = cards.card(Records(run.folder, scaled, run.summary, run.curves))
    assert {score.verdict for score in card.scores} == {"not enough data"} and not card.curves
    assert "because the learning rate changes during training, nothing can be compared" in " ".join(card.notes)
    assert "at scale 0.1" in " ".join(card.notes)


def test_another_experiment_speaks_for_itself() -> None:
    run = papers_run("lenet", seed=3)
    other = config.resolve(run.experiment.model_dump(), ["recipe.lr=0.001"])
    card = cards.card(Records(run.folder, other, run.summary, run.curves))
    assert not card.scores and not card.curves and card.statements
    assert "The nearest, `lth run lenet`, differs in recipe.lr (0.0012 there, 0.001 here)" in card.notes[0]
    fashion = config.resolve("lenet-fashion", levels=run.experiment.levels)
    card = cards.card(Records(run.folder, fashion, run.summary, run.curves))
    assert "The paper has no experiment on this network and dataset" in card.notes[0]
    assert "Judged by" not in card.method and "Student" in card.method


# --------------------------------------------------------------------------------------------------- by the run itself


def test_own_statements_at_the_winning_level() -> None:
    values = {(0, "ticket"): {ES: 5000.0, TEST: 0.97}, (1, "ticket"): {ES: 4000.0, TEST: 0.98}}
    values |= {(2, "ticket"): {ES: 9000.0, TEST: 0.96}, (1, "reinit-1"): {ES: 8000.0, TEST: 0.95}}
    spread = lambda trial, level, label, column: (0.02 if label == "reinit-1" and column == TEST else 0) * (trial - 2)
    card = cards.card(make(Setup("lenet"), values, spread=spread))
    assert card.winning.startswith("Winning level: 80.0% of the weights, resolved by 3 trials.")
    own = {(s.a, s.b, s.column): s for s in card.statements}
    assert {s.level for s in card.statements} == {1}
    better, sooner = own["ticket", "dense", TEST], own["ticket", "dense", ES]
    assert better.differ and better.run.mean == pytest.approx(0.01) and better.run.n == 3
    assert sooner.differ and sooner.run.mean == 0.8 and sooner.verdict == "differ"
    assert own["reinit", "dense", TEST].differ is False and own["ticket", "reinit", TEST].differ is False
    assert own["ticket", "reinit", ES].run.mean == 0.5
    assert card.counts[0] == Count("ticket", "dense", 1, 1, 2)
    assert card.counts[1] == Count("reinit", "dense", 0, 0, 1)


def test_the_trials_of_a_winning_level_are_those_that_were_compared() -> None:
    values = {(0, "ticket"): {ES: 5000.0, TEST: 0.97}, (1, "ticket"): {ES: 4000.0, TEST: 0.98}}
    run = make(Setup("lenet"), values, 5)
    lost = (run.summary["level"] == 1) & (run.summary["trial"] > 2)
    run.summary.loc[lost, "status"] = "diverged"
    card = cards.card(run)
    assert card.winning.startswith("Winning level: 80.0% of the weights, resolved by 2 trials.")
    assert "Left out: 3 trainings that diverged, for which there are no numbers." in card.notes


@pytest.mark.parametrize(
    ("figure", "run", "verdict"),
    [
        (-0.0004, -0.0020, "agrees"),
        (-0.0004, 0.0025, "differs"),  # within the tolerance of the figure, and on the other side beyond doubt
        (0.0004, -0.0025, "differs"),
        (0.0, 0.0025, "agrees"),
        (0.0030, 0.0002, "agrees"),
    ],
)
def test_a_claim_of_a_side_differs_on_the_other(figure: float, run: float, verdict: str) -> None:
    check = Check("points", Term("reinit", 7, TEST), Term("ticket", 0, TEST), ("near", "side"))
    found = intervals.Measured(run, run - 0.0001, run + 0.0001, run, run, 5)
    assert judging.worst([judging.by_rule(rule, check, figure, found, 0.003) for rule in check.rules]) == verdict


def test_a_mask_that_gains_by_new_weights_contradicts_the_paper() -> None:
    values = papers_values(Setup("lenet"))
    values[7, "reinit-1"][TEST] = values[0, "ticket"][TEST] + 0.0025
    assert verdicts(make(Setup("lenet"), values))["C2.7"] == "differs"


def test_one_trial_tells_no_difference() -> None:
    values = {(0, "ticket"): {ES: 5000.0, TEST: 0.97}, (1, "ticket"): {ES: 6000.0, TEST: 0.98}}
    card = cards.card(make(Setup("lenet"), values, 1))
    assert card.winning.startswith("A single trial supports no claim. No level wins in it.")
    assert {s.verdict for s in card.statements} == {"one trial: no interval"} and not card.counts
    assert {s.level for s in card.statements} == {1}


def test_nothing_trained_makes_a_card() -> None:
    card = cards.card(make(Setup("lenet"), {}, 2, levels=3))
    assert card.winning == "Nothing is trained yet." and not card.statements and not card.curves
    assert {score.verdict for score in card.scores} == {"not enough data"}
    assert printed(card)


# --------------------------------------------------------------------------------------------------------- the command


def printed(card: Card, width: int = 100) -> str:
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(terminal.render(card))
    console.file.close()
    return console.export_text()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The tables of a run, and nothing else."""
    run = papers_run("lenet")
    place = tmp_path / "run"
    place.mkdir()
    (place / "experiment.toml").write_text(config.to_toml(run.experiment))
    run.summary.to_csv(place / "summary.csv", index=False)
    run.curves.to_csv(place / "curves.csv", index=False)
    return place


def test_the_command_prints_the_card(folder: Path) -> None:
    before = sorted(path.name for path in folder.iterdir())
    done = CliRunner().invoke(app, ["verify", str(folder)], env={"COLUMNS": "120"})
    assert done.exit_code == 0, done.output
    for said in ("C2.8", "2.16 times", "not enough data", "missing:", "25 claims: 19 agree, 0 differ, 6 lack data"):
        assert said in done.output
    assert (
        "ticket: early stop iteration" in done.output
        and "ticket over reinit" in done.output
        and "Winning level: " in done.output
    )
    assert sorted(path.name for path in folder.iterdir()) == before


def test_the_command_reads_further_runs(folder: Path) -> None:
    done = CliRunner().invoke(app, ["verify", str(folder), str(folder), "--json"])
    assert done.exit_code == 0 and json.loads(done.stdout)["run"] == "lenet"
    done = CliRunner().invoke(app, ["verify", str(folder), str(folder / "summary.csv")])
    assert getattr(done.exception, "exit_code", 0) == 2 and "not a run folder" in str(done.exception)


def test_json_stands_alone(folder: Path) -> None:
    with gzip.open(folder / "curves.csv.gz", "wb") as file, (folder / "curves.csv").open("rb") as plain:
        shutil.copyfileobj(plain, file)
    (folder / "curves.csv").unlink()
    done = CliRunner().invoke(app, ["verify", str(folder), "--json"])
    assert done.exit_code == 0
    found = json.loads(done.stdout)
    for claim in found["claims"]:
        assert {"id", "text", "figure", "run", "verdict"} <= {*claim}
        assert claim["verdict"] in ("agrees", "differs", "not enough data")
        assert {"mean", "min", "max", "n", "interval"} <= {*claim["run"]}
    claim = found["claims"][0]
    assert claim["id"] == "C2.1" and claim["run"]["n"] == 3
    assert claim["run"]["mean"] == pytest.approx(claim["checks"][0]["figure"])
    curve = found["curves"][0]
    assert (curve["curve"], curve["column"], curve["share"], curve["levels"]) == ("ticket", ES, 1.0, 25)
    assert curve["largest_departure"]["departure"] == pytest.approx(0)
    assert "Student" in found["method"] and found["winning"]


def test_every_card_can_be_written() -> None:
    for run in (at_length("conv2", 15_000), papers_run("lenet", 1), make(Setup("lenet"), {}, levels=2)):
        found = json.loads(json.dumps(serialize.as_json(cards.card(run)), allow_nan=False))
        assert found["run"] == run.experiment.name and found["claims"] and found["notes"]


def test_what_is_no_run_ends_with_2(tmp_path: Path, folder: Path) -> None:
    for place in (tmp_path, tmp_path / "nothing", folder / "summary.csv"):
        done = CliRunner().invoke(app, ["verify", str(place), "--json"])
        assert (
            getattr(done.exception, "exit_code", 0) == 2
            and done.stdout == ""
            and "not a run folder" in str(done.exception)
        )


@pytest.mark.parametrize("width", [60, 80, 200])
def test_the_card_fits_its_terminal(width: int) -> None:
    text = printed(cards.card(papers_run("conv2-dropout")), width)
    assert max(map(len, text.splitlines())) <= width
    assert "agrees" in text and "points" in text


def test_a_setup_is_said_as_it_is_typed() -> None:
    of = setup("conv2", {"recipe.lr": 0.0004, "prune.conv_rate": 0.1})
    assert of.command == "lth run conv2 recipe.lr=0.0004"
