"""What can be chosen, by kind and by name: one entry each.

`lth list`, the schema, error messages, the plan and the reference documentation are made from these entries. What does
the work is named by a string, "package.module:name", and imported when it is first used: listing loads no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from lth.config import userfile
from lth.config.names import nearest, shown
from lth.errors import UsageError


@dataclass(frozen=True)
class Entry:
    """One choice: what it is, in a line, and where it is implemented.

    `make` is "package.module:name", or FILE.py:FUNCTION of the user's own, whose recorded checksum is `sha256`.
    `title` is its name in a description of an experiment.
    """

    about: str
    make: str = ""
    title: str = field(default="", kw_only=True)
    sha256: str | None = field(default=None, kw_only=True)

    def load(self) -> Any:
        """What implements it; raises UsageError where a user's file is missing, not approved, another one, or fails."""
        module, _, name = self.make.rpartition(":")
        if module.endswith(".py"):
            return userfile.function(self.make, self.sha256)
        return getattr(import_module(module), name)


@dataclass(frozen=True)
class Rule(Entry):
    """A mask rule or a start rule.

    `reads` names the roles of the stored artifacts that it is made from, beside the trial's start: "mask" (a ticket's
    mask), "trained" (trained weights), "given" (the experiment's ticket file). `control` rules are those that a branch
    may name. `options` are the settings of a branch that it takes.
    """

    reads: tuple[str, ...] = ()
    control: bool = False
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Score(Entry):
    """What ranks the weights; `reads` names the values of `GIVEN["scores"]` that it takes."""

    reads: tuple[str, ...] = ("weights",)


@dataclass(frozen=True)
class Control(Entry):
    """A branch by name: its mask rule and its start rule."""

    mask: str = ""
    start: str = ""


@dataclass(frozen=True)
class Measure(Entry):
    """A measure: a function from a run's folder, its experiment and the table stored so far to the whole table.

    `options` are its further keyword parameters. `draw` makes figures by name from a run.
    """

    options: tuple[str, ...] = ()
    draw: str = ""


@dataclass(frozen=True)
class Network(Entry):
    """A model and the keys of [model] that it takes, beside its name."""

    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Dataset(Entry):
    """A dataset, with the number of its training examples before any are split off for validation."""

    examples: int = 0


@dataclass(frozen=True)
class Task(Entry):
    """What targets are, and by what networks are judged.

    `make` is its `lth.training.losses.Objective`, `metric` the name of its `lth.results.metrics.Metric`, and `loss` the
    name of its loss. `compiled`: whether the native engine has it.
    """

    metric: str = "accuracy"
    loss: str = ""
    compiled: bool = False


@dataclass(frozen=True)
class RecipePart(Entry):
    """An optimizer or a schedule, and the keys of [recipe] that it takes and others refuse."""

    options: tuple[str, ...] = ()


