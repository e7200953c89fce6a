"""The torch engine: any module, any device; the reference for faster engines."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from lth.config import Recipe
from lth.data import Splits, pixels
from lth.pruning.masks import Mask, Weights
from lth.randomness import global_draws, seed_of
from lth.training.batches import EVALUATION_BATCH, Key, batches
from lth.training.learners import LEARNERS, Learner, Moments
from lth.training.losses import CLASSIFICATION, Objective
from lth.training.precision import resolve
from lth.training.update_loop import do_updates

NAME = "torch"

Prepared = Mapping[str, tuple[Tensor, Tensor]]


def prepare(splits: Splits, device: str) -> Prepared:
    """The data on the device, once for all trainings: split -> (images as stored, labels)."""
    return {
        "train": (splits.train_x.to(device), splits.train_y.to(device)),
        "validation": (splits.val_x.to(device), splits.val_y.to(device)),
        "test": (splits.test_x.to(device), splits.test_y.to(device)),
    }


def on_device(indices: Tensor, device: torch.device) -> Tensor:
    """A copy on the device, made asynchronously."""
    return indices.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else indices


class TorchEngine:
    """One training of `model` from `start` under `mask`.

    `iteration` is that of the weights: `begin`, to which `start` belongs, plus the updates since. The optimizer is
    new unless `moments` are given.
    """

    def __init__(
        self, model: nn.Module, start: Weights, mask: Mask, recipe: Recipe, data: Prepared, key: Key, device: str,
        begin: int = 0, moments: Moments | None = None, objective: Objective = CLASSIFICATION,
        learner: Callable[..., Learner] | None = None,
    ) -> None:  # fmt: skip
        precision, _ = resolve(recipe.precision, model, device)
        self.learner = (learner or LEARNERS[precision])(model, start, mask, recipe, device, objective)
        self.objective = objective
        self.module = self.learner.module
        self.recipe, self.data, self.key, self.iteration = recipe, data, key, begin
        if moments is not None:
            self.learner.set_moments(moments)

    def advance(self, until: int) -> list[Tensor]:
        """Do updates until iteration `until`. Returns the loss before each update, as a tensor on the device."""
        images, labels = self.data["train"]
        order = batches(self.key, len(labels), self.recipe.batch, self.iteration, until)
        indices = on_device(torch.cat(order), labels.device).split([len(batch) for batch in order]) if order else ()
        examples = lambda batch: (pixels(images[batch]), labels[batch])
        losses = do_updates(
            self.module, self.recipe, self.key, self.iteration, indices, examples, self.learner.update, labels.device
        )
        self.iteration += len(losses)
        return losses

    def evaluate(self, split: str) -> tuple[float, float | None]:
        """Mean loss, and accuracy if the task has one; every example counts once, also in a smaller last batch."""
        return self.means(split, self.sums(split))

    @torch.no_grad()
    def sums(self, split: str, first: int = 0, step: int = 1) -> Tensor:
        """The summed loss and correct answers of a split, or of every `step`th batch of it from `first` on."""
        images, labels = self.data[split]
        self.module.eval()
        sums = torch.zeros(
            (2,), dtype=torch.float64, device=labels.device
        )  # read at the end, so that a GPU does not wait
        batches = list(zip(images.split(EVALUATION_BATCH), labels.split(EVALUATION_BATCH), strict=True))
        with global_draws(labels.device) as seed:
            seed(
                seed_of(*self.key, "evaluate", split)
            )  # a custom model may draw random numbers here: always the same ones
            for x, y in batches[first::step]:
                outputs = self.learner.outputs(pixels(x))
                sums[0] += self.objective.total(outputs, y)
                if self.objective.correct:
                    sums[1] += self.objective.correct(outputs, y)
        return sums

    def means(self, split: str, sums: Tensor) -> tuple[float, float | None]:
        """Mean loss, and accuracy if the task has one, from `sums`."""
        loss, correct = (total / len(self.data[split][1]) for total in sums.tolist())
        return loss, correct if self.objective.correct else None

    def weights(self) -> dict[str, Tensor]:
        """Copies of all parameters and buffers on the CPU, in the network's own layout."""
        return self.learner.weights()

    def set_weights(self, weights: Weights) -> None:
        self.learner.set_weights(weights)

    def state(self) -> dict[str, Tensor]:
        """Everything needed to resume except the iteration: weights, buffers, and the optimizer's tensors."""
        state = {f"weights/{name}": tensor for name, tensor in self.weights().items()}
        return state | {f"optimizer/{name}": tensor for name, tensor in self.learner.state().items()}

    def moments(self) -> dict[str, Tensor]:
        """The optimizer's tensors by the network's names; see `Moments`."""
        return self.learner.moments()

    def restore(self, state: Mapping[str, Tensor], iteration: int) -> None:
        part = lambda prefix: {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        self.set_weights(part("weights/"))
        self.learner.restore(part("optimizer/"), iteration)
        self.iteration = iteration
