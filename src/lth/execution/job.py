"""One training, from what is stored to what is stored: build, train, write."""

from __future__ import annotations

import csv
import io
import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, astuple, dataclass, field, fields, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lth import data as datasets
from lth import plan
from lth.config import Experiment, Recipe, is_own
from lth.data.splits import check_channels, check_validation
from lth.errors import LthError, UsageError
from lth.measures import anatomy
from lth.models import build, everywhere, first_weights, groups, tied
from lth.models.init import sigma_of
from lth.plan import Training, evaluations
from lth.pruning import masks
from lth.pruning.allocation import MASK_RULES, MaskSource, ladder
from lth.pruning.masks import Mask, Weights
from lth.pruning.starts import START_RULES, StartSource
from lth.randomness import generator
from lth.storage import atomic, checksums, documents, layout, outcomes
from lth.storage.tensors import bytes_at, load_tensors, read_metadata, save_tensors
from lth.tickets.ticket import Ticket, from_bytes, to_bytes
from lth.training import native_engine, torch_engine
from lth.training.batches import Key, check_last
from lth.training.bfloat16 import kernels
from lth.training.distributed import DistributedEngine
from lth.training.loop import Checkpoint, Engine, Evaluation, Hooks, Outcome, train
from lth.training.precision import resolve

log = logging.getLogger(__name__)

ENGINES: dict[str, tuple[Callable[..., Any], Callable[..., Engine]]] = {
    "torch": (torch_engine.prepare, torch_engine.TorchEngine),
    "native": (native_engine.prepare, native_engine.NativeEngine),
}


@dataclass(frozen=True)
class Means:
    """How trainings are carried out: resolved once for a run, then kept in environment.json."""

    engine: str
    device: str
    precision: str
    threads: int
    processes: int = 1  # that share a training, under torchrun


@dataclass(frozen=True)
class Bench:
    """What a worker sets up once for all its trainings: the network's facts and the data as its engine reads them."""

    experiment: Experiment
    means: Means
    folder: Path
    shape: tuple[int, ...]
    classes: int
    prepared: Any = field(repr=False)

    def model(self) -> nn.Module:
        return build(self.experiment.model, self.shape, self.classes)

    def draw(self, drawn: torch.Generator) -> dict[str, Tensor]:
        """First weights for the model."""
        return first_weights(self.experiment.model, self.shape, self.classes, drawn)


@dataclass(frozen=True)
class Ladder:
    """The weights that remain at each level, of those counted."""

    remaining: list[int]
    total: int

    def density(self, level: int) -> float:
        return self.remaining[level] / self.total


# ------------------------------------------------------------------------------------------------------------- choosing


def choose(experiment: Experiment, shape: tuple[int, ...], classes: int, engine: str, device: str) -> tuple[Means, str]:
    """The means for an experiment, by fixed rules, and the reason in a line.

    Raises UsageError where what was asked for cannot be had.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: no CUDA device was found; give --device cpu")
    if device == "auto":
        device = "cuda" if engine != "native" and torch.cuda.is_available() else "cpu"
    if engine == "native" and device != "cpu":
        raise UsageError(f"--engine native runs on the CPU, not on {device}; give --device cpu or --engine torch")
    model, asked = build(experiment.model, shape, classes), experiment.recipe.precision
    obstacle = native_engine.obstacle(experiment.recipe, model, device)
    if engine == "native" and obstacle:
        raise UsageError(f"--engine native: {obstacle}; give --engine torch")
    chosen = "torch" if engine == "torch" or obstacle else "native"
    reason = "asked for" if engine != "auto" else obstacle or "the network is a chain of Linear and ReLU, on the CPU"
    if chosen == "native":
        return Means(chosen, device, "float32", threads=1), reason
    if experiment.recipe.compile and experiment.model.dropout:
        raise UsageError("recipe.compile would compile dropout anew for each update; leave out one of them")
    if is_own(experiment.model.name):
        if asked == "bfloat16":
            raise UsageError("recipe.precision = bfloat16 is for the models of `lth list models`; leave it out")
        precision, why = "float32", "the network is one's own"
    else:
        precision, why = resolve(asked, model, device)
    if precision == "bfloat16" and device == "cpu":
        why += f", {kernels.format_support()}"
    return Means(chosen, device, precision, threads=1), f"{reason}; {precision}: {why}"


def check(experiment: Experiment, data: datasets.Data) -> Ladder:
    """The remaining weights of every level. Raises UsageError where the experiment does not fit the data."""
    check_validation(data, experiment.data.validation)
    check_channels(data, experiment.data.mean)
    shape, examples = tuple(data.train_x.shape[1:]), len(data.train_x) - experiment.data.validation
    if experiment.recipe.batch > examples > 0:
        raise UsageError(f"recipe.batch = {experiment.recipe.batch} is more than the {examples} training examples")
    if experiment.recipe.augment and len(shape) != 3:
        raise UsageError(f"recipe.augment is for images, but {data.name} has vectors of {shape[0]}; leave it out")
    model = build(experiment.model, shape, data.classes)
    check_last(experiment.recipe, examples, model, torch.zeros(1, *shape))
    own = dict(model.named_parameters())
    sizes = {name: own[name].numel() for name in groups(model)}
    if not sizes:
        raise UsageError(f"{experiment.model.name} has no weights to prune: no parameter of two dimensions or more")
    first = masks.alive(given_ticket(experiment, model).mask) if experiment.ticket else None
    return Ladder(ladder(sizes, groups(model), experiment, first), sum(sizes.values()))


def given_ticket(experiment: Experiment, model: nn.Module) -> Ticket:
    """The ticket of the experiment's ticket file. Raises UsageError where it does not fit `model`, whose weights go."""
    assert experiment.ticket is not None
    ticket = Ticket.load(experiment.ticket)
    try:
        ticket.apply(model)
        if strange := sorted({*ticket.mask} ^ {*groups(model)}):
            raise UsageError(f"its mask and the model's counted weights differ in {', '.join(strange)}")
    except UsageError as error:
        raise UsageError(
            f"{experiment.ticket} cannot be trained as {experiment.model.name} on {experiment.data.name}: {error}"
        ) from None
    return ticket


