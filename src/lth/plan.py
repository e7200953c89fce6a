"""The plan of an experiment: its trainings and the files that each one needs, as values. This module needs no torch."""

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

KINDS = {"mask": "ticket", "trained": "trained", "given": "ticket"}  # role -> kind of artifact


class Artifact(NamedTuple):
    """A stored file that a training reads. `kind` is "start", "ticket" or "trained".

    `owner` is a training id, a trial (for its start), or "" for the experiment's ticket file.
    """

    owner: str
    kind: str


@dataclass(frozen=True, slots=True)
class Training:
    """One training: its inputs, the rules that make its mask and its start, and how it is trained.

    `id` is also its folder in the run's folder. `inputs` are the artifacts that its rules read, by role (see
    `lth.config.registry.Rule`). `needs` are the trainings that own them, in the order in which the rules name them;
    they have to be stored first. `begin` is the iteration at which the training begins.
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
    """Return a function from a training id to its `digest`, or to None if the experiment has no such training."""
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
    """A digest of everything that determines a training, including the trainings that it needs; equal across runs."""
    return _digest(training, experiment.digest(training.level), experiment.files)


def _digest(training: Training, of_level: str, files: Mapping[str, str]) -> str:
    rules = (training.mask_rule, training.start_rule, training.sigma, training.recipe.iterations)
    words = [of_level, training.id, training.needs, *rules]
    custom = {name: files.get(file_of(name)) for name in rules[:2] if is_custom(name)}
    if added := {key: value for key, value in (("begin", training.begin), ("files", custom)) if value}:
        words.append(added)  # experiments that version 0.1 could express keep their digests
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
    """Yield the trainings of an experiment in the order in which they should be carried out.

    All trials of a level come before the next level, so that results over all trials appear early.
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
        assert branch.mask and branch.start  # filled in by config
        of, recipe = {"mask": ticket, "trained": ticket}, experiment.recipe_of(branch)
        yield from trainings(branch.labels, of, branch.mask, branch.start, recipe, branch.sigma)


@cache
def _roles(mask_rule: str, start_rule: str, files: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
    """The roles that two rules read in addition to the trial's start, which is always read.

    A rule from a user's file that no longer exists reads all roles, so that tables of its trainings can still be made.
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
    """The training whose trained weights this one reads, if any."""
    trained = training.inputs.get("trained")
    return trained.owner if trained else None


def readers(experiment: Experiment, training_id: str) -> Iterator[Training]:
    """The trainings that read the trained weights of this one."""
    trial, level = place(training_id)
    last = experiment.levels if experiment.strategy == "oneshot" else min(level + 1, experiment.levels)
    for later in range(level + 1, last + 1):
        yield from (t for t in _at_level(experiment, trial, later) if reads_trained(t) == training_id)


def longest_chain(trainings: Iterable[Training], seconds: Mapping[str, float]) -> float:
    """The minimum time in seconds for all trainings with unlimited parallelism, given that each waits for those that it
    needs.
    """
    ends: dict[str, float] = {}
    for training in trainings:
        ends[training.id] = seconds[training.id] + max((ends.get(need, 0.0) for need in training.needs), default=0.0)
    return max(ends.values(), default=0.0)


def keeps_trained(experiment: Experiment, training_id: str) -> bool:
    """Return whether a training's trained weights stay on disk when no other training reads them."""
    if experiment.store.keep == "last":
        trial, _ = place(training_id)
        return training_id == _pruned(experiment, trial, experiment.levels + 1)
    return experiment.store.keep == "all"


def evaluations(recipe: Recipe, begin: int = 0) -> list[tuple[int, bool]]:
    """Yield the evaluated iterations of a training from `begin`, each with whether the test set is evaluated too.

    The grid does not depend on `begin`: iteration 1, every `eval_every` after it, each of `report_at`, and the last.
    Only its iterations above `begin` are evaluated, and `begin` + 1.
    """
    first, last, test_every = begin + 1, recipe.iterations, recipe.test_every or recipe.eval_every
    always = {n for n in (first, *recipe.report_at, last) if first <= n <= last}
    regular = {n for n in range(1, last + 1, recipe.eval_every) if n >= first}
    return [(i, i in always or (i - 1) % test_every == 0) for i in sorted(regular | always)]
