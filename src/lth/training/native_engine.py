"""The Python interface of the native engine: a chain of Linear and ReLU on the compiled core."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lth import native
from lth.config import Recipe
from lth.data import Splits
from lth.models.dropout import CounterDropout
from lth.pruning.masks import Mask, Weights
from lth.randomness import seed_of
from lth.training.batches import Key, batches
from lth.training.learners import Moments, moment_of
from lth.training.losses import CLASSIFICATION, Objective
from lth.training.optimizers import optimizer_named
from lth.training.schedule import lr_at

NAME = "native"

Prepared = Mapping[str, Any]  # split -> the core's Dataset


def chain(model: nn.Module) -> tuple[list[str], float] | None:
    """The names of the Linear layers and the dropout between them, if `model` is a chain that the core can train.

    That is an nn.Sequential of [Flatten,] Linear, ReLU [, CounterDropout], ..., Linear. None for any other model, and
    for one with other behaviour: an overridden forward, hooks, layers used twice, tied or frozen weights.
    """
    if type(model) is not nn.Sequential or not _is_plain(model):
        return None
    parts = list(model.named_children())
    if parts and type(parts[0][1]) is nn.Flatten:
        del parts[0]
    layers = [name for name, part in parts if isinstance(part, nn.Linear) and part.bias is not None]
    drops = {part.p for _, part in parts if isinstance(part, CounterDropout)}
    block = [nn.Linear, nn.ReLU] + [CounterDropout] * bool(drops)
    expected = block * (len(layers) - 1) + [nn.Linear]
    fits = len(drops) <= 1 and [type(part) for _, part in parts] == expected
    return (layers, drops.pop() if drops else 0.0) if fits else None


def _is_plain(model: nn.Sequential) -> bool:
    """Return whether a Sequential only calls its children in order and trains all their parameters, in float32."""
    flattens = [part for part in model if type(part) is nn.Flatten]
    parameters = list(model.named_parameters(remove_duplicate=False))
    hooked = lambda parameter: parameter._backward_hooks or parameter._post_accumulate_grad_hooks
    return (
        len(list(model.named_children())) == len(model)
        and len(list(model.parameters())) == len(parameters)
        and all(p.requires_grad and p.dtype == torch.float32 and not hooked(p) for _, p in parameters)
        and all((flatten.start_dim, flatten.end_dim) == (1, -1) for flatten in flattens)
        and not any("forward" in vars(module) for module in model.modules())
        and not any(
            module._forward_pre_hooks or module._forward_hooks or module._backward_hooks or module._backward_pre_hooks
            for module in model.modules()
        )
    )


def obstacle(recipe: Recipe, model: nn.Module, device: str) -> str | None:
    """Why this engine cannot train `model` with `recipe` on `device`; None if it can."""
    if device != "cpu":
        return f"the device is {device}"
    if recipe.augment:
        return "recipe.augment is set"
    if recipe.precision == "bfloat16":
        return "recipe.precision is bfloat16"
    if recipe.compile:
        return "recipe.compile is set"
    if not optimizer_named(recipe.optimizer).compiled:
        return f"recipe.optimizer is {recipe.optimizer}"
    if not native.available():
        return native.why_not()
    return None if chain(model) else "the network is not a chain of Linear and ReLU"


def prepare(splits: Splits, device: str) -> Prepared:
    """The data in the core's format, once for all trainings of this process and without a copy."""
    flat = lambda images, labels: native.Dataset(images.reshape(len(images), -1).numpy(), labels.numpy())
    return {
        "train": flat(splits.train_x, splits.train_y),
        "validation": flat(splits.val_x, splits.val_y),
        "test": flat(splits.test_x, splits.test_y),
    }


