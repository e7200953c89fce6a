"""Experiment -> trainings: everything that will be done, and what each needs, as values. No torch here."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from lth.config import CONTINUED, Experiment, Recipe
from lth.config.registry import ROLES, Rule, entry
from lth.config.userfile import file_of, is_custom
from lth.errors import UsageError

KINDS = {"mask": "ticket", "trained": "trained", "given": "ticket"}  # the kind of artifact that has a role


class Artifact(NamedTuple):
    """A stored file that a training reads: `kind` is "start", "ticket" or "trained".

    `owner` is the training, the trial (of a start), or the run itself, which is "" (of the experiment's ticket file).
    """

    owner: str
    kind: str


@dataclass(frozen=True, slots=True)
class Training:
    """One training: what it reads, the rules that make its mask and its start, and how it is trained.

    `id` is also its folder below the run's. `inputs` are the artifacts that its rules read, by role (see
    `lth.config.registry.Rule`); `needs` the trainings among their owners, which have to be stored before, in the order
    in which the rules name them. `begin` is the iteration at which it begins.
    """

    id: str
    trial: int
    level: int
    branch: str
    inputs: Mapping[str, Artifact]
    needs: tuple[str, ...]
    mask_rule: str
    start_rule: str
    recipe: Recipe
    sigma: float | None = None  # of start rule noise
    begin: int = 0


def digests(experiment: Experiment) -> Callable[[str], str | None]:
    """A function from a training's id to its `digest`; None where the experiment has no such training."""
    of_level = cache(experiment.digest)

    def digest_of(training_id: str) -> str | None:
        if not re.fullmatch(r"trial-\d+/level-\d+(/.+)?", training_id):
            return None
        trial, level = place(training_id)
        if not (1 <= trial <= experiment.trials and level <= experiment.levels):
            return None
        training = next((t for t in _at_level(experiment, trial, level) if t.id == training_id), None)
        return _digest(training, of_level(level), experiment.files) if training else None

    return digest_of


def digest(training: Training, experiment: Experiment) -> str:
    """A digest of all that a training is told to do, and what it needs: equal for equal ones of any two runs."""
    return _digest(training, experiment.digest(training.level), experiment.files)


def _digest(training: Training, of_level: str, files: Mapping[str, str]) -> str:
    rules = (training.mask_rule, training.start_rule, training.sigma, training.recipe.iterations)
    words = [of_level, training.id, training.needs, *rules]
    custom = {name: files.get(file_of(name)) for name in rules[:2] if is_custom(name)}
    if added := {key: value for key, value in (("begin", training.begin), ("files", custom)) if value}:
        words.append(added)  # what version 0.1 could express keeps its digest
    return hashlib.sha256(json.dumps(words).encode()).hexdigest()


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
    parent, ticket = _pruned(experiment, trial, level), training_id(trial, level)
    begun, files = {"start": Artifact(f"trial-{trial}", "start")}, tuple(experiment.files.items())

    def trainings(
        labels: Iterable[str], of: Mapping[str, str], mask: str, start: str, recipe: Recipe, sigma: float | None = None
    ) -> Iterator[Training]:
        roles = _roles(mask, start, files)
        inputs = begun | {role: Artifact(of.get(role, ""), KINDS[role]) for role in roles}
        needs = tuple(dict.fromkeys([of[role] for role in roles if role in of]))
        for label in labels:
            name = training_id(trial, level, label)
            yield Training(name, trial, level, label, inputs, needs, mask, start, recipe, sigma)

    rule = "prune" if level else "given" if experiment.ticket else "ones"
    yield from trainings(["ticket"], {"mask": parent, "trained": parent}, rule, "trial", experiment.recipe)
    if experiment.strategy == CONTINUED and level:
        of = {"mask": ticket, "trained": parent}
        yield from trainings([CONTINUED], of, "ticket", "trained", experiment.recipe)
    for branch in experiment.branches_at(level):
        assert branch.mask and branch.start  # config has filled them in
        of, recipe = {"mask": ticket, "trained": ticket}, experiment.recipe_of(branch)
        yield from trainings(branch.labels, of, branch.mask, branch.start, recipe, branch.sigma)


@cache
def _roles(mask_rule: str, start_rule: str, files: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
    """The roles that two rules read beside the trial's start, which is always read.

    A rule from a user's file that is gone reads all that it may: tables of its trainings can still be made.
    """
    roles: list[str] = []
    for kind, name in (("mask-rules", mask_rule), ("start-rules", start_rule)):
        try:
            rule = entry(kind, name, dict(files))
            roles += rule.reads if isinstance(rule, Rule) else ()
        except UsageError:
            roles += ROLES
    return tuple(dict.fromkeys(roles))


def _pruned(experiment: Experiment, trial: int, level: int) -> str:
    """The training whose trained weights level `level` prunes; "" for level 0."""
    if level == 0:
        return ""
    if experiment.strategy == "oneshot":
        return training_id(trial, 0)
    if experiment.strategy == CONTINUED and level > 1:
        return training_id(trial, level - 1, CONTINUED)
    return training_id(trial, level - 1)


def reads_trained(training: Training) -> str | None:
    """The training whose trained weights this one is made from, if any."""
    trained = training.inputs.get("trained")
    return trained.owner if trained else None


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
        return training_id == _pruned(experiment, trial, experiment.levels + 1)
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
