"""The verdict on runs with known answers: what is claimed, what is not, and the sentences that say so."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import nn

import lth
from lth import config
from lth.errors import UsageError
from lth.results import early_stops, intervals, sentences, tables, verdict
from lth.results.records import PLACE, REACHED
from lth.results.verdict import Verdict
from test_records import LOSSES, WHOLE, make_run, training

LENET = config.resolve("lenet")
Trials = Sequence[tuple[float, float] | None]  # early stop and test accuracy of each trial


def summary(levels: Mapping[tuple[int, str], Trials], **changes: Any) -> pd.DataFrame:
    """One row for each trial of each (level, branch)."""
    rows = []
    for (level, branch), results in levels.items():
        for trial, result in enumerate(results, start=1):
            if result:
                told = {"early_stop_iteration": result[0], "test_accuracy_at_early_stop": result[1], REACHED: True}
                row = training(level, **told, final_test_accuracy=result[1]) | changes
                rows.append(dict(zip(PLACE, (trial, level, branch), strict=True)) | row)
    return pd.DataFrame(rows)


def judged(levels: Mapping[tuple[int, str], Trials], preset: str = "lenet", **changes: Any) -> Verdict:
    return verdict.judge(summary(levels, **changes), config.resolve(preset).recipe)


# ---------------------------------------------------------------------------------------------------------- intervals


@pytest.mark.parametrize(
    ("t", "freedom", "above"),  # from tables of Student's t
    [(12.7062, 1, 0.025), (2.9200, 2, 0.05), (3.1824, 3, 0.025), (4.6041, 4, 0.005), (1.8125, 10, 0.05), (0, 7, 0.5)],
)
def test_students_tail(t: float, freedom: int, above: float) -> None:
    assert intervals.tail(t, freedom) == pytest.approx(above, rel=1e-4)
    assert intervals.tail(-t, freedom) == pytest.approx(1 - above, rel=1e-4)


def test_a_difference_has_students_interval() -> None:
    found = intervals.difference([3, 5, 4], [1, 2, 3])  # differences 2, 3, 1: mean 2, standard error 1 / sqrt(3)
    assert (found.value, found.least, found.greatest, found.n) == (2, 1, 3, 3)
    assert [found.low, found.high] == pytest.approx([2 - 4.3027 / math.sqrt(3), 2 + 4.3027 / math.sqrt(3)])


def test_a_quotient_has_fiellers_interval() -> None:
    a, b = [110.0, 95.0, 100.0, 99.0], [100.0, 105.0, 98.0, 110.0]
    found = intervals.quotient(a, b)
    for end in (found.low, found.high):  # where the mean of a - r b is just significant
        rest = [x - end * y for x, y in zip(a, b, strict=True)]
        assert min(intervals.exceeds(rest, 0), 1 - intervals.exceeds(rest, 0)) == pytest.approx(0.025, rel=1e-3)
    assert found.value == pytest.approx(404 / 413) and found.low < found.value < found.high


def test_it_does_not_matter_which_network_is_divided_by_which() -> None:
    draw = random.Random(0)
    for n in (2, 3, 5, 20):
        a, b = ([draw.lognormvariate(7, 0.4) for _ in range(n)] for _ in range(2))
        one, other = intervals.quotient(a, b), intervals.quotient(b, a).inverse
        assert [one.value, one.low, one.high] == pytest.approx([other.value, other.low, other.high])


def test_fiellers_interval_covers_as_often_as_it_says() -> None:
    draw, covered = random.Random(1), 0
    for _ in range(2000):
        a, b = ([draw.gauss(mean, 0.1 * mean) for _ in range(4)] for mean in (120, 100))
        found = intervals.quotient(a, b)
        covered += found.low <= 1.2 <= found.high
    assert covered / 2000 == pytest.approx(0.95, abs=0.015)


def test_an_interval_without_an_end() -> None:
    assert intervals.quotient([100, 2000], [2000, 100]).high == math.inf
    assert math.isnan(intervals.quotient([100], [90]).low) and math.isnan(intervals.exceeds([1.0], 0))
    assert intervals.exceeds([2, 2, 2], 1) == 0 and intervals.exceeds([1, 1], 1) == 1


def test_holm() -> None:
    assert intervals.holm([0.01, 0.04, math.nan, 0.03, 0.005]) == pytest.approx(
        [0.03, 0.06, math.nan, 0.06, 0.02], nan_ok=True
    )
    assert intervals.holm([0.9, 0.8]) == [1.0, 1.0]


# -------------------------------------------------------------------------------------------------------- early stops


@pytest.mark.parametrize(
    ("evaluations", "place", "reached"),
    [(20, 18, True), (20, 19, False), (19, 1, False), (100, 90, True), (100, 91, False), (21, 18, True), (2, 1, False)],
)
def test_when_an_early_stop_is_reached(evaluations: int, place: int, reached: bool) -> None:
    iterations = [100 * n + 1 for n in range(evaluations)]
    assert early_stops.is_reached(iterations, iterations[place - 1]) is reached


def test_a_training_that_begins_late_is_counted_by_its_own_evaluations() -> None:
    iterations = range(30_000, 40_000, 400)
    assert early_stops.is_reached(iterations, 38_000) and not early_stops.is_reached(iterations, 39_600)


def test_the_column_is_computed_for_tables_with_and_without_it(tmp_path: Path) -> None:
    rows = {
        (1, 0, "ticket"): training(0, early_stop_iteration=44001),
        (1, 1, "ticket"): training(1, early_stop_iteration=46001),  # 24th of 26
        (1, 2, "ticket"): training(2, status="diverged", early_stop_iteration=None),
    }
    folder = make_run(tmp_path / "run", rows, WHOLE)
    tables.write(folder)
    text = (folder / "summary.csv").read_text()
    column = text.splitlines()[0].split(",").index(REACHED)
    assert [line.split(",")[column] for line in text.splitlines()[1:]] == ["True", "False", ""]
    assert tables.load(folder).summary[REACHED].tolist() == [True, False, pd.NA]
    older = "".join(
        ",".join(line.split(",")[:column] + line.split(",")[column + 1 :]) for line in text.splitlines(True)
    )
    (folder / "summary.csv").write_text(older)
    (folder / "manifest.json").unlink()  # version 0.1 had none
    assert tables.load(folder).summary[REACHED].tolist() == [True, False, pd.NA]
    assert (folder / "summary.csv").read_text() == older  # what version 0.1 wrote stays
    for path in folder.glob("trial-*/level-*/summary.json"):
        path.unlink()
    assert tables.load(folder).summary[REACHED].tolist() == [True, False, pd.NA]


def test_a_training_without_a_curve_is_unknown() -> None:
    table = summary({(0, "ticket"): [(100, 0.9)]}).drop(columns=REACHED)
    curves = pd.DataFrame({name: [] for name in ("trial", "level", "branch", "iteration")})
    assert early_stops.with_reached(table, curves)[REACHED].isna().all()


@pytest.mark.parametrize(
    ("preset", "settings", "at_the_end"),
    [
        ("lenet", [], False), ("conv2", [], False), ("resnet18", [], True), ("vgg19", [], True), ("vit", [], True),
        ("lenet", ["recipe.schedule=cosine"], True), ("lenet", ["recipe.drops=[10000]"], False),
    ],
)  # fmt: skip
def test_what_is_judged_by_final_accuracy(preset: str, settings: list[str], at_the_end: bool) -> None:
    assert early_stops.judged_at_the_end(config.resolve(preset, settings).recipe) is at_the_end


# ---------------------------------------------------------------------------------------- the wrong verdicts of before


def test_an_early_stop_at_the_last_iteration_wins_nothing(tmp_path: Path) -> None:
    """`lth run lenet recipe.iterations=20 --levels 1` was called a win: both early stops were the last iteration."""
    rows = {(1, n, "ticket"): training(n, early_stop_iteration=20, iterations=20) for n in (0, 1)}
    curve = LOSSES + "1,2.3,0.1,2.3,0.1\n20,1.9,0.5,1.9,0.5\n"
    run = tables.load(
        make_run(tmp_path / "run", rows, curve, recipe=config.read("lenet")["recipe"] | {"iterations": 200})
    )
    found = verdict.of(run)
    assert found.winning is None and found.levels[0].unreached
    assert sentences.headline(found).startswith("A single trial supports no claim. The early stop was not reached.")
    with pytest.raises(UsageError, match="no winning level, as the early stop was not reached"):
        lth.export(run.folder, 1, None, tmp_path / "t.safetensors")


def test_two_trials_on_both_sides_are_not_called_sooner() -> None:
    """The demo's headline was "1.01 times sooner; n = 2": one trial is 8% later and the other 12% earlier."""
    found = judged({(0, "ticket"): [(2000, 0.95), (2000, 0.95)], (1, "ticket"): [(2160, 0.955), (1760, 0.951)]})
    said = sentences.headline(found)
    assert found.winning == 1 and found.levels[0].resolved == "open"
    assert said == (
        "Winning level on average: 80.0% of the weights; 2 trials do not resolve it. Compared with the whole network: "
        "early stop not resolved with 2 trials (single trials: 1.08 times later to 1.14 times sooner); test accuracy "
        "not resolved with 2 trials (single trials: 0.1 to 0.5 points higher)."
    )