def set_up(experiment: Experiment, means: Means, folder: Path, data: datasets.Data) -> Bench:
    """Make the data ready for the engine; once per process."""
    shape = tuple(data.train_x.shape[1:])
    return bench_of(experiment, means, folder, shape, data.classes, splits_of(experiment, data))


def splits_of(experiment: Experiment, data: datasets.Data) -> datasets.Splits:
    """The data as the experiment has it trained on."""
    own = experiment.data
    return datasets.split(data, own.validation, experiment.seed, own.mean, own.std)


def bench_of(
    experiment: Experiment,
    means: Means,
    folder: Path,
    shape: tuple[int, ...],
    classes: int,
    splits: datasets.Splits | None = None,
) -> Bench:
    """What `set_up` makes, of splits that are there already; without them it can draw starts, and train nothing."""
    torch.set_num_threads(means.threads)
    prepare, _ = ENGINES[means.engine]
    return Bench(experiment, means, folder, shape, classes, splits and prepare(splits, means.device))


# ------------------------------------------------------------------------------------------------------------- one step


def carry_out(
    training: Training,
    bench: Bench,
    hooks: Hooks | None = None,
    before: Callable[[Mapping[str, bytes]], None] = lambda stored: None,
) -> dict[str, Any]:
    """Do one training whose needs are stored in the run's folder, and store it there; its summary.

    `before` is told what `perform` will be given.
    """
    keep_start(training.trial, bench)
    path = layout.checkpoint_path(bench.folder, training.id)
    stored = needed(training, bench.folder)
    identity = identity_of(training, bench, stored)
    on_disk = replace(
        hooks or Hooks(),
        load=lambda: from_checkpoint_bytes(atomic.read_if_there(path), identity),
        save=lambda checkpoint: atomic.write_file(path, checkpoint_bytes(checkpoint, identity)),
    )
    before(stored)
    return keep(training, bench.folder, perform(training, bench, stored, on_disk))


def needed(training: Training, folder: Path) -> dict[str, bytes]:
    """The stored files that a training is made of: name below the run's folder -> content.

    Raises UsageError where one is not what was stored.
    """
    stored = {name: outcomes.read_file(folder, name) for name in needed_names(training, folder)}
    start = layout.start_name(training.trial)
    for need in training.needs if start in stored else ():
        told = outcomes.told_of(outcomes.outcome(folder, need) or {}, "made_from")
        if told.get(start) not in (None, checksums.digest(stored[start])):
            raise _damaged(folder, start, f"it is not the start that {need} was made from")
    return stored


def needed_names(training: Training, folder: Path) -> list[str]:
    if outcomes.is_done(folder, training.id):
        return [own_ticket(training)]
    names = [layout.start_name(training.trial), ticket_needed(training), trained_needed(training)]
    return [name for name in names if name]


def own_ticket(training: Training) -> str:
    return f"{training.id}/{layout.TICKET}"


