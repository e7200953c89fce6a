"""Carry out one training: read its inputs, build the network, train, store the result."""

from __future__ import annotations

import csv
import io
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, astuple, fields, replace
from pathlib import Path
from typing import Any

from torch import nn

from lth import plan
from lth.config import Recipe
from lth.errors import Damaged, LthError
from lth.execution.checkpoints import checkpoint_bytes, from_checkpoint_bytes
from lth.execution.resources import Resources
from lth.execution.setup import ENGINES, Setup, given_ticket
from lth.execution.ticket import Stored, damaged, in_order, make_ticket, read_stored
from lth.plan import Training
from lth.pruning import masks
from lth.pruning.masks import Mask, Weights
from lth.randomness import generator
from lth.storage import atomic, checksums, documents, layout, outcomes
from lth.storage.tensors import save_tensors
from lth.tickets.ticket import Ticket, from_bytes, to_bytes
from lth.training.batches import Key
from lth.training.distributed import DistributedEngine
from lth.training.loop import Engine, Evaluation, Hooks, Outcome, Unusable, train

log = logging.getLogger(__name__)


def carry_out(
    training: Training,
    setup: Setup,
    hooks: Hooks | None = None,
    before: Callable[[Stored], None] = lambda stored: None,
) -> dict[str, Any]:
    """Carry out one training whose inputs are stored in the run's folder, and store it there. Returns its summary.

    `before` is called with the arguments of `perform`.
    """
    keep_start(training.trial, setup)
    path = layout.checkpoint_path(setup.folder, training.id)
    stored = needed(training, setup.folder)
    identity = identity_of(training, setup, stored)
    on_disk = replace(
        hooks or Hooks(),
        load=lambda: from_checkpoint_bytes(atomic.read_if_there(path), identity),
        save=lambda checkpoint: atomic.write_file(path, checkpoint_bytes(checkpoint, identity)),
    )
    before(stored)
    return keep(training, setup.folder, perform(training, setup, stored, on_disk))


# --------------------------------------------------------------------------------------------------------------- inputs


def needed(training: Training, folder: Path) -> dict[str, bytes]:
    """The stored files that a training reads: name in the run's folder -> content.

    Raises UsageError if one does not match its checksum.
    """
    stored = {name: outcomes.read_file(folder, name) for name in needed_names(training, folder)}
    start = layout.start_name(training.trial)
    for need in training.needs if start in stored else ():
        made_from = outcomes.digests_in(outcomes.outcome(folder, need) or {}, "made_from")
        if made_from.get(start) not in (None, checksums.digest(stored[start])):
            raise damaged(folder, start, f"it is not the start that {need} was made from")
    return stored


def needed_names(training: Training, folder: Path) -> list[str]:
    """The names of a training's inputs or, if it is done and repeated for its trained weights, of its own ticket."""
    if outcomes.is_done(folder, training.id):
        return [own_ticket(training)]
    return [layout.file_of(artifact) for artifact in training.inputs.values()]


def own_ticket(training: Training) -> str:
    return f"{training.id}/{layout.TICKET}"


def keep_start(trial: int, setup: Setup) -> None:
    """Store the start of a trial, drawn or from the ticket file, unless it is stored; and the ticket file too."""
    given = setup.experiment.ticket
    copy = setup.folder / layout.TICKET
    if given and not copy.exists():
        atomic.write_file(copy, Path(given).read_bytes())  # byte by byte, because its checksum is in the experiment
    path = setup.folder / layout.start_name(trial)
    if not path.exists():
        if given:
            start = given_ticket(setup.experiment, setup.model()).start
        else:
            start = setup.draw(generator(setup.experiment.seed, trial, "start"))
        atomic.write_file(path, save_tensors(dict(start), {"trial": trial}))


# ------------------------------------------------------------------------------------------------------------- training


def perform(training: Training, setup: Setup, stored: Stored, hooks: Hooks) -> dict[str, bytes]:
    """Carry out one training from bytes to bytes: the result of `needed` -> the files of its folder. Uses no disk.

    A training that is already stored is repeated from its own ticket for its trained weights (`store.keep`).
    """
    ticket, engine = begin(training, setup, stored)
    try:
        outcome = train(engine, training.recipe, hooks, training.begin)
    except Unusable as error:
        if setup.resources.processes > 1:  # the other processes have begun too
            checkpoint = layout.checkpoint_path(setup.folder, training.id)
            raise Damaged(checkpoint, str(error), "remove it, and its training starts over") from None
        log.warning("a checkpoint cannot be used: %s; its training starts over", error)
        ticket, engine = begin(training, setup, stored)
        outcome = train(engine, training.recipe, replace(hooks, load=lambda: None), training.begin)
    trained = {name: tensor.contiguous() for name, tensor in outcome.trained.items()}
    files = {layout.TRAINED: save_tensors(trained, {"training": training.id})}
    if own_ticket(training) in stored:
        return files
    files |= {layout.TICKET: to_bytes(ticket), layout.CURVE: curve_csv(outcome.curve).encode()}
    summary = summary_of(training, setup.resources, ticket, outcome) | identity_of(training, setup, stored)
    row = {**_finite(summary), "files": outcomes.digests_of(files)}
    return {**files, layout.SUMMARY: documents.sealed_json(row)}


