"""find_tickets: any module and data by a recipe, with any loss and metric."""

from __future__ import annotations

import copy
import math
import random
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, l1_loss
from torch.utils.data import Dataset, IterableDataset, TensorDataset

import lth
from lth import models
from lth.data.parts import parts
from lth.errors import UsageError
from lth.training.batches import EVALUATION_BATCH
from lth.training.module_engine import ModuleEngine

pytestmark = pytest.mark.usefixtures("one_thread")

RECIPE = {"optimizer": "adam", "lr": 0.02, "iterations": 30, "batch": 20, "eval_every": 5}


def points(count: int = 200, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Five numbers, of which the largest of three is the class."""
    x = torch.randn(count, 5, generator=torch.Generator().manual_seed(seed))
    return x, x[:, :3].argmax(1)


def network(outputs: int = 3, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(5, 30), nn.BatchNorm1d(30), nn.ReLU(), nn.Dropout(0.1), nn.Linear(30, outputs))


class Pairs(Dataset[tuple[Tensor, int]]):
    """What a user's own Dataset looks like; it counts how often it is asked."""

    def __init__(self, count: int = 200) -> None:
        self.x, self.y = points(count)
        self.asked = 0

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        self.asked += 1
        return self.x[place], int(self.y[place])


def alike(a: lth.Tickets, b: lth.Tickets) -> bool:
    same = all(torch.equal(x.mask[n], y.mask[n]) for x, y in zip(a, b, strict=True) for n in x.mask)
    blank = ["seconds"]
    return same and a.summary.drop(columns=blank).equals(b.summary.drop(columns=blank)) and a.curves.equals(b.curves)


def test_a_ladder_from_its_data_to_its_winning_ticket() -> None:
    data = {"train": points(400), "test": points(200, seed=9)}
    model = network()
    tickets = lth.find_tickets(model, data, RECIPE | {"iterations": 120}, rate=0.3, levels=3, validation=100)
    summary = tickets.summary
    assert list(summary["level"]) == [0, 1, 2, 3] and list(summary["status"]) == ["done"] * 4
    assert summary["density"].is_monotonic_decreasing and (summary["score"] > 0.85).all()
    assert (summary["score"] == summary["test_accuracy_at_early_stop"]).all()
    no_worse = summary["score"] >= summary["score"][0]
    no_later = summary["early_stop_iteration"] <= summary["early_stop_iteration"][0]
    won = summary["level"][no_worse & no_later].max()
    assert tickets.winning is (tickets[won] if won else None)
    for level in range(4):
        curve = tickets.curves.query("level == @level")
        lowest = curve.loc[curve["val_loss"] == curve["val_loss"].min(), "iteration"]
        assert summary["early_stop_iteration"][level] == lowest.min()
    assert list(tickets.curves.query("level == 0")["iteration"]) == [1, *range(6, 120, 5), 120]


def test_arrays_tensors_and_datasets_give_the_same_bits_whatever_the_global_generator_holds() -> None:
    x, y = points()
    kinds: list[Any] = [
        (x, y), (x.numpy().astype(np.float64), y.numpy().astype(np.int32)), TensorDataset(x, y), Pairs(),
        {"train": [x, y]},
    ]  # fmt: skip
    found = []
    for n, data in enumerate(kinds):
        torch.manual_seed(n)
        before = torch.get_rng_state()
        found.append(lth.find_tickets(network(), data, RECIPE, levels=1))
        assert torch.equal(torch.get_rng_state(), before)
    assert all(alike(found[0], other) for other in found[1:])
    assert not alike(found[0], lth.find_tickets(network(), (x, y), RECIPE, levels=1, seed=2))


def test_validation_is_split_off_by_seed_and_never_trained_on() -> None:
    x, y = torch.arange(50.0)[:, None], torch.zeros(50)
    drawn = []
    for seed, validation, count in ((1, None, 5), (1, 0.2, 10), (2, 0.2, 10), (1, 7, 7)):
        found = parts((x, y), validation, seed, torch.float32)
        train, held_out = (
            set(found[n].batch(torch.arange(found[n].size))[0][:, 0].tolist()) for n in ("train", "validation")
        )
        assert len(held_out) == count and not train & held_out and train | held_out == set(map(float, range(50)))
        drawn.append(held_out)
    assert drawn[0] < drawn[1] != drawn[2]
    given = parts({"train": (x, y), "validation": (x[:3], y[:3])}, None, 1, torch.float32)
    assert given["train"].size == 50 and given["validation"].size == 3 and "test" not in given


def test_an_evaluation_counts_every_example_once() -> None:
    """611 examples: two whole batches and one of 111; the metric sees all outputs at once."""
    model = network().eval()
    x, y = points(611)
    asked = []

    def metric(outputs: Tensor, targets: Tensor) -> float:
        asked.append((len(outputs), torch.equal(targets, y)))
        return (outputs.argmax(1) == targets).float().mean().item()

    found = parts({"train": points(20), "validation": (x, y)}, None, 1, torch.float32)
    recipe = lth.Recipe(**RECIPE)  # type: ignore[arg-type]
    engine = ModuleEngine(model, recipe, found, nn.functional.cross_entropy, metric, ("key",))
    loss, accuracy = engine.evaluate("validation")
    assert asked == [(611, True)] and accuracy == pytest.approx((model(x).argmax(1) == y).double().mean().item())
    assert loss == pytest.approx(nn.functional.cross_entropy(model(x), y).item(), rel=1e-5)


def test_regression_with_a_loss_and_a_metric_of_ones_own() -> None:
    x, _ = points()
    y = x.sum(1, keepdim=True)

    def r2(outputs: Tensor, targets: Tensor) -> float:
        return 1 - float(((outputs - targets) ** 2).sum() / ((targets - targets.mean()) ** 2).sum())

    tickets = lth.find_tickets(network(1), (x, y), RECIPE | {"iterations": 80}, levels=1, loss=l1_loss, metric=r2)
    assert (tickets.summary["val_r2_at_early_stop"] > 0.8).all() and "test_r2_at_early_stop" not in tickets.summary
    assert (tickets.summary["score"] == tickets.summary["val_r2_at_early_stop"]).all()
    plain = lth.find_tickets(network(1), (x, y), RECIPE, levels=0)
    assert (plain.curves["val_minus_loss"] == -plain.curves["val_loss"]).all()
    with pytest.raises(
        UsageError, match=r"outputs are \(20, 1\), but the targets \(20,\): give targets of the outputs'"
    ):
        lth.find_tickets(network(1), (x, y[:, 0]), RECIPE, levels=0)


def test_reset_means_everything_here_too() -> None:
    """Level 2 alone, from its ticket, is level 2 in the ladder: weights, batch norm, optimizer and schedule are new."""
    recipe = RECIPE | {"optimizer": "momentum", "lr": 0.1, "drops": [20], "warmup": 5, "weight_decay": 0.01}
    model = network()
    first = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    tickets = lth.find_tickets(model, points(), recipe, levels=2)
    ended = models.tensors(model)
    assert all(torch.equal(t.start[n], first[n] * t.mask.get(n, torch.tensor(1))) for t in tickets for n in first)
    data, last = parts(points(), None, 1, torch.float32), tickets[2]
    again = last.apply(network(seed=3))
    with lth.hold(again, last.mask):
        ModuleEngine(
            again, lth.Recipe(**recipe), data, nn.functional.cross_entropy, None, (1, "find_tickets", 2)  # type: ignore[arg-type]
        ).advance(30)  # fmt: skip
    assert all(torch.equal(tensor, ended[name]) for name, tensor in models.tensors(again).items())


def test_the_module_stays_as_it_was_in_kind() -> None:
    model = network().eval()
    twin = copy.deepcopy(model)
    lth.find_tickets(model, points(), RECIPE, levels=1)
    assert not any(module.training for module in model.modules()) and str(model) == str(twin)
    assert list(model.state_dict()) == list(twin.state_dict())


def test_pixels_augmentation_bfloat16_and_compile() -> None:
    drawn = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (60, 1, 8, 8), dtype=torch.uint8, generator=drawn)
    y = (x.float().mean((1, 2, 3)) > 127).long()
    inputs: list[Tensor] = []

    def build() -> nn.Module:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
        model.register_forward_pre_hook(lambda module, given: inputs.append(given[0]))
        return model

    plain = lth.find_tickets(build(), (x, y), RECIPE, levels=0)
    assert all(one.min() >= 0 and one.max() <= 1 and one.dtype == torch.float32 for one in inputs)
    for change in ({"augment": True}, {"precision": "bfloat16"}):
        other = lth.find_tickets(build(), (x, y), RECIPE | change, levels=0)
        assert not other.curves.equals(plain.curves) and np.isfinite(other.curves["val_loss"]).all()


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(())