def ticket_needed(training: Training) -> str | None:
    """The ticket whose mask a mask rule begins with."""
    if training.mask_rule == "given":
        return layout.TICKET
    return f"{training.needs[0]}/{layout.TICKET}" if training.needs else None


def trained_needed(training: Training) -> str | None:
    """The trained weights that its rules look at."""
    source = plan.reads_trained(training)
    return source and f"{source}/{layout.TRAINED}"


def perform(training: Training, bench: Bench, stored: Mapping[str, bytes], hooks: Hooks) -> dict[str, bytes]:
    """Do one training, from bytes to bytes: what `needed` found -> the files of its folder. Touches no disk.

    One that is stored already is done again, from its own ticket, for its trained weights alone (`store.keep`).
    """
    ticket, engine = begin(training, bench, stored)
    outcome = train(engine, training.recipe, hooks)
    trained = {name: tensor.contiguous() for name, tensor in outcome.trained.items()}
    files = {layout.TRAINED: save_tensors(trained, {"training": training.id})}
    if own_ticket(training) in stored:
        return files
    files |= {
        layout.TICKET: to_bytes(ticket),
        "curve.csv": curve_csv(outcome.curve).encode(),
        **inside(training, bench, ticket, stored),
    }
    summary = summary_of(training, bench.means, ticket, outcome) | identity_of(training, bench, stored)
    told = {**_finite(summary), "files": outcomes.digests_of(files)}
    return {**files, layout.SUMMARY: documents.sealed_json(told)}


def keep(training: Training, folder: Path, files: Mapping[str, bytes]) -> dict[str, Any]:
    """Store what `perform` made; the training's summary.

    Raises LthError where trained weights that were made again are not those that there were.
    """
    if layout.SUMMARY in files:
        outcomes.write_training(folder, training.id, files)
        return json.loads(files[layout.SUMMARY])
    summary = outcomes.outcome(folder, training.id) or {}
    if outcomes.file_fault(files[layout.TRAINED], summary, layout.TRAINED):
        raise LthError(
            f"{folder / training.id}: trained again it has other bits: another torch, or another processor, than "
            "before; go on where the run was begun, or begin anew with another --out"
        )
    atomic.write_file(folder / training.id / layout.TRAINED, files[layout.TRAINED])
    layout.checkpoint_path(folder, training.id).unlink(missing_ok=True)
    return summary


def identity_of(training: Training, bench: Bench, stored: Mapping[str, bytes]) -> dict[str, Any]:
    """What makes a stored training, or a checkpoint, this one: its digest in the plan, and those of its material."""
    return {"training": plan.digest(training, bench.experiment), "made_from": outcomes.digests_of(stored)}


def begin(training: Training, bench: Bench, stored: Mapping[str, bytes]) -> tuple[Ticket, Engine]:
    """The ticket, and an engine before its first update."""
    model = bench.model()
    again = own_ticket(training) in stored
    ticket = (stored_ticket if again else make_ticket)(training, bench, model, stored)
    key = (bench.experiment.seed, training.trial, training.id)
    return ticket, engine_for(bench, model, ticket.start, ticket.mask, training.recipe, key)


def follow_training(training: Training, stored: Mapping[str, bytes], bench: Bench) -> None:
    """Take part in a training that process 0 of torchrun performs."""
    _, engine = begin(training, bench, stored)
    assert isinstance(engine, DistributedEngine)
    engine.follow()


def engine_for(bench: Bench, model: nn.Module, start: Weights, mask: Mask, recipe: Recipe, key: Key) -> Engine:
    """The engine of the run, at the run's precision: `auto` was resolved once."""
    _, engine_class = ENGINES[bench.means.engine]
    if bench.means.processes > 1:
        engine_class = DistributedEngine
    recipe = recipe.model_copy(update={"precision": bench.means.precision})
    return engine_class(model, start, mask, recipe, bench.prepared, key, bench.means.device)


