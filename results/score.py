"""Hold every kept run against the paper: its score card beside it, and the tables of README.md, here and above.

    python results/score.py

Reads what is committed here and nothing else: experiment.toml, summary.csv, curves.csv.gz. A claim about two
experiments reads both, where both are kept.
"""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
from rich.console import Console

from lth.papers import serialize, setups, terminal
from lth.papers.card import Card, card, size
from lth.papers.claims import Check, Kind, Term
from lth.papers.intervals import over_trials
from lth.papers.judging import Verdict, figure_value, worst
from lth.papers.lottery_ticket import paper
from lth.papers.paper import known_setups
from lth.papers.scores import Score
from lth.papers.trials import by_trial, trials
from lth.papers.wording import format_measured, format_value
from lth.results import captions, tables
from lth.results.records import Records

HERE = Path(__file__).parent
PAPER = paper()
PAGES = (HERE / "README.md", HERE.parent / "README.md")
NETWORKS = ("lenet", "conv2", "conv4", "conv6", "resnet18", "vgg19")  # the folders of the paper's main experiments
GLANCE = 0.211  # the first table looks where section 2 compares tickets with reinit, or at the nearest density


def kept() -> dict[str, Records]:
    """The runs that are committed, by folder."""
    folders = sorted(path.parent for path in HERE.rglob("experiment.toml"))
    return {folder.relative_to(HERE).as_posix(): tables.load(folder) for folder in folders}


def cards(runs: dict[str, Records]) -> dict[str, Card]:
    return {name: card(run, runs.values()) for name, run in runs.items()}


def files(scored: Card) -> dict[str, str]:
    """A card as it is written beside its run."""
    page = Console(file=io.StringIO(), width=160, force_terminal=False, color_system=None)
    page.print(terminal.render(scored))
    assert isinstance(page.file, io.StringIO)
    table = "".join(f"{line.rstrip()}\n" for line in page.file.getvalue().splitlines())
    return {
        "verify.txt": table,
        "verify.json": json.dumps(serialize.as_json(scored), indent=2, ensure_ascii=False, allow_nan=False) + "\n",
    }


def claims(by_run: dict[str, Card]) -> list[tuple[Score, str]]:
    """The claims that runs have values for, each with its folder, in the paper's order; equal rows stand once."""
    rows = {
        (score.claim.id, score.claim.text, score.run): (score, name)
        for name, scored in reversed(by_run.items())
        for score in scored.scores
        if any(judged.run for judged in score.judged)
    }
    order = [claim.id for claim in PAPER.claims]
    return sorted(rows.values(), key=lambda row: (order.index(row[0].claim.id), row[1]))


def fullest(runs: dict[str, Records]) -> list[str]:
    """Of the runs of each experiment of the paper, the one that speaks for it: the largest."""
    chosen: dict[object, str] = {}
    largest = lambda name: size(runs[name])
    for name, run in runs.items():
        setup = setups.fit(run.experiment, known_setups(PAPER)).setup or name
        chosen[setup] = max(chosen.get(setup, name), name, key=largest)
    return sorted(chosen.values())


def glance(name: str, run: Records) -> list[str]:
    """A run in a row: its tickets of about a fifth of the weights beside the unpruned network and their reinits.

    A network whose learning rate falls on the way is judged at its end, as in the paper, and has no early stop here.
    """
    falls = bool(run.experiment.recipe.drops)
    accuracy = "final_test_accuracy" if falls else "test_accuracy_at_early_stop"
    ours = trials(run, PAPER)
    sizes = {level: rows[0]["density"] for (family, level), rows in ours.rows.items() if family == "ticket" and level}
    chosen = min(sizes, key=lambda level: abs(sizes[level] - GLANCE))

    def against(kind: Kind, column: str, role: str, level: int) -> str:
        a, b = (by_trial(ours.rows.get(of, ()), column, of[1:]) for of in (("ticket", chosen), (role, level)))
        both = sorted({*a} & {*b})
        if not both or (kind == "times" and falls):
            return "-"
        measured = over_trials(kind, np.array([a[trial] for trial in both]), np.array([b[trial] for trial in both]))
        check = Check(kind, Term("ticket", chosen, column), Term(role, level, column), ())
        theirs = ours.fit.setup and figure_value(PAPER, check, ours.fit.setup, PAPER.order)
        return format_measured(kind, measured) + (f"; the paper {format_value(kind, theirs)}" if theirs else "")

    return [
        f"[{name}]({name})",
        captions.format_length(run.experiment),
        f"{sizes[chosen]:.1%}",
        against("times", "early_stop_iteration", "ticket", 0),
        against("points", accuracy, "ticket", 0),
        against("times", "early_stop_iteration", "reinit", chosen),
        against("points", accuracy, "reinit", chosen),
    ]


def made(folder: str, runs: list[Records]) -> list[str]:
    """A folder's row: what its runs are, their size beside the paper's, and the command and machine that made them."""
    alike = lambda say: "; ".join(dict.fromkeys(map(say, runs)))  # what all say stands once
    count = f": {len(runs)} experiments" if len(runs) > 1 else ""
    return [
        f"[{folder}]({folder}){count}",
        alike(lambda run: run.experiment.about),
        _size(runs),
        f"{sum(len(run.summary) for run in runs):,}",
        alike(_machine),
        f"`make results-{folder}`",
    ]


