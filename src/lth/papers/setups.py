"""The experiments of a paper, each a preset with changed settings, and which of them a run repeats."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, reduce
from typing import Any, NamedTuple

from lth import config
from lth.config import Branch, Experiment, sigma_in

# The keys that may differ between a paper's experiment and a run that repeats it: names and sizes, the evaluated
# iterations, resources, and what is stored. A different value of any other key makes another experiment.
FREE = {
    *("name", "about", "seed", "trials", "levels", "branch", "scale", "store.keep", "files"),
    *("recipe.eval_every", "recipe.test_every", "recipe.report_at", "recipe.train_accuracy"),
    *("recipe.precision", "recipe.compile"),
}
LADDERS = ("prune.rates", "prune.densities")
SCHEDULE = ("recipe.warmup", "recipe.drops")


class Setup(NamedTuple):
    """A preset and changed settings."""

    preset: str
    settings: tuple[tuple[str, Any], ...] = ()

    @property
    def text(self) -> str:
        """The preset and its settings as typed."""
        return " ".join([self.preset, *(config.to_setting(*setting) for setting in self.settings)])

    @property
    def command(self) -> str:
        """The command that runs the setup."""
        return f"lth run {self.text}"


def setup(preset: str, settings: Mapping[str, Any] | None = None) -> Setup:
    """A setup without settings that equal the preset's, so that equal experiments are equal setups."""
    defaults = _flat(experiment(Setup(preset)))
    changed = {key: value for key, value in (settings or {}).items() if defaults.get(key) != value}
    return Setup(preset, tuple(sorted(changed.items())))


@cache
def experiment(of: Setup) -> Experiment:
    """The resolved experiment of a setup."""
    return config.resolve(of.preset, dict(of.settings))


@cache
def _settings(of: Setup) -> dict[str, Any]:
    return _flat(experiment(of))


def _flat(experiment: Experiment) -> dict[str, Any]:
    """The settings that define an experiment, by key, in a normal form."""
    keys = {*config.keys()} - FREE
    settings: dict[str, Any] = {key: reduce(getattr, key.split("."), experiment) for key in keys}
    prune = experiment.prune
    settings["prune.groups"] = tuple(sorted(prune.pruned))
    settings["prune.conv_rate"] = prune.rate if prune.conv_rate is None else prune.conv_rate
    if experiment.model.name == "lenet":  # it has no convolutions
        del settings["prune.conv_rate"]
    if prune.rates or prune.densities:
        del settings["prune.rate"]
    return settings


def differences(run: Experiment, of: Setup) -> dict[str, tuple[Any, Any]]:
    """The settings that differ, by key: the paper's value and the run's."""
    return _differing(_settings(of), _flat(run))


def _differing(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    differing = {}
    for key in sorted({*theirs, *ours}):
        a, b = theirs.get(key), ours.get(key)
        if key in LADDERS and a and b:  # one of the two may have more levels
            a, b = a[: len(b)], b[: len(a)]
        if a != b:
            differing[key] = (a, b)
    return differing


@dataclass(frozen=True)
class Fit:
    """How a run relates to a paper: the setup that it repeats, and whether with another length.

    A run that repeats no setup has `nearest`, the setup that differs in the fewest keys, and `differs`, these keys.
    """

    setup: Setup | None = None
    iterations: tuple[int, int] | None = None  # lengths of the paper and the run, if they differ
    scheduled: bool = False  # the learning rate changes, so a short training is not the beginning of a longer one
    nearest: Setup | None = None
    differs: Mapping[str, tuple[Any, Any]] | None = None

    @property
    def shorter(self) -> bool:
        return self.iterations is not None and self.iterations[1] < self.iterations[0]


def fit(run: Experiment, setups: Iterable[Setup]) -> Fit:
    """The one of `setups` that a run repeats, exactly or with another length (`--scale` or recipe.iterations)."""
    alike = [of for of in dict.fromkeys(setups) if _same_task(run, of)]
    ours = _flat(run)
    differing = {of: _differing(_settings(of), ours) for of in alike}
    for of, differs in differing.items():
        if not differs:
            return Fit(of)
    for of, differs in differing.items():
        if "recipe.iterations" in differs and {*differs} <= {"recipe.iterations", *SCHEDULE} and _in_step(run, of):
            scheduled = bool(run.recipe.warmup or run.recipe.drops or any(key in differs for key in SCHEDULE))
            return Fit(of, differs["recipe.iterations"], scheduled)
    same = lambda of: {*SCHEDULE} if _in_step(run, of) else set()  # a scaled schedule does not count as different
    nearest = min(differing, key=lambda of: len({*differing[of]} - same(of)), default=None)
    return Fit(nearest=nearest, differs=differing[nearest] if nearest else None)


def _same_task(run: Experiment, of: Setup) -> bool:
    theirs = experiment(of)
    return (run.data.name, run.model.name) == (theirs.data.name, theirs.model.name)


def _in_step(run: Experiment, of: Setup) -> bool:
    """Return whether warmup and drops equal the paper's up to the run's last iteration, or are scaled with the
    iterations.
    """
    theirs = experiment(of).recipe
    scale = run.recipe.iterations / theirs.iterations
    ours = (run.recipe.warmup, *run.recipe.drops)
    wanted = (theirs.warmup, *theirs.drops)
    scaled = len(ours) == len(wanted) and all(abs(a - b * scale) <= 1 for a, b in zip(ours, wanted, strict=True))
    until_the_end = (theirs.warmup, *(drop for drop in theirs.drops if drop < run.recipe.iterations))
    return ours in (wanted, until_the_end) or scaled


# ---------------------------------------------------------------------------------------------------------------- roles


def rules(role: str) -> tuple[str, str, float | None]:
    """The mask rule, start rule and sigma of a role: `reinit`, `random-mask`, `noise-0.5`, ..."""
    sigma = sigma_in(role)
    control = config.BRANCHES["noise" if sigma is not None else role]
    return control.mask, control.start, sigma


def plays(branch: Branch, role: str) -> bool:
    """Return whether a branch plays a role, by its rules and not its name: noise on the ticket's start is no reinit."""
    return (branch.mask, branch.start, branch.sigma) == rules(role)


def role_of(run: Experiment, name: str, roles: Iterable[str]) -> str | None:
    """The role of the branch `name` of a run, whatever the length of its trainings; None if it has none."""
    if name == "ticket":
        return "ticket"
    for branch in run.branch:
        if branch.name == name:
            return next((role for role in roles if role != "ticket" and plays(branch, role)), None)
    return None