def make_ticket(training: Training, bench: Bench, model: nn.Module, stored: Mapping[str, bytes]) -> Ticket:
    """The mask and the start of a training, by its rules, from the stored files that `needed` names."""
    experiment, name = bench.experiment, training.branch
    own = lambda purpose: generator(experiment.seed, training.trial, training.id, purpose)
    read = lambda name, reader: _read(bench.folder, stored, name, reader)
    initial: Weights = read(layout.start_name(training.trial), load_tensors)
    drawn = initial  # which a ticket file gives in part alone
    mask: Mask = {}
    trained: dict[str, Tensor] = {}
    if ticket_name := ticket_needed(training):
        mask = read(ticket_name, from_bytes).mask
        mask = {name: mask[name] for name in groups(model)}  # the network's order: pools and draws go by it
    if experiment.ticket:
        drawn = bench.draw(generator(experiment.seed, training.trial, "start"))
        initial = completed(initial, everywhere(model, mask), drawn)
    if trained_name := trained_needed(training):
        trained = read(trained_name, load_tensors)
    mask = MASK_RULES[training.mask_rule](
        MaskSource(experiment, training.level, groups(model), initial, mask, trained, own("mask"))
    )
    given = experiment.model.init_sigma
    by_itself = is_own(experiment.model.name)
    sigmas = {n: float(drawn[n].std()) if by_itself else sigma_of(initial[n], given) for n in mask}
    start = START_RULES[training.start_rule](
        StartSource(initial, trained, bench.draw, own("start"), mask, sigmas, training.sigma)
    )
    start = {**start} | {name: start[first] for name, first in tied(model).items()}
    settings = experiment.leading_to(training.level) | {"recipe": training.recipe.model_dump(exclude_none=True)}
    origin = {
        "model": experiment.model.model_dump(mode="json", exclude_none=True),
        "experiment": experiment.digest(training.level),
        "seeds": {"experiment": experiment.seed, "trial": training.trial},
        "trial": training.trial,
        "level": training.level,
        "branch": name,
        "versions": {"lth": version("lth"), "torch": torch.__version__},
        "inputs": list(bench.shape),
        "classes": bench.classes,
        "settings": {key: value for key, value in settings.items() if not key.startswith("ticket")},
    }
    return Ticket(mask, masks.apply(everywhere(model, mask), start), origin)


def completed(start: Weights, mask: Mask, drawn: Weights) -> Weights:
    """A start that a ticket file gave, with weights where it has none: `drawn` as for any run, for controls of them."""
    added = {name: torch.where(layer | (start[name] != 0), start[name], drawn[name]) for name, layer in mask.items()}
    return {**start} | added


def stored_ticket(training: Training, bench: Bench, model: nn.Module, stored: Mapping[str, bytes]) -> Ticket:
    """The ticket that a training is stored with."""
    ticket = _read(bench.folder, stored, own_ticket(training), from_bytes)
    return replace(ticket, mask={name: ticket.mask[name] for name in groups(model)})  # in the network's order


def keep_start(trial: int, bench: Bench) -> None:
    """Store theta_0 of a trial, drawn or the ticket file's, unless it is stored; and the ticket file too."""
    given = bench.experiment.ticket
    copy = bench.folder / layout.TICKET
    if given and not copy.exists():
        atomic.write_file(copy, Path(given).read_bytes())  # to the byte: `damage.given_fault` knows its checksum
    path = bench.folder / layout.start_name(trial)
    if not path.exists():
        if given:
            start = given_ticket(bench.experiment, bench.model()).start
        else:
            start = bench.draw(generator(bench.experiment.seed, trial, "start"))
        atomic.write_file(path, save_tensors(dict(start), {"trial": trial}))


def _read(folder: Path, stored: Mapping[str, bytes], name: str, reader: Callable[[bytes], Any]) -> Any:
    try:
        return reader(stored[name])
    except ValueError as error:
        raise _damaged(folder, name, error) from None


def _damaged(folder: Path, name: str, fault: object) -> UsageError:
    return UsageError(f"{folder / name} is damaged: {fault}; {layout.mended_by(folder)}")


# ------------------------------------------------------------------------------------------------- what is written down


def summary_of(training: Training, means: Means, ticket: Ticket, outcome: Outcome) -> dict[str, Any]:
    """A training's row of summary.csv."""
    alive = masks.alive(ticket.mask)
    row: dict[str, Any] = {
        "trial": training.trial,
        "level": training.level,
        "branch": training.branch,
        "density": ticket.density,
        "weights": sum(alive.values()),
    }
    row |= outcome.summary | asdict(means)
    if row["status"] == "done" and not all(alive.values()):
        row |= {"status": "collapsed", "collapsed_layers": [name for name, count in alive.items() if not count]}
    return row


def inside(training: Training, bench: Bench, ticket: Ticket, stored: Mapping[str, bytes]) -> dict[str, bytes]:
    """The small CSVs that the report shows of a trunk's ticket; see lth.measures.anatomy."""
    if training.branch != "ticket":
        return {}
    start = _read(bench.folder, stored, layout.start_name(training.trial), load_tensors)
    mask, all_starts = ({name: w[name].numpy() for name in ticket.mask} for w in (ticket.mask, start))
    return anatomy.files(mask, all_starts, bench.shape)