MODELS: dict[str, Network] = {
    "lenet": Network(
        "fully connected layers with ReLU: LeNet-300-100, or any other sizes",
        "lth.models.lenet:lenet",
        ("layers", "dropout"),
        title="LeNet-{layers}",
    ),
    "conv2": Network(
        "Conv-2: 2 convolutions of 64 channels, 3 fully connected layers",
        "lth.models.conv:conv2",
        ("dropout",),
        title="Conv-2",
    ),
    "conv4": Network(
        "Conv-4: 4 convolutions of 64 and 128 channels, 3 fully connected layers",
        "lth.models.conv:conv4",
        ("dropout",),
        title="Conv-4",
    ),
    "conv6": Network(
        "Conv-6 as the paper ran it: 6 convolutions of 64, 128 and 192 channels, 3 fully connected layers",
        "lth.models.conv:conv6",
        ("dropout",),
        title="Conv-6",
    ),
    "conv6-256": Network(
        "Conv-6 as the paper describes it: 256 channels in the third module",
        "lth.models.conv:conv6_256",
        ("dropout",),
        title="Conv-6 with 256 channels",
    ),
    "resnet18": Network(
        "the paper's Resnet-18, which is the CIFAR ResNet-20: 271,000 weights, batch norm",
        "lth.models.resnet:resnet18",
        title="Resnet-18",
    ),
    "vgg19": Network(
        "VGG-19 for CIFAR: 16 convolutions, batch norm, one fully connected layer",
        "lth.models.vgg:vgg19",
        title="VGG-19",
    ),
    "vit": Network(
        "a small Vision Transformer: 6 blocks of width 64 and 4 heads on patches of 4 x 4 pixels, 200,000 weights",
        "lth.models.vit:vit",
        ("dropout",),
        title="Vision Transformer",
    ),
}
DATASETS: dict[str, Dataset] = {
    "mnist": Dataset("60,000 + 10,000 handwritten digits, 28 x 28 grey", examples=60_000, title="MNIST"),
    "fashion-mnist": Dataset(
        "60,000 + 10,000 pieces of clothing, 28 x 28 grey", examples=60_000, title="Fashion-MNIST"
    ),
    "cifar10": Dataset(
        "50,000 + 10,000 photographs of 10 kinds of things, 32 x 32 in colour", examples=50_000, title="CIFAR-10"
    ),
    "cifar100": Dataset(
        "50,000 + 10,000 photographs of 100 kinds of things, 32 x 32 in colour", examples=50_000, title="CIFAR-100"
    ),
}
TASKS: dict[str, Task] = {
    "classification": Task(
        "targets are classes: cross-entropy, judged by the test accuracy",
        "lth.training.losses:CLASSIFICATION",
        metric="accuracy",
        loss="Cross-entropy",
        compiled=True,
    ),
    "regression": Task(
        "targets are floating-point numbers, in an .npz file: mean squared error, judged by the test loss",
        "lth.training.losses:REGRESSION",
        metric="loss",
        loss="Mean squared error",
    ),
}
SCORES: dict[str, Score] = {
    "magnitude": Score("|trained weight|: the paper's criterion", "lth.pruning.scores:magnitude"),
}
STRATEGIES: dict[str, Entry] = {
    "resetting": Entry(
        "train, prune, reset to the start, repeat (the paper's strategy 1, used everywhere)",
        title="iterative pruning with resetting",
    ),
    "continued": Entry(
        "train, prune, go on training; each level's mask is then reset and trained (Appendix B)",
        title="iterative pruning with continued training",
    ),
    "oneshot": Entry(
        "prune the trained level 0 once, straight to each level's density (figure 4c)",
        title="one-shot pruning with resetting",
    ),
}
SCOPES: dict[str, Entry] = {
    "layerwise": Entry("the weights of each layer compete with each other"),
    "global": Entry("the weights of all pruned layers compete with each other"),
}
MASK_RULES: dict[str, Rule] = {
    "ones": Rule("nothing pruned", "lth.pruning.rules:ones"),
    "given": Rule("the mask of the experiment's ticket file", "lth.pruning.rules:of_file", reads=("given",)),
    "prune": Rule(
        "what the previous training leaves after pruning", "lth.pruning.rules:pruned", reads=("mask", "trained")
    ),
    "ticket": Rule(
        "the mask of the ticket at this level", "lth.pruning.rules:of_ticket", reads=("mask",), control=True
    ),
    "random": Rule(
        "as many weights as the ticket in each layer, at random", "lth.pruning.rules:random", ("mask",), control=True
    ),
    "initial": Rule(
        "as many weights as the ticket in each layer, the largest of the trial's start",
        "lth.pruning.rules:largest",
        reads=("mask",),
        control=True,
    ),
}
START_RULES: dict[str, Rule] = {
    "trial": Rule("the trial's start", "lth.pruning.starts:trial", control=True),
    "fresh": Rule("new weights from the initialisation's distribution", "lth.pruning.starts:fresh", control=True),
    "trained": Rule("where the training before ended", "lth.pruning.starts:trained", reads=("trained",)),
    "noise": Rule(
        "the trial's start, with Gaussian noise of `sigma` times the initialisation's on what survives",
        "lth.pruning.starts:noisy",
        control=True,
        options=("sigma",),
    ),
    "sampled": Rule(
        "each layer's survivors drawn with replacement from their own values in the trial's start",
        "lth.pruning.starts:sampled",
        control=True,
    ),
}
BRANCHES: dict[str, Control] = {
    "reinit": Control("the ticket's mask, new weights: is it the start that wins?", mask="ticket", start="fresh"),
    "random-mask": Control(
        "the trial's start under a random mask of the same counts: is it the mask?", mask="random", start="trial"
    ),
    "noise": Control(
        "the ticket, noise of N sigma on its start (say noise-0.5): how exact must it be?", mask="ticket", start="noise"
    ),
    "sampled": Control(
        "the ticket's mask, each layer's starts drawn from its own: do their values do?", mask="ticket", start="sampled"
    ),
    "prune-at-0": Control(
        "the start's largest weights, as many as the ticket's: why train?", mask="initial", start="trial"
    ),
}
STRUCTURES: dict[str, Entry] = {
    "weights": Entry("single weights"),
    "N:M": Entry("N of every M consecutive inputs survive, such as 2:4", "lth.pruning.structures:outside_groups"),
}
OPTIMIZERS: dict[str, RecipePart] = {
    "adam": RecipePart("Adam; weight decay is added to the gradient", "lth.training.optimizers:adam"),
    "adamw": RecipePart("Adam with decoupled weight decay", "lth.training.optimizers:adamw"),
    "sgd": RecipePart("stochastic gradient descent", "lth.training.optimizers:sgd"),
    "momentum": RecipePart("SGD with momentum", "lth.training.optimizers:momentum", ("momentum",)),
    "nesterov": RecipePart("SGD with Nesterov momentum", "lth.training.optimizers:nesterov", ("momentum",)),
}
SCHEDULES: dict[str, RecipePart] = {
    "steps": RecipePart("constant, with tenfold drops at `drops`", "lth.training.schedule:steps", ("drops",)),
    "cosine": RecipePart("half a cosine from the full rate to 0", "lth.training.schedule:cosine"),
    "linear": RecipePart("a straight line from the full rate to 0", "lth.training.schedule:linear"),
}
MEASURES: dict[str, Measure] = {
    "anatomy": Measure(
        "what is inside each ticket: weights, dead units, connections of pixels, first values of survivors, by layer",
        "lth.measures.anatomy:compute",
        options=("trials", "levels"),
        draw="lth.measures.figures:layers",
    ),
    "movement": Measure(
        "how far weights move from their start while the unpruned network trains, in a ticket and out of it",
        "lth.measures.weight_movement:compute",
        options=("trials", "levels"),
        draw="lth.measures.figures:movement",
    ),
}
EXECUTORS: dict[str, Entry] = {
    "local": Entry(
        "this machine: threads for the native engine, processes for torch on a CPU, one process per GPU",
        "lth.execution.executors.local:executor",
    ),
    "ray": Entry(
        "a Ray cluster, or one that is started here; needs no shared file system (pip install 'lth[ray]')",
        "lth.execution.executors.ray:executor",
    ),
    "slurm": Entry(
        "jobs of a Slurm cluster, on a file system that its nodes share (pip install 'lth[slurm]')",
        "lth.execution.executors.slurm:executor",
    ),
    "torchrun": Entry(
        "all processes that torchrun has started, on one training at a time",
        "lth.execution.executors.torchrun:executor",
    ),
}
KINDS: dict[str, Mapping[str, Entry]] = {
    "models": MODELS,
    "datasets": DATASETS,
    "branches": BRANCHES,
    "tasks": TASKS,
    "mask-rules": MASK_RULES,
    "start-rules": START_RULES,
    "scores": SCORES,
    "structures": STRUCTURES,
    "scopes": SCOPES,
    "strategies": STRATEGIES,
    "optimizers": OPTIMIZERS,
    "schedules": SCHEDULES,
    "measures": MEASURES,
    "executors": EXECUTORS,
}
GIVEN: dict[str, tuple[str, ...]] = {  # kinds that the user's own functions extend, and the parameters they may have
    "models": ("shape", "classes", "outputs"),
    "scores": ("model", "weights", "mask", "batches", "loss", "generator"),
    "mask-rules": ("mask", "trained", "start", "groups", "generator"),
    "start-rules": ("mask", "trained", "start", "draw", "generator"),
}
ROLES = ("mask", "trained")  # those parameters of a rule that are stored artifacts, beside the trial's start
GROUPS = ("conv", "fc", "output", "shortcut")  # what a counted layer can be; see lth.models.groups
PRUNED = ("conv", "fc", "output")  # unless prune.groups says otherwise
CONTINUED = "continued"  # the chain of trainings that finds the masks of the strategy of that name