class NativeEngine:
    """One training of `model`, a chain, from `start` under `mask`; `begin` and `moments` are as for TorchEngine."""

    def __init__(
        self, model: nn.Module, start: Weights, mask: Mask, recipe: Recipe, data: Prepared, key: Key, device: str,
        begin: int = 0, moments: Moments | None = None, objective: Objective = CLASSIFICATION,
    ) -> None:  # fmt: skip
        if objective is not CLASSIFICATION:
            raise ValueError("the native engine trains classification only")
        facts = chain(model)
        if facts is None:
            raise ValueError("the native engine trains chains of Linear and ReLU only")
        self.layers, self.dropout = facts
        self.mask = {f"{name}.weight": mask[f"{name}.weight"].numpy() for name in self.layers}
        self.recipe, self.data, self.key, self.iteration = recipe, data, key, begin
        self.set_weights(start)
        if moments is not None:
            self._set_moments(moments)

    def set_weights(self, weights: Weights) -> None:
        """Continue from `weights` at the present iteration, with a new optimizer."""
        matrices = [weights[f"{name}.weight"] for name in self.layers]
        self.network = native.Network(
            sizes=[matrices[0].shape[1], *(matrix.shape[0] for matrix in matrices)],
            masks=[self.mask[f"{name}.weight"] for name in self.layers],
            weights=[matrix.numpy() for matrix in matrices],
            biases=[weights[f"{name}.bias"].numpy() for name in self.layers],
            optimizer=self.recipe.optimizer,
            momentum=self.recipe.momentum or 0.0,
            weight_decay=self.recipe.weight_decay,
            clip=self.recipe.clip or 0.0,
            dropout=self.dropout,
            dropout_key=seed_of(*self.key, "dropout"),
            iteration=self.iteration,
        )

    def advance(self, until: int) -> np.ndarray:
        """Do updates until iteration `until`. Returns the loss before each update."""
        order = batches(self.key, len(self.data["train"]), self.recipe.batch, self.iteration, until)
        losses = self.network.train(
            self.data["train"],
            torch.cat(order).numpy(),
            np.cumsum([len(batch) for batch in order]),
            np.array([lr_at(self.recipe, i) for i in range(self.iteration, until)]),
        )
        self.iteration = until
        return losses

    def evaluate(self, split: str) -> tuple[float, float]:
        """Mean loss and accuracy over a whole split."""
        loss, correct = self.network.evaluate(self.data[split])
        return loss, correct / len(self.data[split])

    def weights(self) -> dict[str, Tensor]:
        """Copies of all parameters, with pruned weights as 0."""
        weights: dict[str, Tensor] = {}
        for name, weight, bias in zip(self.layers, self.network.weights(), self.network.biases(), strict=True):
            weights |= {f"{name}.weight": torch.from_numpy(weight), f"{name}.bias": torch.from_numpy(bias)}
        return weights

    def state(self) -> dict[str, Tensor]:
        """Everything needed to resume except the iteration, for surviving weights only."""
        return {name: torch.from_numpy(np.asarray(array)) for name, array in self.network.state().items()}

    def moments(self) -> dict[str, Tensor]:
        """The optimizer's tensors by the network's names; see `Moments`."""
        state = self.state()
        moments = {name: self._whole(name, state[key]) for name, key in self._moment_keys()}
        return moments | {"count": state["updates"][0]}

    def _set_moments(self, moments: Moments) -> None:
        state = self.state() | {"updates": moments["count"].reshape(1)}
        for name, key in self._moment_keys():
            tensor, mask = moment_of(moments, *name.rsplit("/", 1)), self.mask.get(name.rsplit("/", 1)[0])
            state[key] = tensor if mask is None else tensor[torch.from_numpy(mask)]
        self.restore(state, self.iteration)

    def _moment_keys(self) -> list[tuple[str, str]]:
        """PARAMETER/MOMENT and the core's name of each moment."""
        return [
            (f"{layer}.{part}/{moment}", f"{moment}.{number}.{part}")
            for moment in optimizer_named(self.recipe.optimizer).moments
            for number, layer in enumerate(self.layers)
            for part in ("weight", "bias")
        ]

    def _whole(self, name: str, values: Tensor) -> Tensor:
        """A moment in the shape of its parameter, from the values of surviving weights."""
        mask = self.mask.get(name.rsplit("/", 1)[0])
        if mask is None:
            return values
        whole = torch.zeros(mask.shape)
        whole[torch.from_numpy(mask)] = values
        return whole

    def restore(self, state: Mapping[str, Tensor], iteration: int) -> None:
        self.network.load_state({name: tensor.numpy() for name, tensor in state.items()})
        self.iteration = iteration