def curve_csv(curve: list[Evaluation]) -> str:
    """The evaluations as CSV: floats in shortest round-trip form, blank where not evaluated."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([column.name for column in fields(Evaluation)])
    writer.writerows(["" if value is None else value for value in astuple(row)] for row in curve)
    return text.getvalue()


def _finite(summary: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no NaN: a number that is none is null."""
    return {k: None if isinstance(v, float) and not abs(v) < float("inf") else v for k, v in summary.items()}


def checkpoint_bytes(checkpoint: Checkpoint, identity: Mapping[str, Any]) -> bytes:
    """The middle of the training that `identity` says, as the bytes of a safetensors file."""
    tensors = {f"state/{name}": tensor for name, tensor in checkpoint.state.items()}
    tensors |= {f"best/{name}": tensor for name, tensor in checkpoint.best.items()}
    for iteration, state in checkpoint.states.items():
        tensors |= {f"states/{iteration}/{name}": tensor for name, tensor in state.items()}
    facts = {
        "iteration": checkpoint.iteration,
        "seconds": checkpoint.seconds,
        "curve": [asdict(row) for row in checkpoint.curve],
        "states": list(checkpoint.states),
        "identity": dict(identity),
    }
    return save_tensors(tensors, facts)


def from_checkpoint_bytes(content: bytes | None, identity: Mapping[str, Any]) -> Checkpoint | None:
    """What `checkpoint_bytes` made; None for none.

    One that is damaged, or of another training than `identity` says, is told of and as good as none.
    """
    if content is None:
        return None
    try:
        tensors, facts = load_tensors(content), read_metadata(content)
        if not facts.pop(checksums.KEY, None) or facts.pop("identity", None) != identity:
            raise ValueError("it is of another training")
        facts["curve"] = [Evaluation(**row) for row in facts["curve"]]
        state, best = (_below(part, tensors) for part in ("state/", "best/"))
        states = {iteration: _below(f"states/{iteration}/", tensors) for iteration in facts.pop("states", [])}
        return Checkpoint(**facts, state=state, best=best, states=states)
    except (KeyError, ValueError, TypeError) as error:
        log.warning("a checkpoint cannot be used: %s; its training begins anew", error)
        return None


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


# ------------------------------------------------------------------------------------------------------------ estimates


def estimate_seconds(bench: Bench, densities: Mapping[int, float], trainings: list[Training]) -> dict[str, float]:
    """About how long each training takes here, from a few updates and one evaluation at its level's density."""
    paces = {level: _pace(bench, density) for level, density in densities.items()}
    found = {}
    for training in trainings:
        update, evaluation = paces[training.level]
        counts = [1 + 2 * with_test for _, with_test in evaluations(training.recipe)]  # the test set is twice as large
        found[training.id] = training.recipe.iterations * update + (sum(counts) + 30) * evaluation
    return found


def _pace(bench: Bench, density: float) -> tuple[float, float]:
    """Seconds of an update and of an evaluation on the validation set, under a random mask of this density."""
    model = bench.model()
    drawn = generator(0, "estimate")
    start = bench.draw(drawn)
    mask = {name: torch.rand(start[name].shape, generator=drawn) < density for name in groups(model)}
    engine = engine_for(bench, model, masks.apply(mask, start), mask, bench.experiment.recipe, ("estimate",))
    engine.advance(3)
    began = time.perf_counter()
    engine.advance(13)
    middle = time.perf_counter()
    engine.evaluate("validation")
    return (middle - began) / 10, time.perf_counter() - middle


def bytes_of(bench: Bench, ladder: Ladder) -> Callable[[Training], float]:
    """About what a training leaves on disk: start, mask and trained weights, and a line an evaluation, in two files.

    With another `store.keep` than all, trained weights are those of one training a trial at a time: the first is asked.
    """
    tensors = [t for t in bench.model().state_dict().values() if t.ndim]
    recipe = bench.experiment.recipe
    lines = cache(lambda iterations: len(evaluations(recipe.model_copy(update={"iterations": iterations}))))
    weights = cache(lambda level: sum(bytes_at(t.numel(), ladder.density(level)) for t in tensors))
    bits = sum(t.numel() for t in tensors) / 8

    def about(training: Training) -> float:
        files = 1 + (bench.experiment.store.keep == "all" or not training.needs)
        return files * weights(training.level) + bits + 8000 + 150 * lines(training.recipe.iterations)

    return about
