"""What can be chosen, by kind and by name: one entry each.

`lth list`, the schema, error messages, the plan and the reference documentation are made from these entries. What does
the work is named by a string, "package.module:name", and imported when it is first used: listing loads no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class Entry:
    """One choice: what it is, in a line, and where it is implemented."""

    about: str
    make: str = ""

    def load(self) -> Any:
        """What implements it."""
        module, _, name = self.make.partition(":")
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


MODELS: dict[str, Network] = {
    "lenet": Network(
        "fully connected layers with ReLU: LeNet-300-100, or any other sizes",
        "lth.models.lenet:lenet",
        ("layers", "dropout"),
    ),
    "conv2": Network("Conv-2: 2 convolutions of 64 channels, 3 fully connected layers", "", ("dropout",)),
    "conv4": Network("Conv-4: 4 convolutions of 64 and 128 channels, 3 fully connected layers", "", ("dropout",)),
    "conv6": Network(
        "Conv-6 as the paper ran it: 6 convolutions of 64, 128 and 192 channels, 3 fully connected layers",
        "",
        ("dropout",),
    ),
    "conv6-256": Network("Conv-6 as the paper describes it: 256 channels in the third module", "", ("dropout",)),
    "resnet18": Network("the paper's Resnet-18, which is the CIFAR ResNet-20: 271,000 weights, batch norm"),
    "vgg19": Network("VGG-19 for CIFAR: 16 convolutions, batch norm, one fully connected layer"),
}
DATASETS: dict[str, Entry] = {
    "mnist": Entry("60,000 + 10,000 handwritten digits, 28 x 28 grey"),
    "fashion-mnist": Entry("60,000 + 10,000 pieces of clothing, 28 x 28 grey"),
    "cifar10": Entry("50,000 + 10,000 photographs of 10 kinds of things, 32 x 32 in colour"),
    "cifar100": Entry("50,000 + 10,000 photographs of 100 kinds of things, 32 x 32 in colour"),
}
SCORES: dict[str, Entry] = {
    "magnitude": Entry("|trained weight|: the paper's criterion", "lth.pruning.scores:magnitude"),
}
STRATEGIES: dict[str, Entry] = {
    "resetting": Entry("train, prune, reset to the start, repeat (the paper's strategy 1, used everywhere)"),
    "continued": Entry("train, prune, go on training; each level's mask is then reset and trained (Appendix B)"),
    "oneshot": Entry("prune the trained level 0 once, straight to each level's density (figure 4c)"),
}
MASK_RULES: dict[str, Rule] = {
    "ones": Rule("nothing pruned", "lth.pruning.rules:ones"),
    "given": Rule("the mask of the experiment's ticket file", "lth.pruning.rules:same", reads=("given",)),
    "prune": Rule(
        "what the previous training leaves after pruning", "lth.pruning.rules:pruned", reads=("mask", "trained")
    ),
    "ticket": Rule("the mask of the ticket at this level", "lth.pruning.rules:same", reads=("mask",), control=True),
    "random": Rule(
        "as many weights as the ticket in each layer, at random", "lth.pruning.rules:shuffled", ("mask",), control=True
    ),
    "initial": Rule(
        "as many weights as the ticket in each layer, the largest of the trial's start",
        "lth.pruning.rules:largest_at_start",
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
        "lth.pruning.starts:resampled",
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
OPTIMIZERS: dict[str, Entry] = {
    "adam": Entry("Adam"),
    "sgd": Entry("stochastic gradient descent"),
    "momentum": Entry("SGD with momentum"),
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
    "local": Entry("this machine: threads for the native engine, processes for torch on a CPU, one process per GPU"),
    "ray": Entry("a Ray cluster, or one that is started here; needs no shared file system (pip install 'lth[ray]')"),
    "slurm": Entry("jobs of a Slurm cluster, on a file system that its nodes share (pip install 'lth[slurm]')"),
    "torchrun": Entry("all processes that torchrun has started, on one training at a time"),
}
KINDS: dict[str, Mapping[str, Entry]] = {
    "models": MODELS,
    "datasets": DATASETS,
    "branches": BRANCHES,
    "scores": SCORES,
    "strategies": STRATEGIES,
    "optimizers": OPTIMIZERS,
    "measures": MEASURES,
    "executors": EXECUTORS,
}
GROUPS = ("conv", "fc", "output", "shortcut")  # what a counted layer can be; see lth.models.groups
PRUNED = ("conv", "fc", "output")  # unless prune.groups says otherwise
CONTINUED = "continued"  # the chain of trainings that finds the masks of the strategy of that name
