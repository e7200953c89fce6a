"""The paper's experiments, each a preset and what is changed in it; and which of them a run repeats."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from lth import config
from lth.config import Branch, Experiment, sigma_in

# What may differ between the paper's experiment and a run that repeats it: names and amounts, the grid of evaluations,
# how it is computed, and what is kept of it. All else makes another experiment.
FREE = {
    *("name", "about", "seed", "trials", "levels", "branch", "scale", "store.keep", "files"),
    *("recipe.eval_every", "recipe.test_every", "recipe.report_at", "recipe.train_accuracy"),
    *("recipe.precision", "recipe.compile"),
}
LADDERS = ("prune.rates", "prune.densities")
SCHEDULE = ("recipe.warmup", "recipe.drops")


class Setup(NamedTuple):
    """A preset and what is changed in it."""

    preset: str
    settings: tuple[tuple[str, Any], ...] = ()

    @property
    def said(self) -> str:
        return " ".join([self.preset, *(config.to_setting(*setting) for setting in self.settings)])

    @property
    def command(self) -> str:
        """What to type for it."""
        return f"lth run {self.said}"


def setup(preset: str, settings: Mapping[str, Any] | None = None) -> Setup:
    """A setup, without those settings that the preset has already: so equal experiments are equal setups."""
    own = _flat(experiment(Setup(preset)))
    changed = {key: value for key, value in (settings or {}).items() if own.get(key) != value}
    return Setup(preset, tuple(sorted(changed.items())))


@cache
def experiment(of: Setup) -> Experiment:
    return config.resolve(of.preset, dict(of.settings))


@cache
def _settings(of: Setup) -> dict[str, Any]:
    return _flat(experiment(of))


def _flat(experiment: Experiment) -> dict[str, Any]:
    """All that makes an experiment what it is, by key; what is said in two ways, said in one."""
    found: dict[str, Any] = {}
    known = config.keys()
    for key in known:
        value: Any = experiment
        for part in key.split("."):
            value = getattr(value, part)
        if key not in FREE:
            found[key] = value
    prune = experiment.prune
    found["prune.groups"] = tuple(sorted(prune.pruned))
    found["prune.conv_rate"] = prune.rate if prune.conv_rate is None else prune.conv_rate
    if experiment.model.name == "lenet":  # which has no convolutions
        del found["prune.conv_rate"]
    if prune.rates or prune.densities:
        del found["prune.rate"]
    return found


def differences(run: Experiment, of: Setup) -> dict[str, tuple[Any, Any]]:
    """By key, what the paper's experiment has and what the run has in its place."""
    return _differing(_settings(of), _flat(run))


def _differing(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    found = {}
    for key in sorted({*theirs, *ours}):
        a, b = theirs.get(key), ours.get(key)
        if key in LADDERS and a and b:  # one of them may go further down
            a, b = a[: len(b)], b[: len(a)]
        if a != b:
            found[key] = (a, b)
    return found


@dataclass(frozen=True)
class Fit:
    """How a run stands to the paper: which setup it repeats, and whether at another length.

    Without a setup it repeats none; `differs` says by what it misses the nearest, `nearest`.
    """

    setup: Setup | None = None
    iterations: tuple[int, int] | None = None  # the paper's and the run's, where these differ
    scheduled: bool = False  # the learning rate changes on the way, so that a shorter training is no part of a longer
    nearest: Setup | None = None
    differs: Mapping[str, tuple[Any, Any]] | None = None

    @property
    def shorter(self) -> bool:
        return self.iterations is not None and self.iterations[1] < self.iterations[0]


def fit(run: Experiment, setups: Iterable[Setup]) -> Fit:
    """Which of `setups` a run repeats: itself, else at another length (`--scale` or recipe.iterations)."""
    alike = [of for of in dict.fromkeys(setups) if _same_task(run, of)]
    ours = _flat(run)
    found = {of: _differing(_settings(of), ours) for of in alike}
    for of, differs in found.items():
        if not differs:
            return Fit(of)
    for of, differs in found.items():
        if "recipe.iterations" in differs and {*differs} <= {"recipe.iterations", *SCHEDULE} and _in_step(run, of):
            scheduled = bool(run.recipe.warmup or run.recipe.drops or any(key in differs for key in SCHEDULE))
            return Fit(of, differs["recipe.iterations"], scheduled)
    apart = lambda of: len({*found[of]} - ({*SCHEDULE} if _in_step(run, of) else set()))  # a scaled schedule is none
    nearest = min(found, key=apart, default=None)
    return Fit(nearest=nearest, differs=found[nearest] if nearest else None)


def _same_task(run: Experiment, of: Setup) -> bool:
    theirs = experiment(of)
    return (run.data.name, run.model.name) == (theirs.data.name, theirs.model.name)


def _in_step(run: Experiment, of: Setup) -> bool:
    """Whether warmup and drops are the paper's up to the run's last iteration, or scaled as the iterations are."""
    theirs = experiment(of).recipe
    scale = run.recipe.iterations / theirs.iterations
    ours = (run.recipe.warmup, *run.recipe.drops)
    wanted = (theirs.warmup, *theirs.drops)
    scaled = len(ours) == len(wanted) and all(abs(a - b * scale) <= 1 for a, b in zip(ours, wanted, strict=True))
    until_the_end = (theirs.warmup, *(drop for drop in theirs.drops if drop < run.recipe.iterations))
    return ours in (wanted, until_the_end) or scaled


# ---------------------------------------------------------------------------------------------------------------- roles


def rules(role: str) -> tuple[str, str, float | None]:
    """The mask rule, start rule and sigma by which a branch plays a role: `reinit`, `random-mask`, `noise-0.5`, ..."""
    sigma = sigma_in(role)
    control = config.BRANCHES["noise" if sigma is not None else role]
    return control.mask, control.start, sigma


def plays(branch: Branch, role: str) -> bool:
    """Whether a branch is what the paper calls `role`, whatever its name: noise on the ticket's start is no reinit."""
    return (branch.mask, branch.start, branch.sigma) == rules(role)


def role_of(run: Experiment, name: str, roles: Iterable[str]) -> str | None:
    """The role that the branch `name` of a run plays, however long its trainings are."""
    if name == "ticket":
        return "ticket"
    for branch in run.branch:
        if branch.name == name:
            return next((role for role in roles if role != "ticket" and plays(branch, role)), None)
    return None