def test_what_does_not_fit_is_said_before_any_training() -> None:
    x, y = points()
    cases: list[tuple[str, Any, Any]] = [
        ("unknown key 'recipe.learning_rate'", (x, y), {**RECIPE, "learning_rate": 1}),
        ("recipe.lr is missing: learning rate", (x, y), {"iterations": 3}),
        ("the recipe is str: expected an lth.Recipe, or a dict of its keys", (x, y), "adam"),
        ("recipe.batch = 190 is more than the 180 training examples", (x, y), RECIPE | {"batch": 190}),
        ("recipe.augment is for images", (x, y), RECIPE | {"augment": True}),
        ("train is Tensor: expected a pair", x, RECIPE),
        ("train has 200 inputs and 199 targets", (x, y[1:]), RECIPE),
        ("train's y is str: expected an array", (x, "labels"), RECIPE),
        ("data has the key 'valid'; did you mean 'validation'?", {"train": (x, y), "valid": (x, y)}, RECIPE),
        ("data has no train", {"test": (x, y)}, RECIPE),
        ("train is a Dataset without a length", Stream(), RECIPE),
        ("train is of other numbers, test is of bytes", {"train": (x, y), "test": (x.byte(), y)}, RECIPE),
    ]
    model = network()
    before = models.tensors(model)
    for message, data, recipe in cases:
        with pytest.raises(UsageError) as refused:
            lth.find_tickets(model, data, recipe)
        assert message in str(refused.value)
    for wrong in (0, 1.0, 200, "some", -3):
        with pytest.raises(UsageError, match="validation = "):
            lth.find_tickets(model, (x, y), RECIPE, validation=wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="validation is given and split off"):
        lth.find_tickets(model, {"train": (x, y), "validation": (x, y)}, RECIPE, validation=0.1)
    assert all(torch.equal(before[name], tensor) for name, tensor in models.tensors(model).items())