def keep(training: Training, folder: Path, files: Mapping[str, bytes]) -> dict[str, Any]:
    """Store the files that `perform` made. Returns the training's summary.

    Raises LthError if repeated trained weights differ from the earlier ones.
    """
    if layout.SUMMARY in files:
        outcomes.write_training(folder, training.id, files)
        return json.loads(files[layout.SUMMARY])
    summary = outcomes.outcome(folder, training.id) or {}
    if outcomes.file_fault(files[layout.TRAINED], summary, layout.TRAINED):
        raise LthError(
            f"{folder / training.id}: the repeated training has other bits, because torch or the processor "
            "differs; continue where the run was begun, or start over with another --out"
        )
    atomic.write_file(folder / training.id / layout.TRAINED, files[layout.TRAINED])
    layout.checkpoint_path(folder, training.id).unlink(missing_ok=True)
    return summary


def identity_of(training: Training, setup: Setup, stored: Stored) -> dict[str, Any]:
    """The identity of a stored training or checkpoint: its digest in the plan, and the checksums of its inputs."""
    return {"training": plan.digest(training, setup.experiment), "made_from": outcomes.digests_of(stored)}


def begin(training: Training, setup: Setup, stored: Stored) -> tuple[Ticket, Engine]:
    """The ticket, and an engine before its first update."""
    model = setup.model()
    again = own_ticket(training) in stored
    ticket = (stored_ticket if again else make_ticket)(training, setup, model, stored)
    key = (setup.experiment.seed, training.trial, training.id)
    return ticket, engine_for(setup, model, ticket.start, ticket.mask, training.recipe, key, training.begin)


def stored_ticket(training: Training, setup: Setup, model: nn.Module, stored: Stored) -> Ticket:
    """The ticket with which a training is stored."""
    ticket = read_stored(setup.folder, stored, own_ticket(training), from_bytes)
    return replace(ticket, mask=in_order(ticket.mask, setup.experiment, model))


def follow_training(training: Training, stored: Stored, setup: Setup) -> None:
    """Take part in a training that process 0 of torchrun performs."""
    _, engine = begin(training, setup, stored)
    assert isinstance(engine, DistributedEngine)
    engine.follow()


def engine_for(
    setup: Setup, model: nn.Module, start: Weights, mask: Mask, recipe: Recipe, key: Key, begin: int = 0
) -> Engine:
    """The run's engine at iteration `begin`, in the run's precision: `auto` was resolved once."""
    _, engine_class = ENGINES[setup.resources.engine]
    if setup.resources.processes > 1:
        engine_class = DistributedEngine
    device = setup.resources.device
    recipe = recipe.model_copy(update={"precision": setup.resources.precision})
    return engine_class(model, start, mask, recipe, setup.prepared, key, device, begin, objective=setup.objective)


# ---------------------------------------------------------------------------------------------------- what is written


def summary_of(training: Training, resources: Resources, ticket: Ticket, outcome: Outcome) -> dict[str, Any]:
    """A training's row of summary.csv."""
    alive = masks.alive(ticket.mask)
    row: dict[str, Any] = {
        "trial": training.trial,
        "level": training.level,
        "branch": training.branch,
        "density": ticket.density,
        "weights": sum(alive.values()),
    }
    row |= outcome.summary | asdict(resources)
    if row["status"] == "done" and not all(alive.values()):
        row |= {"status": "collapsed", "collapsed_layers": [name for name, count in alive.items() if not count]}
    return row


def curve_csv(curve: list[Evaluation]) -> str:
    """The evaluations as CSV: floats in shortest round-trip form, blank if not evaluated."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([column.name for column in fields(Evaluation)])
    writer.writerows(["" if value is None else value for value in astuple(row)] for row in curve)
    return text.getvalue()


def _finite(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Replace NaN, which JSON does not have, by null."""
    return {k: None if isinstance(v, float) and not abs(v) < float("inf") else v for k, v in summary.items()}
