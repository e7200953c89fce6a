"""Data that do not fit the model or the loss: said before the first update, with what mends it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset, WeightedRandomSampler

import lth
from lth import models
from lth.errors import UsageError

pytestmark = pytest.mark.usefixtures("one_thread")

RECIPE = {"optimizer": "adam", "lr": 0.02, "iterations": 12, "batch": 20, "eval_every": 4}
X = np.random.default_rng(0).normal(size=(200, 8)).astype("f4")
Y = X[:, :3].argmax(1)
ONE_HOT = np.eye(3, dtype=int)[Y]


def network(inputs: int = 8, outputs: int = 3) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(inputs, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, outputs))


def find(data: Any, model: nn.Module | None = None, recipe: Any = None, **options: Any) -> lth.Tickets:
    return lth.find_tickets(model or network(), data, recipe or RECIPE, levels=1, **options)


def mended(y: Any, expression: str) -> Any:
    """What the expression in a message makes of y."""
    return eval(expression, {"y": y, "np": np, "torch": torch})


def refusal(data: Any, model: nn.Module | None = None, **options: Any) -> str:
    """What is said of data; the model is as it was."""
    model = model or network()
    before, modes = models.tensors(model), [module.training for module in model.modules()]
    with pytest.raises(UsageError) as caught:
        find(data, model, **options)
    assert all(torch.equal(before[name], tensor) for name, tensor in models.tensors(model).items())
    assert modes == [module.training for module in model.modules()]
    assert len(str(caught.value)) <= 400
    return str(caught.value)


TARGETS = [
    (Y + 1, "train's y holds labels from 1 to 3, expected 0 to 2: {} (the model has 3 outputs)", "y - 1"),
    (Y - 1, "train's y holds labels from -1 to 1, expected 0 to 2: {} (the model has 3 outputs)", "y + 1"),
    (torch.tensor(Y + 1), "expected 0 to 2: {} (the model has", "y - 1"),
    (pd.Series(Y + 1, index=range(500, 700)), "expected 0 to 2: {} (the model has", "y - 1"),
    (Y[:, None], "train's y has shape (n, 1), expected (n,): {}", "y[:, 0]"),
    (pd.DataFrame(Y), "train's y has shape (n, 1), expected (n,): {}", "y.iloc[:, 0]"),
    (ONE_HOT, "train's y has shape (n, 3), expected (n,): {}", "y.argmax(1)"),
    (torch.tensor(ONE_HOT), "expected (n,): {}", "y.argmax(1)"),
    (pd.DataFrame(ONE_HOT), "expected (n,): {}", "y.to_numpy().argmax(1)"),
    (Y.astype("f8"), "if they are classes, give {}; else targets", "y.astype('int64')"),
    (torch.tensor(Y).double(), "if they are classes, give {}; else targets", "y.long()"),
    (torch.tensor(Y).float()[:, None], "if they are classes, give {}; else targets", "y[:, 0].long()"),
]


@pytest.mark.parametrize(("y", "said", "expression"), TARGETS)
def test_targets_that_are_no_classes_and_what_mends_them(y: Any, said: str, expression: str) -> None:
    assert said.format(expression) in refusal((X, y))
    right = find((X, Y)).curves
    assert find((X, mended(y, expression))).curves.equals(right)


OTHERS: list[tuple[Any, nn.Module, str]] = [
    ((X, Y + 5), network(), "labels from 5 to 7, expected 0 to 2 (the model has 3 outputs)"),
    ((X, np.where(Y > 0, 1, -1)), network(outputs=2), "expected 0 to 1: (y > 0).astype('int64') (the model has 2"),
    ((X, Y > 0), network(outputs=1), "the model's outputs are (20, 1), but cross entropy takes one output for each"),
    ((X, np.array(["a", "b"] * 100)), network(), "holds text ('a'): classes, y = np.unique(y, return_inverse=True)"),
    ((X, ["a", "b"] * 100), network(), "train's y holds text ('a')"),
    ((X, pd.Series(["a", "b"] * 100)), network(), "train's y holds text ('a')"),
    ((X, pd.Series([1, None] * 100, dtype="object")), network(), "train's y lacks a value: number 1 is None"),
    ((X, np.where(Y > 0, np.nan, 0.5)[:, None]), network(outputs=1), "train's y holds nan at ["),
    ((X, Y.astype(complex)), network(), "train's y holds complex numbers"),
    ((X, [[1, 2], [3]] * 100), network(), "train's y holds examples of the shapes (2,) and (1,): pad or cut"),
    (((X * 10).astype(int), Y), network(), "x.float(), or x.astype('float32')"),
    ((X > 0, Y), network(), "x.float(), or x.astype('float32')"),
    ((X, Y), network(9), "its first layer, 0, takes in_features = 9"),
    ((torch.tensor(X).to_sparse(), Y), network(), "train's x is a sparse or nested tensor, which cannot"),
    ({"train": (X, Y), "test": (X, Y + 1)}, network(), "test's y holds labels from 1 to 3, expected 0 to 2: y - 1"),
    ({"train": (X, Y), "test": (X[:, 1:], Y)}, network(), "the model fails on test's x, float32 of shape (n, 7)"),
    (
        {"train": (X, Y), "validation": (X, Y.astype("f4"))}, network(),
        "validation's y holds floating-point numbers, train's whole ones: give both in one type, such as y.astype(",
    ),
    ({"train": (X, Y), "test": (X, np.append(Y[1:], 3))}, network(), "test's y holds labels from 0 to 3"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "model", "said"), OTHERS)
def test_what_does_not_fit_is_said_before_any_update(data: Any, model: nn.Module, said: str) -> None:
    assert said in refusal(data, model)


def test_the_same_holds_for_cross_entropy_given_by_hand() -> None:
    for loss in (cross_entropy, nn.CrossEntropyLoss()):
        assert "expected 0 to 2: y - 1" in refusal((X, Y + 1), loss=loss)
    data = {"train": (X, Y), "validation": (X, np.where(Y == 0, 7, Y))}
    find(data, loss=nn.CrossEntropyLoss(ignore_index=7))
    assert "holds labels from 1 to 7, expected 0 to 2 (the model" in refusal(data, loss=cross_entropy)
    find((X, ONE_HOT.astype("f4")), loss=cross_entropy)  # probabilities
    seen = []

    def own(outputs: Tensor, targets: Tensor) -> Tensor:  # whatever its targets are
        seen.append(targets.min().item())
        return cross_entropy(outputs, targets - 5)

    find((X, Y + 5), loss=own)
    assert min(seen) == 5


def test_arrays_of_other_libraries_are_taken_by_position() -> None:
    right = find((X[100:], Y[100:])).curves
    frame, series = pd.DataFrame(X)[100:], pd.Series(Y)[100:]
    for data in (
        (frame, series), (X[100:], Y[100:].astype(object)), (X[100:].tolist(), Y[100:].tolist()),
        (X[100:].astype(object), series.astype("category")), (frame.astype("Float32"), series.astype("Int64")),
    ):  # fmt: skip
        assert find(data).curves.equals(right)


def test_numbers_of_numpy_are_numbers() -> None:
    right = lth.find_tickets(network(), (X, Y), RECIPE, rate=0.5, levels=1, validation=30, seed=3)
    recipe = {"optimizer": "adam", "lr": np.float32(0.02)} | {
        key: np.int64(value) for key, value in RECIPE.items() if isinstance(value, int)
    }
    options: dict[str, Any] = {"rate": np.float32(0.5), "levels": np.int64(1), "validation": np.int32(30)}
    given = lth.find_tickets(network(), (X, Y), recipe, **options, seed=np.int64(3))  # type: ignore[arg-type]
    assert [ticket.density for ticket in given] == [ticket.density for ticket in right]
    assert list(given.curves["iteration"]) == list(right.curves["iteration"])


def test_complex_inputs_stay_complex() -> None:
    class Parts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def forward(self, x: Tensor) -> Tensor:
            return self.net(torch.cat([x.real, x.imag], 1))

    assert find((X[:, :4] + 1j * X[:, 4:], Y), Parts()).curves.equals(find((X, Y)).curves)


# ------------------------------------------------------------------------------------------- Datasets and DataLoaders


class Listed(Dataset[Any]):
    """Examples as they are; it knows how many were asked for."""

    def __init__(self, examples: list[Any]) -> None:
        self.examples, self.asked = examples, 0

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, place: int) -> Any:
        self.asked += 1
        return self.examples[place]


def listed(change: dict[int, Any] | None = None) -> Listed:
    examples: list[Any] = [(torch.tensor(x), int(y)) for x, y in zip(X, Y, strict=True)]
    for place, example in (change or {}).items():
        examples[place] = example
    return Listed(examples)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({7: None}, "train[7] is None: leave such examples out of the Dataset"),
        ({7: (torch.zeros(8), None)}, "train[7]: y is NoneType: expected a tensor, an array or a number"),
        ({7: (torch.zeros(9), 1)}, "train[7]: x has shape (9,), that of train["),
        ({7: {"x": 1}}, "train[7] is dict, not a pair (x, y)"),
        ({199: (torch.zeros(8), 3)}, "y holds labels from 0 to 3, expected 0 to 2 (the model has 3 outputs)"),
    ],
)
def test_an_example_that_does_not_fit_is_named(change: dict[int, Any], said: str) -> None:
    assert said in refusal({"train": listed(change), "validation": (X, Y)})
    said_of_test = refusal({"train": (X, Y), "test": listed(change)})
    assert said.replace("train[7]", "test[7]").partition(", that of")[0] in said_of_test


def test_images_of_pil_are_named() -> None:
    image = pytest.importorskip("PIL.Image").new("L", (4, 4))
    said = refusal(Listed([(image, 0)] * 40))
    assert said.startswith("train[0]: x is Image, an image of PIL: give the Dataset transform=torchvision.transforms.")


def test_of_a_long_dataset_no_more_is_looked_at_than_the_training_would() -> None:
    long = listed()
    find({"train": long, "validation": (X, Y)}, recipe=RECIPE | {"iterations": 2, "train_accuracy": False})
    assert long.asked < 2 * (2 * 20) + 40 + 10


def test_a_dataset_of_bytes_beside_arrays_of_floats_is_refused() -> None:
    whole = Listed([(torch.zeros(8, dtype=torch.uint8), 0)] * 40)
    assert "train is of bytes, test is of other numbers" in refusal({"train": whole, "test": (X, Y)})


def test_of_a_data_loader_its_dataset_and_its_batch_are_meant() -> None:
    right = find((X, Y)).curves
    without = {key: value for key, value in RECIPE.items() if key != "batch"}
    pairs = TensorDataset(torch.tensor(X), torch.tensor(Y))
    for loader in (DataLoader(pairs, batch_size=20, shuffle=True), DataLoader(listed(), batch_size=20)):
        assert find(loader, recipe=without).curves.equals(right)
        assert find({"train": loader}, recipe=RECIPE).curves.equals(right)
    doubled = DataLoader(
        listed(), 20, collate_fn=lambda few: (torch.stack([x for x, _ in few]) * 2, [y for _, y in few])
    )
    assert find(doubled, recipe=without).curves.equals(find((X * 2, Y)).curves)


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(())


def test_data_loaders_that_draw_in_their_own_way_are_refused() -> None:
    cases = [
        (DataLoader(listed(), batch_size=32), "recipe.batch = 20, but the DataLoader makes batches of 32: leave"),
        (DataLoader(listed(), 20, sampler=WeightedRandomSampler([1.0] * 200, 200)), "with a WeightedRandomSampler"),
        (DataLoader(listed(), batch_size=None), "with batches of its own making: give its dataset"),
        (DataLoader(Stream(), batch_size=20), "train is a Dataset without a length"),
    ]
    for loader, said in cases:
        assert said in refusal(loader)
    with pytest.raises(UsageError, match=r"recipe\.batch = 20, but the DataLoader makes batches of 32"):
        find(DataLoader(listed(), batch_size=32), recipe=lth.Recipe(**RECIPE))  # type: ignore[arg-type]