def test_a_range_begins_with_the_smaller_difference() -> None:
    """It was "single trials: 2.86 times later to 2.83 times later"."""
    ticket, reinit = [(2400, 0.981), (2900, 0.981)], [(6800, 0.978), (8300, 0.979)]
    whole = [(3400, 0.979), (3800, 0.979)]
    found = judged({(0, "ticket"): whole, (1, "ticket"): ticket, (1, "reinit-1"): reinit})
    assert sentences.control(found.controls[0], found).endswith(
        "early stop not resolved with 2 trials (single trials: 2.83 to 2.86 times later); test accuracy not resolved "
        "with 2 trials (single trials: 0.2 to 0.3 points lower)."
    )


def test_a_resolved_quotient_may_have_no_bounds() -> None:
    """It was "2.69 times later (95% interval at least 0.00)": two trials that resolve a difference of 3,900."""
    ticket, reinit = [(1900, 0.983), (2700, 0.984)], [(5700, 0.975), (6700, 0.979)]
    found = judged({(0, "ticket"): [(2700, 0.97)] * 2, (1, "ticket"): ticket, (1, "reinit-1"): reinit})
    assert "early stop 2.70 times later (the 95% interval of the factor has no bounds)" in sentences.control(
        found.controls[0], found
    )


def test_new_weights_that_are_better_make_it_no_winning_ticket() -> None:
    """ "Winning" stood above "reinit is 7.0 points more accurate than the ticket"."""
    ticket = [(1500, 0.80), (1510, 0.81), (1490, 0.802)]
    found = judged(
        {
            (0, "ticket"): [(2000, 0.79), (2000, 0.80), (2000, 0.79)],
            (1, "ticket"): ticket,
            (1, "reinit-1"): [(1600, value + 0.07) for _, value in ticket],
        }
    )
    (reinit,) = found.controls
    assert found.winning == 1 and reinit.as_good
    said = sentences.control(reinit, found)
    assert said.startswith("reinit compared with the ticket of this level: early stop 1.07 times later (95% ")
    assert "test accuracy 7.0 points higher" in said
    assert said.endswith("New weights are as good: this is not a winning ticket in the paper's sense.")


