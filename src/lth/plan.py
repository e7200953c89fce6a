"""Experiment -> trainings: everything that will be done, and what each needs, as values. No torch here."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache

from lth.config import CONTINUED, Experiment, Recipe


@dataclass(frozen=True, slots=True)
class Training:
    """One training: what mask it wears, where it starts, how it is trained, and on which trainings these depend.

    `id` is also its folder below the run's. A mask rule reads the first training of `needs`, a start rule the last.
    """

    id: str
    trial: int
    level: int
    branch: str
    needs: tuple[str, ...]
    mask_rule: str
    start_rule: str
    recipe: Recipe
    sigma: float | None = None  # of start rule noise


def digests(experiment: Experiment) -> Callable[[str], str | None]:
    """A function from a training's id to its `digest`; None where the experiment has no such training."""
    of_level = cache(experiment.digest)

    def found(training_id: str) -> str | None:
        if not re.fullmatch(r"trial-\d+/level-\d+(/.+)?", training_id):
            return None
        trial, level = place(training_id)
        inside = 1 <= trial <= experiment.trials and level <= experiment.levels
        of_it = [t for t in _at_level(experiment, trial, level) if t.id == training_id] if inside else []
        return _digest(of_it[0], of_level(level)) if of_it else None

    return found


def digest(training: Training, experiment: Experiment) -> str:
    """A digest of all that a training is told to do, and what it needs: equal for equal ones of any two runs."""
    return _digest(training, experiment.digest(training.level))


def _digest(training: Training, of_level: str) -> str:
    rules = (training.mask_rule, training.start_rule, training.sigma, training.recipe.iterations)
    words = json.dumps([of_level, training.id, training.needs, *rules])
    return hashlib.sha256(words.encode()).hexdigest()


def training_id(trial: int, level: int, branch: str = "ticket") -> str:
    folder = f"trial-{trial}/level-{level:02d}"
    return folder if branch == "ticket" else f"{folder}/{branch}"


def place(training_id: str) -> tuple[int, int]:
    """The trial and the level of a training."""
    trial, level = re.findall(r"-(\d+)", training_id)[:2]
    return int(trial), int(level)


def plan(experiment: Experiment) -> list[Training]:
    """All trainings of an experiment, each after those that it needs; see `trainings`."""
    return list(trainings(experiment))


def trainings(experiment: Experiment) -> Iterator[Training]:
    """The plan, one training after the other.

    The order is the one in which they should be done: all trials of a level before the next level of one, so that
    the first complete picture appears early.
    """
    for level in range(experiment.levels + 1):
        for trial in range(1, experiment.trials + 1):
            yield from _at_level(experiment, trial, level)


def _at_level(experiment: Experiment, trial: int, level: int) -> Iterator[Training]:
    def training(
        branch: str, needs: tuple[str, ...], mask_rule: str, start_rule: str, recipe: Recipe, sigma: float | None = None
    ) -> Training:
        own_id = training_id(trial, level, branch)
        return Training(own_id, trial, level, branch, needs, mask_rule, start_rule, recipe, sigma)

    needs = _pruned(experiment, trial, level)
    mask_rule = "prune" if level else "given" if experiment.ticket else "ones"
    yield training("ticket", needs, mask_rule, "trial", experiment.recipe)
    ticket = (training_id(trial, level),)
    if experiment.strategy == CONTINUED and level:
        yield training(CONTINUED, ticket + needs, "ticket", "trained", experiment.recipe)
    for branch in experiment.branches_at(level):
        for label in branch.labels:
            assert branch.mask and branch.start  # config has filled them in
            yield training(label, ticket, branch.mask, branch.start, experiment.recipe_of(branch), branch.sigma)


def _pruned(experiment: Experiment, trial: int, level: int) -> tuple[str, ...]:
    """The training whose trained weights level `level` prunes."""
    if level == 0:
        return ()
    if experiment.strategy == "oneshot":
        return (training_id(trial, 0),)
    if experiment.strategy == CONTINUED and level > 1:
        return (training_id(trial, level - 1, CONTINUED),)
    return (training_id(trial, level - 1),)


def reads_trained(training: Training) -> str | None:
    """The training whose trained weights this one is made from, if any."""
    needed = training.mask_rule == "prune" or training.start_rule == "trained"
    return training.needs[-1] if needed else None


def readers(experiment: Experiment, training_id: str) -> Iterator[Training]:
    """The trainings that are made from the trained weights of this one."""
    trial, level = place(training_id)
    last = experiment.levels if experiment.strategy == "oneshot" else min(level + 1, experiment.levels)
    for later in range(level + 1, last + 1):
        yield from (t for t in _at_level(experiment, trial, later) if reads_trained(t) == training_id)


def longest_chain(trainings: Iterable[Training], seconds: Mapping[str, float]) -> float:
    """The least seconds that trainings take, however many run side by side: each begins after those that it needs."""
    ends: dict[str, float] = {}
    for training in trainings:
        ends[training.id] = seconds[training.id] + max((ends.get(need, 0.0) for need in training.needs), default=0.0)
    return max(ends.values(), default=0.0)


def keeps_trained(experiment: Experiment, training_id: str) -> bool:
    """Whether its trained weights stay on disk when nothing reads them any more."""
    if experiment.store.keep == "last":
        trial, _ = place(training_id)
        return training_id in _pruned(experiment, trial, experiment.levels + 1)
    return experiment.store.keep == "all"


def evaluations(recipe: Recipe, begin: int = 0) -> list[tuple[int, bool]]:
    """The evaluated iterations of a training from `begin`, in order, each with whether the test set is evaluated too.

    The grid is the same wherever a training begins: iteration 1, every `eval_every` after it, each of `report_at`, and
    the last. Evaluated are those of it above `begin`, and the first update, `begin` + 1.
    """
    first, last, test_every = begin + 1, recipe.iterations, recipe.test_every or recipe.eval_every
    always = {n for n in (first, *recipe.report_at, last) if first <= n <= last}
    regular = {n for n in range(1, last + 1, recipe.eval_every) if n >= first}
    return [(i, i in always or (i - 1) % test_every == 0) for i in sorted(regular | always)]
