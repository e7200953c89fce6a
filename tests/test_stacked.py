"""Trainings in a stack do what they do alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lth import config, models
from lth.config import Model
from lth.data import Splits
from lth.errors import UsageError
from lth.models.init import draw
from lth.pruning import masks
from lth.training.stacked import StackedEngine
from lth.training.torch_engine import TorchEngine, prepare

CASES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"name": "lenet", "layers": [12, 8]}, {"optimizer": "adam"}),
    ({"name": "lenet", "layers": [12, 8]}, {"optimizer": "sgd", "lr": 0.1, "warmup": 10, "drops": [15]}),
    ({"name": "conv2"}, {"optimizer": "momentum", "weight_decay": 0.01, "augment": True, "batch": 100}),
]
COUNT = 3


def splits() -> Splits:
    drawn = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (300, 1, 8, 8), dtype=torch.uint8, generator=drawn)
    labels = (images.float().mean((1, 2, 3)) > 127).long()
    parts = [(images[a:b], labels[a:b]) for a, b in ((0, 170), (170, 230), (230, 300))]
    return Splits(*(tensor for part in parts for tensor in part))


def engines(
    model: dict[str, Any], recipe: dict[str, Any], device: str = "cpu"
) -> tuple[StackedEngine, list[TorchEngine]]:
    """A stack of three trainings, at densities 1, 0.5 and 0.2, and the same three one by one, on the CPU."""
    tables = {"name": "stack", "recipe": {"lr": 0.005, "iterations": 40, "batch": 50, "precision": "float32"} | recipe}
    experiment = config.resolve(tables | {"model": model, "data": {"name": "./none.npz"}})
    build = lambda: models.build(experiment.model, (1, 8, 8), 2)
    starts, alive = [], []
    for n, density in enumerate((1.0, 0.5, 0.2)):
        drawn = torch.Generator().manual_seed(n)
        start = draw(build(), drawn)
        alive.append(
            {name: torch.rand(start[name].shape, generator=drawn) < density for name in models.groups(build())}
        )
        starts.append(masks.apply(alive[-1], start))
    keys = [(f"trial-{n}",) for n in range(COUNT)]
    stack = StackedEngine(build(), starts, alive, experiment.recipe, prepare(splits(), device), keys, device)
    alone = [
        TorchEngine(build(), start, mask, experiment.recipe, prepare(splits(), "cpu"), key, "cpu")
        for start, mask, key in zip(starts, alive, keys, strict=True)
    ]
    return stack, alone


def agree(stack: StackedEngine, alone: list[TorchEngine], iterations: int) -> None:
    losses = torch.stack(stack.advance(iterations)).cpu()
    for n, single in enumerate(alone):
        torch.testing.assert_close(losses[:, n], torch.stack(single.advance(iterations)), rtol=1e-3, atol=1e-4)
        for name, tensor in single.weights().items():
            found = stack.weights()[n][name]
            torch.testing.assert_close(found, tensor, rtol=1e-3, atol=1e-3)
            if name in single.learner.module.state_dict() and name.endswith("weight"):
                assert torch.equal(found == 0, tensor == 0)
        for split in ("train", "validation", "test"):
            (loss, accuracy), expected = stack.evaluate(split)[n], single.evaluate(split)
            assert loss == pytest.approx(expected[0], rel=1e-3) and accuracy == pytest.approx(expected[1], abs=0.03)


@pytest.mark.parametrize(("model", "recipe"), CASES, ids=["adam", "sgd-scheduled", "conv-augmented"])
def test_the_stack_and_the_single_path_agree(model: dict[str, Any], recipe: dict[str, Any]) -> None:
    agree(*engines(model, recipe), iterations=10)  # some epochs, each with a smaller last batch


def test_a_stack_resumes_to_the_same_bits() -> None:
    whole, _ = engines(*CASES[0])
    whole.advance(5)
    state = whole.state()
    losses = torch.stack(whole.advance(12))
    again, _ = engines(*CASES[0])
    again.restore(state, 5)
    assert torch.equal(losses, torch.stack(again.advance(12)))
    assert all(torch.equal(a, b) for a, b in zip(whole.state().values(), again.state().values(), strict=True))


def test_a_stack_takes_weights_back() -> None:
    stack, _ = engines(*CASES[0])
    before = stack.weights()
    stack.advance(3)
    stack.set_weights(before)
    assert all(torch.equal(a[name], b[name]) for a, b in zip(before, stack.weights(), strict=True) for name in a)


@pytest.mark.parametrize(
    ("model", "why"),
    [(Model(name="resnet18"), "batch norm"), (Model(name="lenet", layers=(5,), dropout=0.5), "dropout")],
    ids=["buffers", "dropout"],
)
def test_what_cannot_be_stacked_is_refused(model: Model, why: str) -> None:
    network = models.build(model, (1, 8, 8), 2)
    recipe = config.Recipe(lr=0.1, iterations=1)
    start = draw(network, torch.Generator())
    with pytest.raises(UsageError, match=why):
        StackedEngine(network, [start], [{}], recipe, prepare(splits(), "cpu"), [("key",)], "cpu")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize(("model", "recipe"), CASES, ids=["adam", "sgd-scheduled", "conv-augmented"])
def test_a_stack_on_a_gpu_agrees_and_is_never_waited_for(model: dict[str, Any], recipe: dict[str, Any]) -> None:
    stack, alone = engines(model, recipe, "cuda")
    stack.advance(2)
    for single in alone:
        single.advance(2)
    torch.cuda.set_sync_debug_mode("error")
    try:
        stack.advance(6)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for single in alone:
        single.advance(6)
    agree(stack, alone, iterations=12)
