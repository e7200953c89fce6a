"""The registry of everything that can be chosen by name: one entry each.

`lth list`, the schema, error messages, the plan and the reference documentation are generated from these entries. An
entry names its implementation by a string, "package.module:name", which is imported on first use: listing loads no
torch.
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
    """One choice: its description in one line, and where it is implemented.

    `make` is "package.module:name", or FILE.py:FUNCTION of the user, whose recorded checksum is `sha256`.
    `title` is its name in the description of an experiment.
    """

    about: str
    make: str = ""
    title: str = field(default="", kw_only=True)
    sha256: str | None = field(default=None, kw_only=True)

    def load(self) -> Any:
        """Import the implementation. Raises UsageError if a user's file is missing, not approved, changed, or fails."""
        module, _, name = self.make.rpartition(":")
        if module.endswith(".py"):
            return userfile.function(self.make, self.sha256)
        return getattr(import_module(module), name)


@dataclass(frozen=True)
class Rule(Entry):
    """A mask rule or a start rule.

    `reads` names the roles of the stored artifacts that it reads, in addition to the trial's start: "mask" (a ticket's
    mask), "trained" (trained weights), "given" (the experiment's ticket file). A branch may name a rule with `control`.
    `options` are the settings of a branch that it accepts.
    """

    reads: tuple[str, ...] = ()
    control: bool = False
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Score(Entry):
    """A score that ranks weights; `reads` names the values of `GIVEN["scores"]` that it takes."""

    reads: tuple[str, ...] = ("weights",)


@dataclass(frozen=True)
class Control(Entry):
    """A branch by name: its mask rule and its start rule."""

    mask: str = ""
    start: str = ""


@dataclass(frozen=True)
class Measure(Entry):
    """A measure: a function from a run's folder, its experiment and the stored table to the whole table.

    `options` are its other keyword parameters. `draw` makes figures of a run, by name.
    """

    options: tuple[str, ...] = ()
    draw: str = ""


@dataclass(frozen=True)
class Network(Entry):
    """A model and the keys of [model] that it accepts, in addition to its name."""

    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Dataset(Entry):
    """A dataset, with its number of training examples including those set aside for validation."""

    examples: int = 0


@dataclass(frozen=True)
class Task(Entry):
    """The kind of the targets, and how networks are judged.

    `make` is its `lth.training.losses.Objective`, `metric` the name of its `lth.results.metrics.Metric`, and `loss` the
    name of its loss. `compiled`: whether the native engine supports it.
    """

    metric: str = "accuracy"
    loss: str = ""
    compiled: bool = False


