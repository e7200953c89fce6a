"""The weights and optimizer of a training, with update and prediction: one class per precision."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor, nn

from lth.config import Recipe
from lth.errors import UsageError
from lth.pruning.masks import Mask, Weights
from lth.training.bfloat16 import updates
from lth.training.bfloat16.lowering import lower
from lth.training.gradients import bits_of, select_
from lth.training.losses import CLASSIFICATION, Objective
from lth.training.optimizers import optimizer_for, optimizer_named
from lth.training.update_loop import step

# The optimizer's tensors in a form that all engines share: PARAMETER/MOMENT -> a tensor of the parameter's shape,
# and "count", the number of updates, if the optimizer's steps depend on it.
Moments = Mapping[str, Tensor]


class Learner(Protocol):
    """The weights of one training and their optimizer, on a device."""

    module: nn.Module  # the module that computes; the engine sets its mode and the counters of its dropout layers

    def update(self, x: Tensor, y: Tensor, lr: float) -> Tensor: ...  # does one update; returns the loss before it
    def outputs(self, x: Tensor) -> Tensor: ...  # float32
    def weights(self) -> dict[str, Tensor]: ...
    def set_weights(self, weights: Weights) -> None: ...
    def state(self) -> dict[str, Tensor]: ...  # the optimizer's tensors
    def restore(self, state: Mapping[str, Tensor], iteration: int) -> None: ...
    def moments(self) -> dict[str, Tensor]: ...  # see `Moments`
    def set_moments(self, moments: Moments) -> None: ...


def call(network: nn.Module, x: Tensor) -> Tensor:
    return network(x)


@lru_cache(maxsize=1)
def _compiled() -> Callable[[nn.Module, Tensor], Tensor]:
    """`call` compiled by torch, once per process, so that equal networks share one compilation."""
    return torch.compile(call, dynamic=False)


def caller(recipe: Recipe) -> Callable[[nn.Module, Tensor], Tensor]:
    return _compiled() if recipe.compile else call


def sparse_gradients(model: nn.Module) -> bool:
    """Return whether the network has embeddings with sparse gradients."""
    return any(getattr(module, "sparse", False) for module in model.modules())


class Float32:
    """The network itself in float32: the reference for faster implementations."""

    def __init__(
        self, model: nn.Module, start: Weights, mask: Mask, recipe: Recipe, device: str,
        objective: Objective = CLASSIFICATION,
    ) -> None:  # fmt: skip
        self.loss = objective.mean
        self.module, self.call, self.recipe = model.to(device), caller(recipe), recipe
        self.module.load_state_dict(dict(start))
        self.parameters = dict(self.module.named_parameters())
        self.optimizer = optimizer_for(recipe, list(self.parameters.values()), fused=not sparse_gradients(model))
        self.bits = {name: bits_of(layer, self.parameters[name]) for name, layer in mask.items()}
        self.masked = [(self.parameters[name], bits) for name, bits in self.bits.items()]

    def update(self, x: Tensor, y: Tensor, lr: float) -> Tensor:
        loss = self.loss(self.outputs(x), y)
        self.step(loss, lr)
        return loss.detach()

    def step(self, loss: Tensor, lr: float) -> None:
        """One optimizer step by the gradient of a loss."""
        step(self.optimizer, loss, lr, self.recipe.clip, self.masked)

    def outputs(self, x: Tensor) -> Tensor:
        return self.call(self.module, x)

    def weights(self) -> dict[str, Tensor]:
        return {name: tensor.detach().cpu().clone() for name, tensor in self.module.state_dict().items()}

    def set_weights(self, weights: Weights) -> None:
        self.module.load_state_dict(dict(weights))

    def state(self) -> dict[str, Tensor]:
        entries = self.optimizer.state_dict()["state"]
        tensors = {f"{index}/{key}": tensor for index, entry in entries.items() for key, tensor in entry.items()}
        return {key: tensor.detach().cpu().clone() for key, tensor in tensors.items() if tensor is not None}

    def restore(self, state: Mapping[str, Tensor], iteration: int) -> None:
        entries: dict[int, dict[str, Tensor]] = {}
        for name, tensor in state.items():
            index, key = name.split("/")
            entries.setdefault(int(index), {})[key] = tensor
        self._check(entries)
        self._load(entries)

    def _check(self, entries: Mapping[int, Mapping[str, Tensor]]) -> None:
        """Raise ValueError if a stored state does not belong to this optimizer; torch would accept any and read beyond
        it.
        """
        parameters, moments = list(self.parameters.values()), {*optimizer_named(self.recipe.optimizer).moments}
        counts = {"step"} if "exp_avg" in moments else set()
        for index, entry in entries.items():
            if not 0 <= index < len(parameters) or entry.keys() - {"step"} != moments or not counts <= entry.keys():
                raise ValueError(f"the optimizer's state of parameter {index} belongs to another optimizer")
            like = parameters[index]
            if any(entry[key].shape != like.shape or entry[key].dtype != like.dtype for key in moments):
                raise ValueError(f"the optimizer's state of parameter {index} has another shape or type")
            step = entry.get("step")
            if step is not None and (step.numel() != 1 or not 0 <= float(step) < 2**53):
                raise ValueError(f"the optimizer's count of parameter {index} is not a number of updates")

    def moments(self) -> dict[str, Tensor]:
        entries, names = self.optimizer.state_dict()["state"], list(self.parameters)
        keys = optimizer_named(self.recipe.optimizer).moments
        tensors = {f"{names[index]}/{key}": entry[key] for index, entry in entries.items() for key in keys}
        count = max((int(entry["step"]) for entry in entries.values() if "step" in entry), default=0)
        return {n: tensor.detach().cpu().clone() for n, tensor in tensors.items()} | {"count": torch.tensor(count)}

    def set_moments(self, moments: Moments) -> None:
        keys = optimizer_named(self.recipe.optimizer).moments
        entries = {index: self._entry(moments, name, keys) for index, name in enumerate(self.parameters)}
        self._load({index: entry for index, entry in entries.items() if entry})

    def _entry(self, moments: Moments, name: str, keys: tuple[str, ...]) -> dict[str, Tensor]:
        """The part of a torch optimizer's state for a parameter; empty if the parameter never had a gradient."""
        others = {gathered.rpartition("/")[0] for gathered in moments} & self.parameters.keys()
        if others and name not in others:
            return {}
        entry = {key: moment_of(moments, name, key).clone() for key in keys}
        for moment in entry.values() if name in self.bits else ():
            select_(moment, self.bits[name].cpu())
        return entry and entry | {"step": moments["count"].float()}

    def _load(self, entries: dict[int, dict[str, Tensor]]) -> None:
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": entries, "param_groups": groups})