# ---------------------------------------------------------------------------------------------------- what others draw


class Augmented(Pairs):
    """A Dataset that augments each example by what the global generators of torch, numpy and Python give."""

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        x, y = super().__getitem__(place)
        return x + 0.1 * torch.randn(5) + 0.1 * float(np.random.randn()) + 0.1 * random.gauss(), y  # noqa: NPY002


def test_what_a_dataset_draws_comes_from_the_seeds_and_an_evaluation_draws_the_same_each_time() -> None:
    still = RECIPE | {"optimizer": "sgd", "lr": 1e-30}
    losses = lth.find_tickets(nn.Linear(5, 3), Augmented(), still, levels=0).curves["val_loss"]
    assert losses.nunique() == 1
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        random.seed(seed)
        before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # type: ignore[index]  # noqa: NPY002
        found.append(lth.find_tickets(network(), Augmented(), RECIPE, levels=1))
        after = torch.get_rng_state(), np.random.get_state()[1], random.getstate()  # type: ignore[index]  # noqa: NPY002
        assert torch.equal(before[0], after[0]) and np.array_equal(before[1], after[1]) and before[2] == after[2]
    assert alike(*found)
    assert not alike(found[0], lth.find_tickets(network(), Augmented(), RECIPE, levels=1, seed=2))