@dataclass(frozen=True)
class RecipePart(Entry):
    """An optimizer or a schedule, and the keys of [recipe] that it accepts and others refuse."""

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
        "60,000 + 10,000 photographs of clothing, 28 x 28 grey", examples=60_000, title="Fashion-MNIST"
    ),
    "cifar10": Dataset(
        "50,000 + 10,000 photographs of 10 classes, 32 x 32 in colour", examples=50_000, title="CIFAR-10"
    ),
    "cifar100": Dataset(
        "50,000 + 10,000 photographs of 100 classes, 32 x 32 in colour", examples=50_000, title="CIFAR-100"
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
        "train, prune, continue training; each level's mask is then reset and trained (Appendix B)",
        title="iterative pruning with continued training",
    ),
    "oneshot": Entry(
        "prune the trained level 0 once, directly to each level's density (figure 4c)",
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
        "the mask after pruning the previous training", "lth.pruning.rules:pruned", reads=("mask", "trained")
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
    "trained": Rule("the trained weights of the previous training", "lth.pruning.starts:trained", reads=("trained",)),
    "noise": Rule(
        "the trial's start plus Gaussian noise on surviving weights, `sigma` times the initialisation's",
        "lth.pruning.starts:noisy",
        control=True,
        options=("sigma",),
    ),
    "sampled": Rule(
        "each layer's surviving weights, drawn with replacement from their values in the trial's start",
        "lth.pruning.starts:sampled",
        control=True,
    ),
}
BRANCHES: dict[str, Control] = {
    "reinit": Control("the ticket's mask with new weights: does the start matter?", mask="ticket", start="fresh"),
    "random-mask": Control(
        "the trial's start under a random mask with equal counts: does the mask matter?", mask="random", start="trial"
    ),
    "noise": Control(
        "the ticket with noise of N sigma on its start (such as noise-0.5): how exact must the start be?",
        mask="ticket",
        start="noise",
    ),
    "sampled": Control(
        "the ticket's mask with each layer's start values drawn from its own: does their place matter?",
        mask="ticket",
        start="sampled",
    ),
    "prune-at-0": Control(
        "the largest weights of the start, as many per layer as in the ticket: is training needed to find the mask?",
        mask="initial",
        start="trial",
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
    "steps": RecipePart("constant, divided by 10 at each of `drops`", "lth.training.schedule:steps", ("drops",)),
    "cosine": RecipePart("cosine decay from the full rate to 0", "lth.training.schedule:cosine"),
    "linear": RecipePart("linear decay from the full rate to 0", "lth.training.schedule:linear"),
}
MEASURES: dict[str, Measure] = {
    "anatomy": Measure(
        "contents of each ticket by layer: weights, dead units, connections per pixel, initial values of survivors",
        "lth.measures.anatomy:compute",
        options=("trials", "levels"),
        draw="lth.measures.figures:layers",
    ),
    "movement": Measure(
        "how far weights move from their start while the unpruned network trains, inside and outside a ticket",
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
        "a Ray cluster, existing or started on this machine, without a shared file system (pip install 'lth[ray]')",
        "lth.execution.executors.ray:executor",
    ),
    "slurm": Entry(
        "jobs of a Slurm cluster with a shared file system (pip install 'lth[slurm]')",
        "lth.execution.executors.slurm:executor",
    ),
    "torchrun": Entry(
        "all processes of torchrun together, one training at a time",
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
# kinds that functions of the user can extend, and their possible parameters
GIVEN: dict[str, tuple[str, ...]] = {
    "models": ("shape", "classes", "outputs"),
    "scores": ("model", "weights", "mask", "batches", "loss", "generator"),
    "mask-rules": ("mask", "trained", "start", "groups", "generator"),
    "start-rules": ("mask", "trained", "start", "draw", "generator"),
}
ROLES = ("mask", "trained")  # the parameters of a rule that are stored artifacts, in addition to the trial's start
GROUPS = ("conv", "fc", "output", "shortcut")  # the kinds of counted layers; see lth.models.groups
PRUNED = ("conv", "fc", "output")  # by default, without prune.groups
CONTINUED = "continued"  # the chain of trainings that finds the masks of this strategy


def choices(kind: str) -> dict[str, Entry]:
    """The entries of a kind that an experiment may name."""
    return {name: e for name, e in KINDS[kind].items() if not isinstance(e, Rule) or e.control}


def word(kind: str) -> str:
    """The singular of a kind for messages: "model" for "models"."""
    return {"branches": "branch", "strategies": "strategy"}.get(kind, kind.removesuffix("s")).replace("-", " ")


def unknown(kind: str, name: str, hint: str = "") -> str:
    """The message for a name that a kind does not have."""
    see = f"see `lth list {kind}`; {hint}" if hint else f"see `lth list {kind}`"
    return f"unknown {word(kind)} {shown(name)}{nearest(name, choices(kind))} ({see})"


def entry(kind: str, name: str, files: Mapping[str, str] | None = None) -> Entry:
    """The entry of a built-in name, or one for FILE.py:FUNCTION. Runs no code of the user.

    The names of a function's parameters are the roles that it reads: a mask rule `def rule(mask, start, generator)`
    reads the ticket's mask. `GIVEN` lists the parameters of each kind; others need a default. `files` are the recorded
    checksums of the user's files (`Experiment.files`). Raises UsageError for an unknown name, and for a function that
    is missing or requires other parameters.
    """
    if name in KINDS[kind]:
        return KINDS[kind][name]
    if kind not in GIVEN or not userfile.is_custom(name):
        raise UsageError(unknown(kind, name))
    return _custom(kind, name, (files or {}).get(userfile.file_of(name)))


def _custom(kind: str, name: str, sha256: str | None) -> Entry:
    if kind == "models":  # a class or another callable, whose file is read when it is called
        return Network(f"a custom {word(kind)}", name, sha256=sha256)
    signature = userfile.signature(name, sha256)
    userfile.check_parameters(name, signature.required, GIVEN[kind])
    about = signature.about or f"a custom {word(kind)}"
    if kind == "scores":
        return Score(about, name, tuple(p for p in signature.parameters if p in GIVEN[kind]), sha256=sha256)
    return Rule(about, name, tuple(p for p in signature.parameters if p in ROLES), control=True, sha256=sha256)