# ------------------------------------------------------------------------------------------------------------ verdicts

FIVE = [(5000, 0.970), (5200, 0.971), (4900, 0.969), (5100, 0.970), (5050, 0.972)]


def shifted(times: float, gain: float, jitter: Sequence[float] = (0, 0.0001, -0.0001, 0.0001, 0)) -> Trials:
    """Five trials with early stops `times` as late as FIVE's, and accuracies higher by `gain`."""
    return [(stop * (times + 10 * j), accuracy + gain + j) for (stop, accuracy), j in zip(FIVE, jitter, strict=True)]


def test_what_five_trials_resolve() -> None:
    found = judged({(0, "ticket"): FIVE, (1, "ticket"): shifted(0.8, 0.004), (2, "ticket"): shifted(1.3, -0.01)})
    first, second = found.levels
    assert (found.winning, first.resolved, second.resolved) == (1, "yes", "no")
    assert (first.contrast.time, first.contrast.score) == ("better", "better")
    assert (second.contrast.time, second.contrast.score) == ("worse", "worse")
    assert sentences.headline(found).startswith(
        "Winning level: 80.0% of the weights, resolved by 5 trials. Compared with the whole network: early stop 1.25 "
        "times sooner (95% interval 1.25 to 1.25); test accuracy 0.4 points higher (95% interval 0.4 to 0.4)."
    )


