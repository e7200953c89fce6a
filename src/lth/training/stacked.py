"""Several trainings of one network at once, for devices that a single small network cannot fill.

Trials and branches of an experiment share the network, the recipe and the data; they differ in start, mask and order
of batches. Their parameters are stacked and every operation is done for the whole stack (torch.func), so a GPU gets one
large product in place of many small ones. Numbers agree with the torch engine's to rounding, not to the bit: a product
over a stack sums in another order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap
from torch.nn.functional import cross_entropy

from lth.config import Recipe
from lth.data import pixels
from lth.errors import UsageError
from lth.models.dropout import CounterDropout
from lth.pruning.masks import Mask, Weights
from lth.randomness import seed_of
from lth.training.augment import flip_and_crop
from lth.training.batches import Key, batches
from lth.training.bfloat16 import updates
from lth.training.schedule import lr_at
from lth.training.torch_engine import EVALUATION_BATCH, Prepared, on_device

Stack = dict[str, Tensor]  # name -> [trainings, ...]


def obstacle(model: nn.Module) -> str | None:
    """Why trainings of `model` cannot be stacked, in a clause; None where they can."""
    if any(True for _ in model.buffers()):
        return "the network has buffers, such as batch norm's statistics"
    if any(isinstance(module, CounterDropout) for module in model.modules()):
        return "the network has dropout, which each training draws for itself"
    return None


class StackedEngine:
    """As many trainings of `model` as there are starts, masks and keys, in float32; `iteration` is that of them all.

    Raises UsageError for a network that cannot be stacked (`obstacle` says which).
    """

    def __init__(
        self, model: nn.Module, starts: Sequence[Weights], masks: Sequence[Mask], recipe: Recipe, data: Prepared,
        keys: Sequence[Key], device: str,
    ) -> None:  # fmt: skip
        if why := obstacle(model):
            raise UsageError(f"these trainings cannot be stacked: {why}; train them one by one")
        self.model, self.recipe, self.data, self.keys, self.iteration = model.to(device), recipe, data, keys, 0
        stack = {name: torch.stack([start[name] for start in starts]).to(device) for name in starts[0]}
        alive = {name: torch.stack([mask[name] for mask in masks]).to(device) for name in masks[0]}
        self.slots = {name: updates.slot(recipe, tensor, alive.get(name)) for name, tensor in stack.items()}
        self._gradients = vmap(grad_and_value(self._loss))
        self._outputs = vmap(self._call, in_dims=(0, None))

    @property
    def stack(self) -> Stack:
        return {name: slot.value for name, slot in self.slots.items()}

    def _call(self, weights: Stack, x: Tensor) -> Tensor:
        return functional_call(self.model, weights, (x,))

    def _loss(self, weights: Stack, x: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(self._call(weights, x), y)

    def advance(self, until: int) -> list[Tensor]:
        """Do updates until `until` are done; the losses of each, before its update: [trainings] on the device."""
        images, labels = self.data["train"]
        if until <= self.iteration:
            return []
        orders = [batches(key, len(labels), self.recipe.batch, self.iteration, until) for key in self.keys]
        sizes = [len(batch) for batch in orders[0]]
        together = on_device(torch.stack([torch.cat(order) for order in orders]), labels.device)
        augment_keys = [seed_of(*key, "augment") for key in self.keys]
        losses = []
        self.model.train()
        for batch in together.split(sizes, dim=1):
            x = pixels(images[batch])
            if self.recipe.augment:
                x = torch.stack([flip_and_crop(of, k, self.iteration) for of, k in zip(x, augment_keys, strict=True)])
            gradients, loss = self._gradients(self.stack, x, labels[batch])
            lr, count = lr_at(self.recipe, self.iteration), self.iteration + 1
            updates.step(self.recipe, lr, count, list(self.slots.values()), [gradients[name] for name in self.slots])
            losses.append(loss)
            self.iteration = count
        return losses

    @torch.no_grad()
    def evaluate(self, split: str) -> list[tuple[float, float]]:
        """Mean loss and accuracy over a whole split, of each training."""
        images, labels = self.data[split]
        self.model.eval()
        loss, correct = torch.zeros((2, len(self.keys)), dtype=torch.float64, device=labels.device)
        summed = vmap(lambda outputs, y: cross_entropy(outputs, y, reduction="sum"), in_dims=(0, None))
        for x, y in zip(images.split(EVALUATION_BATCH), labels.split(EVALUATION_BATCH), strict=True):
            outputs = self._outputs(self.stack, pixels(x))
            loss += summed(outputs, y)
            correct += (outputs.argmax(2) == y).sum(1)
        return list(zip((loss / len(labels)).tolist(), (correct / len(labels)).tolist(), strict=True))

    def weights(self) -> list[dict[str, Tensor]]:
        """Copies of the parameters of each training, on the CPU."""
        return [{name: t[n].cpu().clone() for name, t in self.stack.items()} for n in range(len(self.keys))]

    def set_weights(self, weights: Sequence[Weights]) -> None:
        for name, value in self.stack.items():
            value.copy_(torch.stack([of[name] for of in weights]))

    def state(self) -> dict[str, Tensor]:
        """All that going on needs, beside the iteration: every tensor is of the whole stack."""
        found = {f"weights/{name}": slot.value.cpu().clone() for name, slot in self.slots.items()}
        for name, slot in self.slots.items():
            found |= {f"optimizer/{name}/{n}": moment.cpu().clone() for n, moment in enumerate(slot.moments)}
        return found

    def restore(self, state: Mapping[str, Tensor], iteration: int) -> None:
        for name, slot in self.slots.items():
            slot.value.copy_(state[f"weights/{name}"])
            for n, moment in enumerate(slot.moments):
                moment.copy_(state[f"optimizer/{name}/{n}"])
        self.iteration = iteration