def test_sparse_gradients_frozen_networks_and_a_metric_called_loss() -> None:
    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.head = nn.EmbeddingBag(10, 8, sparse=True), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.words(x))

    words = torch.randint(10, (100, 4), generator=torch.Generator().manual_seed(0))
    data = (words.numpy().astype(np.int64), (words[:, 0] > 4).long())
    tickets = lth.find_tickets(Bag(), data, RECIPE | {"optimizer": "sgd"}, levels=1)
    assert tickets.rows[1]["status"] == "done"

    def loss(outputs: Tensor, targets: Tensor) -> float:
        return -float((outputs.argmax(1) != targets).double().mean())

    curves = lth.find_tickets(network(), points(), RECIPE, levels=0, metric=loss).curves
    assert (
        {"val_loss", "val_metric"} <= {*curves} and (curves["val_metric"] <= 0).all() and (curves["val_loss"] > 0).all()
    )
    frozen = network().requires_grad_(False)
    with pytest.raises(UsageError, match="Sequential has no parameter to train: all are frozen"):
        lth.find_tickets(frozen, points(), RECIPE)


def test_a_ladder_whose_training_diverges_ends_there() -> None:
    tickets = lth.find_tickets(network(), points(), RECIPE | {"optimizer": "sgd", "lr": 1e20}, levels=3)
    assert list(tickets.summary["status"]) == ["diverged"] and tickets.winning is None
    calls = [0]

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:  # no number from some update of level 2 on
        calls[0] += outputs.requires_grad
        return cross_entropy(outputs, targets) * (math.nan if calls[0] > 2.5 * RECIPE["iterations"] else 1.0)

    tickets = lth.find_tickets(network(), points(), RECIPE, levels=4, loss=loss)
    assert list(tickets.summary["status"]) == ["done", "done", "diverged"] and len(tickets) == 3


def test_a_last_batch_of_one_is_no_batch_for_batch_norm() -> None:
    given = RECIPE | {"batch": 10, "iterations": 12}
    with pytest.raises(UsageError, match=r"batch = 10: the last batch of an epoch of 41 examples has one.* such as 11"):
        lth.find_tickets(network(), {"train": points(41), "validation": points(20)}, given, levels=1)
    for batch, examples, said in ((4, 61, "7"), (1, 41, "3"), (24, 1801, "26")):  # each divides what is left but one
        with pytest.raises(UsageError, match=f"such as {said}$"):
            lth.find_tickets(
                network(),
                {"train": points(examples), "validation": points(20)},
                given | {"batch": batch, "iterations": 100},
            )
    for works in (given | {"batch": 11}, given | {"iterations": 4}):  # no such batch, or it is never reached
        lth.find_tickets(network(), {"train": points(41), "validation": points(20)}, works, levels=1)
    wide = nn.Sequential(nn.Unflatten(1, (1, 5)), nn.BatchNorm1d(1), nn.Flatten(), nn.Linear(5, 3))
    lth.find_tickets(wide, {"train": points(41), "validation": points(20)}, given, levels=1)  # five values a channel


def test_arrays_that_torch_does_not_take_are_taken() -> None:
    x, y = (np.asarray(part) for part in points(40))
    found = [
        lth.find_tickets(network(), {"train": pair, "validation": points(20)}, RECIPE, levels=0).curves
        for pair in ((x, y), (x.astype(">f4"), y.astype(">i8")), (x[::-1][::-1], y[::-1].copy()[::-1]))
    ]
    assert all(curves.equals(found[0]) for curves in found)


def test_targets_that_are_ignored_count_nowhere() -> None:
    x = torch.randn(200, 6, 4, generator=torch.Generator().manual_seed(0))
    y = x.argmax(2)
    y[:, 3:], y[:50, 1:] = -100, -100  # a batch of few, and others of more
    model = nn.Sequential(nn.Linear(4, 30), nn.ReLU(), nn.Linear(30, 4), Transposed())
    data = {"train": (x, y), "validation": (x, y)}
    tickets = lth.find_tickets(model, data, RECIPE | {"iterations": 150}, levels=0)
    with torch.no_grad():
        outputs = model.eval()(x)
    valid = y != -100
    right = (outputs.argmax(1) == y)[valid].double().mean().item()
    last = tickets.curves.iloc[-1]
    assert last["val_accuracy"] == pytest.approx(right, abs=1e-6) and right > 0.8
    assert last["val_loss"] == pytest.approx(float(cross_entropy(outputs, y)), rel=1e-5)