def test_within_the_margins_networks_are_equal() -> None:
    found = judged({(0, "ticket"): FIVE, (1, "ticket"): shifted(0.99, 0.0003)})
    assert (found.levels[0].contrast.time, found.levels[0].contrast.score) == ("equal", "equal")
    said = sentences.headline(found)
    assert "Compared with the whole network: about equally early (1.01 times sooner); " in said
    assert "about equally accurate (0.03 points higher)" in said


def test_the_number_of_levels_counts() -> None:
    """What one level resolves by itself may be chance among twenty."""
    one = shifted(0.93, 0.0, jitter=(0.004, -0.003, 0.006, -0.005, 0.001))
    noise = shifted(1.0, 0.0, jitter=(0.02, -0.02, 0.01, -0.01, 0.0))
    alone = judged({(0, "ticket"): FIVE, (1, "ticket"): one})
    among = judged({(0, "ticket"): FIVE, (1, "ticket"): one} | {(n, "ticket"): noise for n in range(2, 24)})
    assert alone.levels[0].contrast.time == "better" and among.levels[0].contrast.time == "open"
    assert alone.levels[0].contrast.sooner == among.levels[0].contrast.sooner


def test_one_trial_claims_nothing() -> None:
    found = judged({(0, "ticket"): [(2000, 0.95)], (1, "ticket"): [(1500, 0.96)], (1, "reinit-1"): [(1400, 0.97)]})
    assert found.winning == 1 and found.levels[0].resolved == "open"
    said = " ".join([sentences.headline(found), *sentences.remarks(found)])
    assert said.startswith(
        "A single trial supports no claim. By its numbers, the winning level has 80.0% of the weights. Early stop at "
        "iteration 1,500 (the whole network 2,000), test accuracy 96.00% (the whole network 95.00%)."
    )
    assert (
        "reinit, at the same level: early stop at iteration 1,400 (the ticket 1,500), test accuracy 97.00% (the ticket "
        "96.00%). One trial does not tell them apart."
    ) in said
    assert not any(word in said for word in ("sooner", "later", "higher", "lower", "more", "less", "as good"))


def test_a_level_with_one_unreached_early_stop_does_not_win() -> None:
    table = summary({(0, "ticket"): FIVE, (1, "ticket"): shifted(0.8, 0.01), (2, "ticket"): shifted(0.7, 0.01)})
    table.loc[(table["level"] == 2) & (table["trial"] == 3), REACHED] = False
    found = verdict.judge(table, LENET.recipe)
    assert found.winning == 1 and [level.unreached for level in found.levels] == [False, True]
    table.loc[(table["level"] == 0) & (table["trial"] == 1), REACHED] = False
    found = verdict.judge(table, LENET.recipe)
    assert found.winning is None and sentences.headline(found).startswith("No level can win: the early stop was not")
    assert found.matching == 2
    assert sentences.advice(found, LENET) == (
        "The early stop was not reached in 2 of 15 trainings: their lowest validation loss is in the last tenth of the "
        "evaluations. Train longer, into another --out: recipe.iterations=100000"
    )


@pytest.mark.parametrize(
    ("settings", "scale", "typed"),
    [(["recipe.iterations=20"], None, "recipe.iterations=2500"), ([], 0.02, "--scale 0.06")],
)
def test_what_to_type_for_longer_trainings(settings: list[str], scale: float | None, typed: str) -> None:
    experiment = config.resolve("lenet", settings, scale=scale)
    table = summary({(0, "ticket"): FIVE, (1, "ticket"): FIVE}, early_stop_reached=False)
    advice = sentences.advice(verdict.judge(table, experiment.recipe), experiment)
    assert advice and advice.endswith(typed) and "evaluations are too few" in advice