def _size(runs: list[Records]) -> str:
    """How large they are, what all say once; and the paper's own length where it is another, and one for all."""
    each = lambda say: "; ".join(dict.fromkeys(say(run.experiment) for run in runs))
    trials = each(lambda own: f"{own.trials} trial{'s' * (own.trials > 1)}")
    *fewer, most = sorted({run.experiment.levels for run in runs})
    levels = f"{', '.join(map(str, fewer))} or {most}" if fewer else most
    fits = (setups.fit(run.experiment, known_setups(PAPER)).iterations for run in runs)
    alike = len({run.experiment.recipe.iterations for run in runs}) == 1
    papers = ", ".join(dict.fromkeys(f"{of_paper:,}" for of_paper, _ in filter(None, fits))) if alike else ""
    given = dict.fromkeys(tuple(run.experiment.prune.densities) for run in runs)
    percents = "; ".join(", ".join(f"{100 * density:.3g}" for density in own) for own in given if own)
    of = f" at {percents}% of the weights" if percents else ""
    climbed = f"levels 0 to {levels}" if most else "level 0"
    said = f"{trials}, {climbed}{of}, {each(captions.format_length)}"
    return f"{said} (the paper's {papers})" if papers else said


def _machine(run: Records) -> str:
    assert run.environment
    means, machine = run.environment["means"], run.environment["machine"]
    return f"{means['engine']}, {means['precision']}, {machine['cores']} cores of {machine['processor']}"


def blocks(runs: dict[str, Records], by_run: dict[str, Card]) -> dict[str, str]:
    """The text between the marks of the pages, by name."""
    by_run = {name: by_run[name] for name in fullest(runs)}
    measured = claims(by_run)
    by_claim: dict[str, list[Verdict]] = {}  # the verdict of a claim that two runs share is the worse of theirs
    for one, _ in measured:
        by_claim.setdefault(one.claim.id, []).append(one.verdict)
    verdicts, every = Counter(map(worst, by_claim.values())), len({claim.id for claim in PAPER.claims})
    curves = [(name, entry) for name, scored in by_run.items() for entry in scored.curves]
    count = lambda of: sum(len(of(entry)) for _, entry in curves)
    levels, within, inside = count(lambda e: e.levels), count(lambda e: e.within), count(lambda e: e.inside)
    return {
        "summary": (
            f"Of the paper's {every} claims, these runs have numbers for {len(by_claim)}: {verdicts['agrees']} agree, "
            f"{verdicts['differs']} differ, and {verdicts['not enough data']} need more trials or longer runs. Of "
            f"{levels:,} points on {len(curves)} of its curves, {within / levels:.0%} are within its error bars or the "
            f"tolerance, {inside / levels:.0%} within the bars alone.\n"
        ),
        "glance": _table(
            [
                *("run", "its length", "weights", "early stop over the unpruned network's", "accuracy above it"),
                *("early stop over that of new weights under the same masks", "accuracy above theirs"),
            ],
            [glance(name, runs[name]) for of in NETWORKS for name in runs if Path(name).parts[0] == of],
        ),
        "runs": _table(
            ["run", "what it is", "its size", "trainings", "made by", "again"],
            [made(folder, group) for folder, group in _folders(runs).items()],
        ),
        "claims": _table(
            ["claim", "the paper's text", "its figure", "measured", "verdict", "run"],
            [
                [
                    score.claim.id,
                    score.text,
                    score.figure,
                    score.run,
                    f"{score.verdict}: {score.missing}" if score.missing else f"**{score.verdict}**",
                    f"[{name}]({name})",
                ]
                for score, name in measured
            ],
        ),
        "curves": _table(
            ["run", "the paper's curve", "its points", "within", "largest departure of each"],
            [
                [f"[{name}]({name})", entry.of, str(len(entry.levels)), f"{entry.share:.0%}", entry.furthest]
                for name, entry in curves
            ],
        ),
    }


def _folders(runs: dict[str, Records]) -> dict[str, list[Records]]:
    groups: dict[str, list[Records]] = {}
    for name, run in runs.items():
        groups.setdefault(Path(name).parts[0], []).append(run)
    return groups


def _table(heads: list[str], rows: list[list[str]]) -> str:
    line = lambda cells: f"| {' | '.join(cells)} |\n"
    return line(heads) + line(["---"] * len(heads)) + "".join(map(line, rows))


def fill(page: str, given: dict[str, str]) -> str:
    """`page` with each of `given` between its marks, where it has them."""
    for name, text in given.items():
        page = re.sub(
            rf"(<!-- {name} -->\n).*?(<!-- end -->)",
            lambda marks, text=text: marks[1] + text + marks[2],
            page,
            flags=re.S,
        )
    return page


def main() -> None:
    runs = kept()
    by_run = cards(runs)
    for name, scored in by_run.items():
        for file, text in files(scored).items():
            (HERE / name / file).write_text(text, encoding="utf-8")
    for page in PAGES:
        page.write_text(fill(page.read_text(encoding="utf-8"), blocks(runs, by_run)), encoding="utf-8")


if __name__ == "__main__":
    main()
