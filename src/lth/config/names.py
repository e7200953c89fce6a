"""The names of everything that can be chosen, and the nearest of them to one that does not exist.

The registries that implement them are held to these by a test, so that `lth list` and `lth show` need no torch.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any

MODELS = {
    "lenet": "fully connected layers with ReLU: LeNet-300-100, or any other sizes",
    "conv2": "Conv-2: 2 convolutions of 64 channels, 3 fully connected layers",
    "conv4": "Conv-4: 4 convolutions of 64 and 128 channels, 3 fully connected layers",
    "conv6": "Conv-6 as the paper ran it: 6 convolutions of 64, 128 and 192 channels, 3 fully connected layers",
    "conv6-256": "Conv-6 as the paper describes it: 256 channels in the third module",
    "resnet18": "the paper's Resnet-18, which is the CIFAR ResNet-20: 271,000 weights, batch norm",
    "vgg19": "VGG-19 for CIFAR: 16 convolutions, batch norm, one fully connected layer",
    "vit": "a small Vision Transformer: 6 blocks of width 64 and 4 heads on patches of 4 x 4 pixels, 200,000 weights",
}
MODEL_OPTIONS = {  # the keys of [model] that do something, beside its name
    "lenet": {"layers", "dropout"},
    "conv2": {"dropout"},
    "conv4": {"dropout"},
    "conv6": {"dropout"},
    "conv6-256": {"dropout"},
    "resnet18": set[str](),
    "vgg19": set[str](),
    "vit": {"dropout"},
}
GROUPS = ("conv", "fc", "output", "shortcut")  # what a counted layer can be; see lth.models.groups
PRUNED = ("conv", "fc", "output")  # unless prune.groups says otherwise
DATASETS = {
    "mnist": "60,000 + 10,000 handwritten digits, 28 x 28 grey",
    "fashion-mnist": "60,000 + 10,000 pieces of clothing, 28 x 28 grey",
    "cifar10": "50,000 + 10,000 photographs of 10 kinds of things, 32 x 32 in colour",
    "cifar100": "50,000 + 10,000 photographs of 100 kinds of things, 32 x 32 in colour",
}
SCORES = {"magnitude": "|trained weight|: the paper's criterion"}
STRATEGIES = {
    "resetting": "train, prune, reset to the start, repeat (the paper's strategy 1, used everywhere)",
    "continued": "train, prune, go on training; each level's mask is then reset and trained (strategy 2, Appendix B)",
    "oneshot": "prune the trained level 0 once, straight to each level's density (figure 4c)",
}
MASK_RULES = {
    "ones": "nothing pruned",
    "given": "the mask of the experiment's ticket file",
    "prune": "what the training that it needs leaves after pruning",
    "ticket": "the mask of the ticket at this level",
    "random": "as many weights as the ticket in each layer, at random",
    "initial": "as many weights as the ticket in each layer, the largest of the trial's start",
}
START_RULES = {
    "trial": "the trial's start",
    "fresh": "drawn anew from the initialisation's distribution",
    "trained": "where the training that it needs ended",
    "noise": "the trial's start, with Gaussian noise of `sigma` times the initialisation's on what survives",
    "sampled": "each layer's survivors drawn with replacement from their own values in the trial's start",
}
BRANCHES = {  # name -> (mask rule, start rule, what it controls for)
    "reinit": ("ticket", "fresh", "the ticket's mask, weights drawn anew: is it the start that wins?"),
    "random-mask": ("random", "trial", "the trial's start under a random mask of the same counts: is it the mask?"),
    "noise": ("ticket", "noise", "the ticket, noise of N sigma on its start (say noise-0.5): how exact must it be?"),
    "sampled": ("ticket", "sampled", "the ticket's mask, each layer's starts drawn from its own: do their values do?"),
    "prune-at-0": ("initial", "trial", "the start's largest weights, as many as the ticket's: why train?"),
}
CONTINUED = "continued"  # the chain of trainings that finds the masks of the strategy of that name


def sigma_in(name: str) -> float | None:
    """The sigma that a branch's name says, so that several can stand side by side: 0.5 of `noise-0.5`; else None."""
    said = re.fullmatch(r"noise-([0-9]{1,9}(?:\.[0-9]{1,9})?)", name)
    return float(said[1]) if said else None


def is_own(model: str) -> bool:
    """Whether a model's name is a network of one's own: `FILE.py:FUNCTION`."""
    return ":" in model


def is_path(dataset: str) -> bool:
    """Whether a dataset's name is meant as a place on disk: it has a slash or a file's ending."""
    return "/" in dataset or dataset.lower().endswith(".npz")


def nearest(name: str, names: Iterable[str]) -> str:
    """ "; did you mean X?" where something near exists, else nothing."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def nearest_key(key: str, known: Iterable[str]) -> str:
    """The same for a key, of which the table may have been left out: for `lr`, "; did you mean 'recipe.lr'?"."""
    whole = {name.rpartition(".")[2]: name for name in reversed(list(known))}
    close = [] if "." in key else difflib.get_close_matches(key, whole, n=1, cutoff=0.7)
    return f"; did you mean {whole[close[0]]!r}?" if close else nearest(key, known)


def known_name(kind: str, name: str, names: Iterable[str], command: str, hint: str = "") -> str:
    if name not in names:
        see = f"see `{command}`; {hint}" if hint else f"see `{command}`"
        raise ValueError(f"unknown {kind} {shown(name)}{nearest(name, names)} ({see})")
    return name


def shown(value: Any) -> str:
    """A value as a message shows it: on one line, and not longer than one."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}...{text[-10:]}"