def choices(kind: str) -> dict[str, Entry]:
    """The entries of a kind that an experiment may name."""
    return {name: e for name, e in KINDS[kind].items() if not isinstance(e, Rule) or e.control}


def word(kind: str) -> str:
    """One of a kind, as messages call it: "model" of "models"."""
    return {"branches": "branch", "strategies": "strategy"}.get(kind, kind.removesuffix("s")).replace("-", " ")


def unknown(kind: str, name: str, hint: str = "") -> str:
    """What to answer to a name that a kind does not have."""
    see = f"see `lth list {kind}`; {hint}" if hint else f"see `lth list {kind}`"
    return f"unknown {word(kind)} {shown(name)}{nearest(name, choices(kind))} ({see})"


def entry(kind: str, name: str, files: Mapping[str, str] | None = None) -> Entry:
    """The entry of a built-in name, or one made for FILE.py:FUNCTION. Nothing of the user's is run.

    The names of a function's parameters are what it reads: a mask rule `def rule(mask, start, generator)` reads the
    ticket's mask. `GIVEN` lists the parameters of each kind; others need a default. `files` are the recorded checksums
    of the user's files (`Experiment.files`).
    Raises UsageError for an unknown name, and for a function that is missing or requires other parameters.
    """
    if name in KINDS[kind]:
        return KINDS[kind][name]
    if kind not in GIVEN or not userfile.is_custom(name):
        raise UsageError(unknown(kind, name))
    return _custom(kind, name, (files or {}).get(userfile.file_of(name)))


def _custom(kind: str, name: str, sha256: str | None) -> Entry:
    if kind == "models":  # a class or whatever else can be called: its file is read when it is built
        return Network(f"a custom {word(kind)}", name, sha256=sha256)
    signature = userfile.signature(name, sha256)
    userfile.check_parameters(name, signature.required, GIVEN[kind])
    about = signature.about or f"a custom {word(kind)}"
    if kind == "scores":
        return Score(about, name, tuple(p for p in signature.parameters if p in GIVEN[kind]), sha256=sha256)
    return Rule(about, name, tuple(p for p in signature.parameters if p in ROLES), control=True, sha256=sha256)