class Bfloat16:
    """The network in bfloat16. Trained weights are float32; an update writes both, so that no use converts them."""

    def __init__(
        self, model: nn.Module, start: Weights, mask: Mask, recipe: Recipe, device: str,
        objective: Objective = CLASSIFICATION,
    ) -> None:  # fmt: skip
        self.loss = objective.mean
        kernels_too = not recipe.compile  # torch.compile cannot trace them
        self.lowered, self.recipe, self.count = lower(model, device, mask, kernels_too), recipe, 0
        self.module, self.call = self.lowered.module, caller(recipe)
        self.buffers, self.order = dict(self.module.named_buffers()), list(model.state_dict())
        self.slots = {
            name: self._slot(name, parameter.data, mask.get(name))
            for name, parameter in self.lowered.parameters.items()
        }
        self.set_weights(start)

    def _slot(self, name: str, used: Tensor, mask: Tensor | None) -> updates.Slot:
        if mask is not None:  # not applied in each update if it prunes none of the stored weights
            arranged = self.lowered.arranged(name, mask)
            mask = None if arranged.all() else torch.empty_like(used, dtype=torch.bool).copy_(arranged)
        if used.dtype == torch.float32:
            return updates.slot(self.recipe, used, mask)
        return updates.slot(self.recipe, torch.empty_like(used, dtype=torch.float32), mask, copy=used)

    def update(self, x: Tensor, y: Tensor, lr: float) -> Tensor:
        loss = self.loss(self.outputs(x), y)
        loss.backward()
        self.count += 1
        gradients = {n: p.grad for n, p in self.lowered.parameters.items() if p.grad is not None}
        updates.step(self.recipe, lr, self.count, [self.slots[name] for name in gradients], list(gradients.values()))
        self.module.zero_grad()
        return loss.detach()

    def outputs(self, x: Tensor) -> Tensor:
        layout = torch.channels_last if x.dim() == 4 else torch.preserve_format
        return self.call(self.module, x.to(torch.bfloat16, memory_format=layout)).float()

    def weights(self) -> dict[str, Tensor]:
        tensors = self._standard(lambda slot: slot.value) | {n: t.cpu().clone() for n, t in self.buffers.items()}
        return {name: tensors[name] for name in self.order}

    def set_weights(self, weights: Weights) -> None:
        for name, slot in self.slots.items():
            slot.value.copy_(self.lowered.arranged(name, weights[name]))
            if slot.copy is not None:
                slot.copy.copy_(slot.value)
        for name, buffer in self.buffers.items():
            buffer.copy_(weights[name])

    def state(self) -> dict[str, Tensor]:
        return self.moments()

    def restore(self, state: Mapping[str, Tensor], iteration: int) -> None:
        """Restore a state. States of version 0.1 have no count: all updates were done by this optimizer."""
        self.set_moments({"count": torch.tensor(iteration)} | dict(state))

    def moments(self) -> dict[str, Tensor]:
        keys = optimizer_named(self.recipe.optimizer).moments
        parts = [self._standard(lambda slot, n=n: slot.moments[n], f"/{key}") for n, key in enumerate(keys)]
        return {name: tensor for part in parts for name, tensor in part.items()} | {"count": torch.tensor(self.count)}

    def set_moments(self, moments: Moments) -> None:
        self.count = int(moments["count"])
        for name, slot in self.slots.items():
            for moment, key in zip(slot.moments, optimizer_named(self.recipe.optimizer).moments, strict=True):
                moment.copy_(self.lowered.arranged(name, moment_of(moments, name, key)))
                if slot.bits is not None:
                    select_(moment, slot.bits)

    def _standard(self, of: Callable[[updates.Slot], Tensor], ending: str = "") -> dict[str, Tensor]:
        """One tensor per parameter in the network's layout: copies on the CPU."""
        return {name + ending: self.lowered.standard(name, of(slot)).cpu().clone() for name, slot in self.slots.items()}


def moment_of(moments: Moments, name: str, key: str) -> Tensor:
    """A moment of the parameter `name`. Raises UsageError if it does not exist."""
    try:
        return moments[f"{name}/{key}"]
    except KeyError:
        raise UsageError(
            f"the optimizer's state has no {key} of {name}: it was written by another optimizer or for another model"
        ) from None


LEARNERS: dict[str, Callable[..., Learner]] = {"float32": Float32, "bfloat16": Bfloat16}
