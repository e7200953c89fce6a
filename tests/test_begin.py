"""Trainings that begin at any iteration: from a kept state with its optimizer they are the whole one, to the bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lth import models, native
from lth.config import Model, Recipe
from lth.errors import UsageError
from lth.execution.checkpoints import checkpoint_bytes, from_checkpoint_bytes
from lth.models import init
from lth.pruning import masks
from lth.training import native_engine
from lth.training.bfloat16 import kernels
from lth.training.learners import Float32
from lth.training.loop import Checkpoint, Engine, Evaluation, Hooks, Stopped, parts_of, state_of, train
from lth.training.torch_engine import TorchEngine

pytestmark = pytest.mark.usefixtures("one_thread")
needs_native = pytest.mark.skipif(not native.available(), reason=str(native.why_not()))
SHAPE, EXAMPLES, BEGIN, END = (3, 8, 8), 100, 7, 15
OPTIMIZERS = ["adam", "adamw", "sgd", "momentum", "nesterov"]
KINDS = ["float32", "bfloat16", "bfloat16 without kernels", pytest.param("native", marks=needs_native)]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "bfloat16" and kernels.core() is None:
        pytest.skip("the kernels are not built, or not for this processor")
    if "without" in request.param:
        monkeypatch.setattr(kernels, "core", lambda: None)
    return request.param.split()[0]


def recipe_of(kind: str, **given: Any) -> Recipe:
    """With all that depends on the iteration: schedule, batches of several epochs, dropout, augmentation."""
    augment = kind != "native"
    lr = 0.002 if "adam" in given.get("optimizer", "adam") else 0.02
    tables = {"lr": lr, "iterations": END, "batch": 30, "eval_every": 4, "warmup": 3, "schedule": "cosine"}
    return Recipe.model_validate(tables | {"augment": augment, "precision": "float32"} | given)


def network_of(kind: str) -> nn.Module:
    if kind == "native":
        return models.build(Model(name="lenet", layers=(20, 12), dropout=0.3), SHAPE, 4)
    return models.build(Model(name="conv2", dropout=0.3), SHAPE, 4)


def start_of(kind: str) -> tuple[dict[str, Tensor], masks.Mask]:
    drawn = torch.Generator().manual_seed(1)
    start = init.draw(network_of(kind), drawn)
    mask = {name: torch.rand(start[name].shape, generator=drawn) < 0.6 for name in models.groups(network_of(kind))}
    return masks.apply(mask, start), mask


def engine(
    kind: str, recipe: Recipe, start: dict[str, Tensor] | None = None, mask: masks.Mask | None = None, **begin: Any
) -> Any:
    drawn, (first, whole) = torch.Generator().manual_seed(2), start_of(kind)
    images = torch.randint(0, 256, (EXAMPLES, *SHAPE), generator=drawn, dtype=torch.uint8)
    data = dict.fromkeys(("train", "validation", "test"), (images, torch.randint(0, 4, (EXAMPLES,), generator=drawn)))
    given = (start or first, mask or whole)
    if kind == "native":
        cores = {split: native.Dataset(x.reshape(len(x), -1).numpy(), y.numpy()) for split, (x, y) in data.items()}
        return native_engine.NativeEngine(network_of(kind), *given, recipe, cores, ("key",), "cpu", **begin)
    recipe = recipe.model_copy(update={"precision": kind})
    return TorchEngine(network_of(kind), *given, recipe, data, ("key",), "cpu", **begin)


def begun(kind: str, recipe: Recipe, state: dict[str, Tensor]) -> Engine:
    start, moments = parts_of(state)
    return engine(kind, recipe, start, begin=BEGIN, moments=moments)


def assert_equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


@pytest.mark.parametrize("clip", [None, 0.2])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_going_on_from_a_kept_state_is_training_through(kind: str, optimizer: str, clip: float | None) -> None:
    recipe = recipe_of(kind, optimizer=optimizer, weight_decay=0.01, clip=clip)
    through = engine(kind, recipe)
    whole = train(through, recipe, keep=(BEGIN,), moments=True)
    second = begun(kind, recipe, whole.states[BEGIN])
    later = train(second, recipe, begin=BEGIN)
    assert_equal(later.trained, whole.trained)
    assert [row for row in whole.curve if row.iteration > BEGIN + 1] == later.curve[1:]
    assert [row.iteration for row in later.curve] == [8, 9, 13, 15]
    assert later.summary["iterations"] == END


@pytest.mark.parametrize("optimizer", ["adam", "momentum"])
def test_without_its_moments_the_optimizer_is_a_fresh_one(kind: str, optimizer: str) -> None:
    recipe = recipe_of(kind, optimizer=optimizer)
    whole = train(engine(kind, recipe), recipe, keep=(BEGIN,))
    state = whole.states[BEGIN]
    assert state.keys() == whole.trained.keys()
    later = train(begun(kind, recipe, state), recipe, begin=BEGIN)
    assert not all(torch.equal(later.trained[name], whole.trained[name]) for name in later.trained)


def test_a_fresh_adam_counts_its_own_updates(kind: str) -> None:
    """The first update of Adam moves each weight by the learning rate, wherever the training begins."""
    recipe = recipe_of(kind, schedule="steps", warmup=0)
    start, mask = start_of(kind)
    late = engine(kind, recipe, begin=BEGIN)
    late.advance(BEGIN + 1)
    moved = torch.cat([(late.weights()[name] - start[name])[mask[name]].abs() for name in mask])
    assert moved.max() == pytest.approx(recipe.lr, rel=0.02)
    assert int(late.moments()["count"]) == 1


def test_the_iteration_decides_batches_and_dropout(kind: str) -> None:
    recipe = recipe_of(kind, optimizer="sgd", schedule="steps", warmup=0)
    first, late = engine(kind, recipe), engine(kind, recipe, begin=BEGIN)
    assert (first.iteration, late.iteration) == (0, BEGIN)
    assert not torch.equal(torch.as_tensor(first.advance(1)[0]), torch.as_tensor(late.advance(BEGIN + 1)[0]))


def test_moments_are_taken_over_under_a_smaller_mask(kind: str) -> None:
    """Later levels begin from the state of an earlier one: what they have pruned has no momentum left."""
    recipe = recipe_of(kind, optimizer="momentum")
    start, moments = parts_of(train(engine(kind, recipe), recipe, keep=(BEGIN,), moments=True).states[BEGIN])
    assert moments is not None
    drawn = torch.Generator().manual_seed(3)
    smaller = {n: layer & (torch.rand(layer.shape, generator=drawn) < 0.5) for n, layer in start_of(kind)[1].items()}
    later = engine(kind, recipe, masks.apply(smaller, start), smaller, begin=BEGIN, moments=moments)
    for name, moment in later.moments().items():
        parameter = name.removesuffix("/momentum_buffer")
        if parameter in smaller:
            assert torch.equal(moment, moments[name] * smaller[parameter])
    later.advance(END)
    assert all(not later.weights()[name][~layer].any() for name, layer in smaller.items())


def test_moments_go_from_one_engine_to_another() -> None:
    if not native.available():
        pytest.skip(str(native.why_not()))
    recipe = recipe_of("native", optimizer="adam")
    ours, theirs = engine("native", recipe), None
    ours.advance(BEGIN)
    start, moments = parts_of(state_of(ours, moments=True))
    images = torch.randint(0, 256, (EXAMPLES, *SHAPE), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)
    theirs = TorchEngine(
        network_of("native"), start, start_of("native")[1], recipe, {"train": (images, torch.zeros(EXAMPLES))},
        ("key",), "cpu", BEGIN, moments,
    )  # fmt: skip
    assert_equal(theirs.moments(), {name: moments[name] for name in theirs.moments()})


def test_moments_of_another_optimizer_are_refused(kind: str) -> None:
    sgd = recipe_of(kind, optimizer="sgd")
    state = train(engine(kind, sgd), sgd, keep=(BEGIN,), moments=True).states[BEGIN]
    with pytest.raises(UsageError, match=r"has no exp_avg of .*weight: it was written by another optimizer"):
        begun(kind, recipe_of(kind, optimizer="adam"), state)


def test_a_parameter_without_gradients_has_no_moments() -> None:
    class Partly(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(3, 4), nn.Linear(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x)

    start, recipe = Partly().state_dict(), recipe_of("float32", optimizer="momentum")
    first, second = (Float32(Partly(), start, {}, recipe, "cpu") for _ in range(2))
    x, y = torch.rand(5, 3, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 2, 3, 0])
    first.update(x, y, 0.1)
    assert first.moments().keys() == {"used.weight/momentum_buffer", "used.bias/momentum_buffer", "count"}
    second.set_weights(first.weights())
    second.set_moments(first.moments())
    for learner in (first, second):
        learner.update(x, y, 0.1)
    assert_equal(first.weights(), second.weights())


# ------------------------------------------------------------------------------------------------------------ resuming


@pytest.mark.parametrize("begin", [0, BEGIN])
def test_a_stopped_training_keeps_the_states_that_it_had(kind: str, begin: int) -> None:
    recipe = recipe_of(kind)
    whole = train(engine(kind, recipe), recipe, keep=(0, BEGIN, 10), moments=True)
    assert [*whole.states] == [0, BEGIN, 10]
    make = lambda: engine(kind, recipe) if begin == 0 else begun(kind, recipe, whole.states[BEGIN])
    expected = train(make(), recipe, begin=begin, keep=(begin, 10), moments=True)
    assert [*expected.states] == [begin, 10]
    saved: list[bytes] = []
    for stop_at in (begin, begin + 1, 9, 10, 12):
        saved.clear()
        current = make()
        stopping = Hooks(
            save=lambda checkpoint: saved.append(checkpoint_bytes(checkpoint, {})),
            stopped=lambda current=current, stop_at=stop_at: current.iteration >= stop_at,
        )
        with pytest.raises(Stopped):
            train(current, recipe, stopping, begin, (begin, 10), True)
        hooks = Hooks(load=lambda: from_checkpoint_bytes(saved[-1], {}))
        again = train(make(), recipe, hooks, begin, (begin, 10), True)
        assert_equal(again.trained, expected.trained)
        assert again.curve == expected.curve and again.states.keys() == expected.states.keys()
        for iteration, state in expected.states.items():
            assert_equal(again.states[iteration], state)


@pytest.mark.parametrize("optimizer", ["adam", "momentum"])
def test_a_checkpoint_of_version_0_1_has_no_count(kind: str, optimizer: str) -> None:
    recipe = recipe_of(kind, optimizer=optimizer)
    whole, half = engine(kind, recipe), engine(kind, recipe)
    whole.advance(END)
    half.advance(BEGIN)
    old = {name: tensor for name, tensor in half.state().items() if name not in ("optimizer/count", "updates")}
    curve = [Evaluation(1, 1.0, 0.5, None, None)]
    again = train(engine(kind, recipe), recipe, Hooks(load=lambda: Checkpoint(BEGIN, curve=curve, state=old)))
    assert_equal(again.trained, whole.weights())


def test_a_training_cannot_begin_where_it_ends(kind: str) -> None:
    with pytest.raises(ValueError, match="begins at iteration 15 cannot end at 15"):
        train(engine(kind, recipe_of(kind), begin=END), recipe_of(kind), begin=END)