def by_hand(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy as many write it: of a batch without targets it is 0 / 0."""
    every = cross_entropy(outputs, targets, reduction="none")
    return every.sum() / (targets != -100).sum()


LOSSES = [cross_entropy, nn.CrossEntropyLoss(), partial(cross_entropy, ignore_index=-100), by_hand]


@pytest.mark.parametrize("loss", LOSSES)
def test_a_loss_given_by_hand_has_the_numbers_of_the_default(loss: Any) -> None:
    x, y = points(200)
    y[::3], y[:40] = -100, -100
    data, recipe = {"train": (x, y), "validation": (x, y)}, RECIPE | {"batch": 2, "iterations": 150}
    default, given = (lth.find_tickets(network(), data, recipe, levels=0, **more) for more in ({}, {"loss": loss}))
    assert default.summary["status"].tolist() == given.summary["status"].tolist() == ["done"]
    assert given.curves["val_loss"].tolist() == pytest.approx(default.curves["val_loss"].tolist(), rel=1e-5)
    for name, tensor in default[0].start.items():
        assert torch.equal(tensor, given[0].start[name])


@pytest.mark.parametrize("kind", [nn.CrossEntropyLoss, lambda **options: partial(cross_entropy, **options)])
def test_an_evaluation_is_the_mean_of_torchs_loss_with_weights_and_ignored_targets(kind: Any) -> None:
    x, y = points(EVALUATION_BATCH + 30)
    y[:EVALUATION_BATCH:2] = 1  # the second batch has another share of ignored targets
    loss, model = kind(weight=torch.tensor([0.5, 9.0, 7.0]), ignore_index=1), network()
    data = {"train": (x, y), "validation": (x, y)}
    last = lth.find_tickets(model, data, RECIPE, levels=0, loss=loss).curves.iloc[-1]
    with torch.no_grad():
        assert last["val_loss"] == pytest.approx(float(loss(model.eval()(x), y)), rel=1e-5)


def test_gradients_are_computed_also_where_the_caller_wants_none() -> None:
    with torch.no_grad():
        inside = lth.find_tickets(network(), points(60), RECIPE, levels=1)
        assert not torch.is_grad_enabled()
    assert inside.curves.equals(lth.find_tickets(network(), points(60), RECIPE, levels=1).curves)
    with torch.inference_mode(), pytest.raises(UsageError, match=r"inside torch.inference_mode"):
        lth.find_tickets(network(), points(60), RECIPE)


def test_what_is_no_loss_and_no_module_is_refused() -> None:
    for loss in (nn.CrossEntropyLoss(reduction="sum"), partial(cross_entropy, reduction="sum")):
        with pytest.raises(UsageError, match="reduction = 'sum': expected the mean over a batch"):
            lth.find_tickets(network(), points(60), RECIPE, loss=loss)
    for call in (
        lambda models: lth.find_tickets(models, points(60), RECIPE),
        lambda models: lth.imp(models, lambda model: 0.0),
        lambda models: lth.hold(models, {}).__enter__(),
    ):
        with pytest.raises(UsageError, match=r"expected one torch.nn.Module, not list"):
            call([network()])


class Transposed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2)


def test_a_module_that_keeps_an_activation_is_tried_on_a_last_batch_of_one() -> None:
    class Keeps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network()
            self.seen: Any = None

        def forward(self, x: Tensor) -> Tensor:
            self.seen = self.inner(x)
            return self.seen

    model = Keeps()
    model(points(8)[0])  # no leaf of a graph: it cannot be copied
    before = models.tensors(model)
    with pytest.raises(UsageError, match=r"has one, for which batch norm has no variance"):
        lth.find_tickets(model, {"train": points(61), "validation": points(9)}, RECIPE, levels=0)
    assert all(torch.equal(before[name], tensor) for name, tensor in models.tensors(model).items())
    model.inner[1] = nn.LayerNorm(30)
    found = lth.find_tickets(model, {"train": points(61), "validation": points(9)}, RECIPE, levels=0)
    assert found.summary["status"].tolist() == ["done"]
