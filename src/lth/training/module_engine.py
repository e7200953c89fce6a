"""The engine for any module, loss and metric. It trains the module in place, under the mask that the caller holds."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from lth.config import Recipe
from lth.data.parts import Part
from lth.errors import UsageError
from lth.models import load, tensors
from lth.pruning.masks import Weights
from lth.randomness import global_draws, seed_of
from lth.training.batches import EVALUATION_BATCH, Key, batches
from lth.training.learners import caller, sparse_gradients
from lth.training.losses import Measure, count, is_of_torch, of_nothing
from lth.training.optimizers import optimizer_for
from lth.training.update_loop import do_updates, step


class ModuleEngine:
    """One training of `model` from its present weights, which are those of iteration `begin`.

    `loss` is the mean over a batch. `metric` gets all outputs of a split at once; higher is better (default: minus the
    loss). A missing split evaluates to NaN.
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        data: Mapping[str, Part],
        loss: Measure,
        metric: Measure | None,
        key: Key,
        begin: int = 0,
    ) -> None:
        self.model, self.recipe, self.data, self.key = model, recipe, data, key
        self.loss, self.metric, self.call, self.iteration = loss, metric, caller(recipe), begin
        self.trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = optimizer_for(recipe, self.trained, fused=not sparse_gradients(model))
        self.device = self.trained[0].device

    @torch.enable_grad()
    def advance(self, until: int) -> None:
        """Do updates until iteration `until`, even inside torch.no_grad().

        Random numbers that the module draws are seeded by the training.
        """
        order = batches(self.key, self.data["train"].size, self.recipe.batch, self.iteration, until)
        examples = lambda batch: self._examples("train", batch)
        do_updates(self.model, self.recipe, self.key, self.iteration, order, examples, self._update, self.device)
        self.iteration = until

    def _examples(self, split: str, indices: Tensor) -> tuple[Tensor, Tensor]:
        x, y = self.data[split].batch(indices)
        return x.to(self.device), y.to(self.device)

    def _update(self, x: Tensor, y: Tensor, lr: float) -> None:
        outputs = self._outputs(x)
        loss = self.loss(outputs, y)
        if not isinstance(loss, Tensor) or loss.dim():
            raise UsageError("the loss has to be one number: the mean over the batch, as a tensor")
        if not is_of_torch(self.loss) and not count(self.loss, y):  # may divide 0 by 0
            loss = of_nothing(outputs)
        step(self.optimizer, loss, lr, self.recipe.clip)

    def _outputs(self, x: Tensor) -> Tensor:
        lower = self.recipe.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16) if lower else nullcontext():
            outputs = self.call(self.model, x)
        if not isinstance(outputs, Tensor):
            raise UsageError(
                f"the model returned {type(outputs).__name__}, expected a tensor; use lth.imp with a training "
                "function of your own"
            )
        return outputs.float() if lower else outputs

    @torch.no_grad()
    def evaluate(self, split: str) -> tuple[float, float]:
        """Loss and metric over a whole split; every example counts once, also in a smaller last batch."""
        if split not in self.data:
            return float("nan"), float("nan")
        part = self.data[split]
        self.model.eval()
        total, counted, outputs, targets = 0.0, 0, [], []
        with global_draws(self.device) as seed:
            seed(seed_of(*self.key, "evaluate", split))  # every evaluation draws the same random numbers
            for places in torch.arange(part.size).split(EVALUATION_BATCH):
                x, y = self._examples(split, places)
                computed = self._outputs(x)
                if of := count(self.loss, y):
                    total += float(self.loss(computed, y)) * of
                    counted += of
                if self.metric:
                    outputs.append(computed)
                    targets.append(y)
        loss = total / counted if counted else float("nan")
        return loss, float(self.metric(torch.cat(outputs), torch.cat(targets))) if self.metric else -loss

    def weights(self) -> dict[str, Tensor]:
        return tensors(self.model)

    def set_weights(self, weights: Weights) -> None:
        load(self.model, weights)

    def state(self) -> dict[str, Tensor]:
        """Not supported: a training in the user's own process is not resumed."""
        return {}

    def moments(self) -> dict[str, Tensor]:
        """Not supported, like `state`."""
        return {}

    def restore(self, state: Mapping[str, Tensor], iteration: int) -> None:
        raise NotImplementedError("a training in the user's own process is not resumed")