def test_where_the_learning_rate_falls_the_final_accuracy_is_judged() -> None:
    later = [(9 * stop, accuracy + 0.004) for stop, accuracy in FIVE]
    found = judged({(0, "ticket"): FIVE, (1, "ticket"): later}, "resnet18", early_stop_reached=False)
    assert found.winning == 1 and found.levels[0].contrast.sooner is None
    assert "final test accuracy 0.4 points higher" in sentences.headline(found)
    assert sentences.advice(found, config.resolve("resnet18")) is None


def test_the_trainings_of_a_branch_in_one_trial_are_one_value() -> None:
    rows = summary(
        {(0, "ticket"): FIVE, (1, "ticket"): FIVE} | {(1, f"reinit-{n}"): shifted(2.0, -0.01 * n) for n in (1, 3)}
    )
    (reinit,) = verdict.judge(rows, LENET.recipe).controls
    assert reinit.contrast.n == 5 and reinit.contrast.gain.value == pytest.approx(0.02, abs=1e-4)
    assert reinit.contrast.time == "better" and not reinit.as_good


def test_matching_asks_for_accuracy_alone() -> None:
    later = [(40_000, accuracy - 0.0049) for _, accuracy in FIVE]
    worse = [(40_000, accuracy - 0.0051) for _, accuracy in FIVE]
    found = judged({(0, "ticket"): FIVE, (1, "ticket"): later, (2, "ticket"): worse})
    assert (found.winning, found.matching) == (None, 1)
    assert sentences.matching(found) == (
        "Matching level: 80.0% of the weights (level 1), the sparsest within 0.5 points of the whole network's "
        "accuracy; mean of 5 trials."
    )
    assert sentences.headline(found).startswith("No winning level: no ticket is, on average, both as early and as")


# ------------------------------------------------------------------------------------------------------ imp and others


def told(*rows: Mapping[str, Any], last: int = 100) -> lth.Tickets:
    answers = iter(rows)
    curve = [{"iteration": n, "val_loss": 1.0} for n in range(1, last + 1)]
    return lth.imp(nn.Linear(10, 10), lambda model: {"curve": curve} | next(answers), rate=0.5, levels=len(rows) - 1)


def test_imp_heeds_the_curve_that_it_is_told() -> None:
    rows = [{"score": 0.5, "early_stop_iteration": 99}, {"score": 0.6, "early_stop_iteration": 99}]
    tickets = told(*rows)
    assert tickets.winning is None and tickets.summary[REACHED].tolist() == [False, False]
    rows = [{"score": 0.5, "early_stop_iteration": 60}, {"score": 0.6, "early_stop_iteration": 50}]
    assert told(*rows).winning.density == 0.5  # type: ignore[union-attr]
    assert told(*rows, last=19).winning is None
    assert lth.imp(nn.Linear(9, 9), lambda model: rows[0], levels=1).winning is not None  # no curve: it is unknown
    with pytest.raises(UsageError, match="returned early_stop_reached: lth fills in"):
        told({"score": 1.0, "early_stop_reached": True})


def test_matching_of_tickets() -> None:
    tickets = told({"score": 0.900}, {"score": 0.896}, {"score": 0.894}, {"score": 0.5})
    assert tickets.matching().density == 0.5  # type: ignore[union-attr]
    assert tickets.matching(tolerance=0.0061).density == 0.25  # type: ignore[union-attr]
    assert tickets.matching(0) is None
    for wrong in (-0.1, "0.1", True, math.nan):
        with pytest.raises(UsageError, match=r"tolerance = .*: expected a number from 0"):
            tickets.matching(wrong)  # type: ignore[arg-type]


def test_find_tickets_judges_like_run() -> None:
    torch.manual_seed(0)
    x = torch.randn(200, 6)
    y = (x[:, 0] > 0).long()
    recipe = {"lr": 0.01, "iterations": 30, "batch": 20, "eval_every": 10}
    build = lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
    few = lth.find_tickets(build(), (x, y), recipe, levels=1)
    assert few.summary[REACHED].tolist() == [False, False] and few.winning is None
    falling = lth.find_tickets(build(), (x, y), recipe | {"drops": [20]}, levels=1)
    assert falling.at_the_end and list(falling.summary["score"]) == list(falling.summary["final_val_accuracy"])
