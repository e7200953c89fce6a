"""Every optimizer of a recipe is torch's own, in every engine; gradients are masked, then clipped, alike."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lth import models, native
from lth.config import Model, Recipe
from lth.config.registry import OPTIMIZERS
from lth.data import pixels
from lth.errors import UsageError
from lth.models import init
from lth.pruning import masks
from lth.training import native_engine
from lth.training.batches import batches
from lth.training.bfloat16 import kernels, updates
from lth.training.gradients import bits_of, clip_parameters, select_
from lth.training.learners import Float32
from lth.training.optimizers import optimizer_for, optimizer_named
from lth.training.torch_engine import TorchEngine

pytestmark = pytest.mark.usefixtures("one_thread")
needs_native = pytest.mark.skipif(not native.available(), reason=str(native.why_not()))
SHAPE, EXAMPLES, UPDATES = (3, 8, 8), 90, 8
GIVEN = [
    {"optimizer": "adam", "lr": 0.002, "weight_decay": 0.1},
    {"optimizer": "adamw", "lr": 0.002, "weight_decay": 0.5},
    {"optimizer": "sgd", "lr": 0.05},
    {"optimizer": "momentum", "lr": 0.02, "weight_decay": 0.1},
    {"optimizer": "nesterov", "lr": 0.02, "momentum": 0.8, "weight_decay": 0.1},
]


def recipe_of(given: dict[str, Any]) -> Recipe:
    return Recipe.model_validate({"iterations": 100, "batch": 30} | given)


def own_optimizer(recipe: Recipe, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """What a user of torch would write."""
    lr, decay, momentum = recipe.lr, recipe.weight_decay, recipe.momentum or 0.0
    return {
        "adam": lambda: torch.optim.Adam(parameters, lr, weight_decay=decay),
        "adamw": lambda: torch.optim.AdamW(parameters, lr, weight_decay=decay),
        "sgd": lambda: torch.optim.SGD(parameters, lr, weight_decay=decay),
        "momentum": lambda: torch.optim.SGD(parameters, lr, momentum, weight_decay=decay),
        "nesterov": lambda: torch.optim.SGD(parameters, lr, momentum, weight_decay=decay, nesterov=True),
    }[recipe.optimizer]()


def start_of(name: str) -> tuple[nn.Module, dict[str, Tensor], masks.Mask]:
    given = {"layers": (20, 12)} if name == "lenet" else {}
    network = models.build(Model.model_validate({"name": name} | given), SHAPE, 4)
    drawn = torch.Generator().manual_seed(1)
    start = init.draw(network, drawn)
    mask = {part: torch.rand(start[part].shape, generator=drawn) < 0.5 for part in models.groups(network)}
    return network, masks.apply(mask, start), mask


def examples() -> tuple[Tensor, Tensor]:
    drawn = torch.Generator().manual_seed(2)
    images = torch.randint(0, 256, (EXAMPLES, *SHAPE), generator=drawn, dtype=torch.uint8)
    return images, torch.randint(0, 4, (EXAMPLES,), generator=drawn)


def engine(kind: str, name: str, recipe: Recipe) -> Any:
    network, start, mask = start_of(name)
    images, labels = examples()
    if kind == "native":
        data = {"train": native.Dataset(images.reshape(EXAMPLES, -1).numpy(), labels.numpy())}
        return native_engine.NativeEngine(network, start, mask, recipe, data, ("key",), "cpu")
    recipe = recipe.model_copy(update={"precision": kind})
    return TorchEngine(network, start, mask, recipe, {"train": (images, labels)}, ("key",), "cpu")


def trained_by_torch(name: str, recipe: Recipe) -> dict[str, Tensor]:
    """The same training, written down with nothing but torch."""
    network, start, mask = start_of(name)
    network.load_state_dict(start)
    images, labels = examples()
    optimizer = own_optimizer(recipe, list(network.parameters()))
    for batch in batches(("key",), EXAMPLES, recipe.batch, 0, UPDATES):
        optimizer.zero_grad()
        cross_entropy(network(pixels(images[batch])), labels[batch]).backward()
        for part, layer in mask.items():
            network.get_parameter(part).grad.mul_(layer)
        if recipe.clip:
            nn.utils.clip_grad_norm_(network.parameters(), recipe.clip)
        optimizer.step()
    return {part: tensor.detach() for part, tensor in network.state_dict().items()}


@pytest.fixture(params=["float32", "bfloat16", "bfloat16 without kernels", pytest.param("native", marks=needs_native)])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "bfloat16" and kernels.core() is None:
        pytest.skip("the kernels are not built, or not for this processor")
    if "without" in request.param:
        monkeypatch.setattr(kernels, "core", lambda: None)
    return request.param.split()[0]


@pytest.mark.parametrize("clip", [None, 0.2])
@pytest.mark.parametrize("given", GIVEN, ids=lambda given: given["optimizer"])
def test_a_training_is_the_one_that_torch_does(kind: str, given: dict[str, Any], clip: float | None) -> None:
    recipe = recipe_of(given | {"clip": clip})
    name = "conv2" if kind == "bfloat16" else "lenet"
    found = engine(kind, name, recipe)
    found.advance(UPDATES)
    weights, wanted, start = found.weights(), trained_by_torch(name, recipe), start_of(name)[1]
    if kind == "bfloat16":  # its rounding decides the sign of small gradients, of which Adam makes full steps
        flat = lambda of: torch.cat([of[part].flatten() for part in wanted])
        assert (flat(weights) - flat(wanted)).norm() < 0.4 * (flat(wanted) - flat(start)).norm()
    else:
        torch.testing.assert_close(weights, wanted, rtol=1e-4, atol=1e-5)
    for part, layer in start_of(name)[2].items():
        assert not weights[part][~layer].any()


def test_an_optimizer_that_does_not_exist_is_refused(kind: str) -> None:
    recipe = recipe_of({"lr": 0.1}).model_copy(update={"optimizer": "adagrad"})
    with pytest.raises((UsageError, ValueError), match=r"adagrad.*; give one of: "):
        engine(kind, "conv2" if kind == "bfloat16" else "lenet", recipe)
    with pytest.raises(UsageError, match="unknown optimizer 'adagrad'"):
        optimizer_for(recipe, [nn.Parameter(torch.zeros(1))])
    with pytest.raises(UsageError, match="unknown optimizer 'adagrad'"):
        updates.slot(recipe, torch.zeros(1))
    with pytest.raises(ValueError, match="expected adam, adamw, sgd, momentum, nesterov"):
        recipe_of({"lr": 0.1, "optimizer": "adagrad"})


def test_the_kernels_know_every_optimizer_by_its_name() -> None:
    if kernels.core() is None:
        pytest.skip("the kernels are not built, or not for this processor")
    for name in OPTIMIZERS:
        kernels.core().Update(name, *range(8))
    with pytest.raises(ValueError, match='optimizer "adagrad" is unknown; give one of: sgd, momentum'):
        kernels.core().Update("adagrad", *range(8))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_has_the_moments_that_it_names(name: str) -> None:
    parameter = nn.Parameter(torch.ones(3))
    optimizer = optimizer_for(recipe_of({"lr": 0.1, "optimizer": name}), [parameter])
    parameter.grad = torch.ones(3)
    optimizer.step()
    state = optimizer.state[parameter]
    assert [key for key in state if key != "step" and state[key] is not None] == [*optimizer_named(name).moments]


def test_momentum_belongs_to_the_optimizers_that_have_it() -> None:
    assert recipe_of({"lr": 0.1, "optimizer": "nesterov"}).momentum == 0.9
    with pytest.raises(ValueError, match=r'recipe\.optimizer = "momentum" or "nesterov", but the optimizer is "adamw"'):
        recipe_of({"lr": 0.1, "optimizer": "adamw", "momentum": 0.9})


# ------------------------------------------------------------------------------------------------- masking and clipping


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_selection_keeps_survivors_and_nothing_of_the_rest(dtype: torch.dtype) -> None:
    gradient = torch.tensor([[1.5, torch.inf, -torch.inf], [torch.nan, -2.0, -0.0]], dtype=dtype)
    mask = torch.tensor([[True, False, False], [False, True, True]])
    for laid_out in (gradient.clone(), gradient.mT.contiguous().mT):
        select_(laid_out, bits_of(mask, laid_out))
        assert torch.equal(laid_out, torch.tensor([[1.5, 0, 0], [0, -2.0, 0]], dtype=dtype))


def test_sparse_gradients_are_selected_and_clipped_by_their_rows() -> None:
    embedding = nn.Embedding(5, 3, sparse=True)
    embedding(torch.tensor([1, 1, 3])).sum().backward()
    mask = torch.rand(5, 3, generator=torch.Generator().manual_seed(1)) < 0.5
    dense = embedding.weight.grad.to_dense() * mask
    select_(embedding.weight.grad, bits_of(mask, embedding.weight))
    assert torch.equal(embedding.weight.grad.to_dense(), dense)
    clip_parameters([embedding.weight], 0.1)
    torch.testing.assert_close(embedding.weight.grad.to_dense(), dense * 0.1 / dense.norm())


@pytest.mark.parametrize("clip", [None, 0.1])
@pytest.mark.parametrize("compiled", [True, False])
def test_an_infinite_gradient_of_a_pruned_weight_does_no_harm(
    compiled: bool, clip: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not compiled:
        monkeypatch.setattr(kernels, "core", lambda: None)
    recipe = recipe_of({"optimizer": "momentum", "lr": 0.1, "clip": clip})
    slot = updates.slot(recipe, torch.tensor([1.0, 0.0]), torch.tensor([True, False]))
    updates.step(recipe, 0.1, 1, [slot], [torch.tensor([0.05, torch.inf])])
    torch.testing.assert_close(slot.value, torch.tensor([0.995, 0.0]))


class Roots(nn.Module):
    """Logits with the square root of a weight in each: its gradient is infinite where the weight is pruned."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2, 2))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight[:, 0] + self.weight[:, 1].sqrt()


@pytest.mark.parametrize("clip", [None, 0.1])
def test_an_infinite_gradient_of_a_pruned_weight_does_no_harm_in_float32(clip: float | None) -> None:
    start = {"weight": torch.tensor([[1.0, 0.0], [0.5, 0.0]])}
    recipe = recipe_of({"optimizer": "momentum", "lr": 0.1, "clip": clip})
    learner = Float32(Roots(), start, {"weight": start["weight"] != 0}, recipe, "cpu")
    learner.update(torch.ones(4, 1), torch.tensor([0, 1, 1, 1]), 0.1)
    weight = learner.weights()["weight"]
    assert weight.isfinite().all() and not weight[:, 1].any() and not torch.equal(weight, start["weight"])
