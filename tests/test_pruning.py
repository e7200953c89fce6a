"""Budgets, exact counts and masks, by property; densities against the paper's."""

from __future__ import annotations

from math import floor

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lth import config
from lth.errors import UsageError
from lth.pruning import allocation, masks, rules
from lth.pruning.scores import magnitude
from lth.storage.tensors import pack, unpack

LENET = {"fc1.weight": 235_200, "fc2.weight": 30_000, "output.weight": 1_000}
GROUPS = {"fc1.weight": "fc", "fc2.weight": "fc", "output.weight": "output"}


def experiment(levels: int = 5, strategy: str = "resetting", **prune: object) -> config.Experiment:
    recipe = {"optimizer": "adam", "lr": 0.1, "iterations": 1}
    return config.resolve(
        {
            "name": "e",
            "levels": levels,
            "strategy": strategy,
            "recipe": recipe,
            "prune": prune,
            "data": {"name": "mnist"},
        }
    )


def prune(weights: dict, mask: dict, groups: dict, asked: config.Experiment, level: int) -> dict:
    """The mask rule `pruned`, by magnitude."""
    return rules.pruned(mask, weights, lambda weights, mask: magnitude(weights), groups, asked, level)


layers = st.lists(st.lists(st.integers(-4, 4), min_size=1, max_size=30), min_size=1, max_size=4).map(
    lambda values: {f"l{i}": torch.tensor(v, dtype=torch.float32) for i, v in enumerate(values)}
)


def test_densities_are_the_papers_to_the_printed_digit() -> None:
    """Facts 1.2; the share of each round comes from what survives, not from the round's number."""
    remaining = allocation.ladder(LENET, GROUPS, experiment(24))
    printed = {3: 51.28, 7: 21.07, 9: 13.52, 12: 6.95, 15: 3.58, 16: 2.87, 18: 1.85, 21: 0.96}
    assert {k: round(100 * remaining[k] / 266_200, 2) for k in printed} == printed


def test_oneshot_goes_to_the_papers_densities() -> None:
    """Figure 4c: hidden layers by r, the output layer by r / 2."""
    remaining = allocation.ladder(LENET, GROUPS, config.resolve("lenet-oneshot"))
    percent = [round(100 * n / 266_200, 2) for n in remaining]
    assert len(percent) == 40
    found = (percent[1], percent[13], percent[33], percent[39])
    assert found == pytest.approx((97.50, 67.57, 17.66, 2.68), abs=0.011)  # as read off the figure


def test_oneshot_without_rates_goes_where_the_iterative_ladder_goes() -> None:
    iterative = allocation.ladder(LENET, GROUPS, experiment(10))
    oneshot = allocation.ladder(LENET, GROUPS, experiment(10, "oneshot"))
    assert oneshot == pytest.approx(iterative, abs=10)


@given(st.lists(st.floats(0.001, 0.999), min_size=1, max_size=6, unique=True))
def test_explicit_densities_are_met_exactly(wanted: list[float]) -> None:
    falling = sorted(wanted, reverse=True)
    counts = [floor(d * 266_200 + 0.5) for d in falling]
    asked = experiment(len(falling), densities=falling)
    if len(set(counts)) == len(counts):
        assert allocation.ladder(LENET, GROUPS, asked)[1:] == counts


def test_explicit_densities_keep_the_ratio_of_the_rates() -> None:
    lose = {pool[0]: n for pool, n in allocation.budget(LENET, 266_200, GROUPS, experiment(1, densities=[0.442]), 1)}
    rate = {name: lose[name] / LENET[name] for name in LENET}
    assert rate["fc1.weight"] == pytest.approx(rate["fc2.weight"], abs=1e-4)
    assert rate["output.weight"] == pytest.approx(rate["fc1.weight"] / 2, abs=1e-3)


@pytest.mark.parametrize("alive,rate,loses", [(10, 0.25, 3), (10, 0.24, 2), (2, 0.25, 1), (1, 0.4, 0), (5, 0.5, 3)])
def test_a_layer_loses_its_share_rounded_half_up(alive: int, rate: float, loses: int) -> None:
    assert allocation.budget({"a": alive}, alive, {"a": "fc"}, experiment(rate=rate), 1) == [(("a",), loses)]


@given(layers, st.floats(0.01, 0.99), st.integers(0, 2**31))
def test_pruning_is_exact_nested_and_takes_the_smallest(
    weights: dict[str, torch.Tensor], rate: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    before = {name: torch.rand(w.shape, generator=generator) < 0.7 for name, w in weights.items()}
    after = prune(weights, before, dict.fromkeys(weights, "fc"), experiment(rate=rate), 1)
    for name, weight in weights.items():
        alive = int(before[name].sum())
        assert int(after[name].sum()) == alive - floor(alive * rate + 0.5)
        assert not (after[name] & ~before[name]).any()
        kept, lost = weight.abs()[after[name]], weight.abs()[before[name] & ~after[name]]
        assert not len(kept) or not len(lost) or kept.min() >= lost.max()


@given(layers, st.floats(0.01, 0.99))
def test_global_pruning_takes_the_smallest_of_all_layers(weights: dict[str, torch.Tensor], rate: float) -> None:
    before = masks.ones(weights, weights)
    after = prune(weights, before, dict.fromkeys(weights, "fc"), experiment(rate=rate, scope="global"), 1)
    flat = torch.cat([w.abs() for w in weights.values()])
    kept = torch.cat(list(after.values()))
    assert int(kept.sum()) == len(flat) - floor(len(flat) * rate + 0.5)
    assert kept.all() or not kept.any() or flat[kept].min() >= flat[~kept].max()


def test_ties_go_to_the_lower_index() -> None:
    weights = {"a": torch.tensor([[1.0, -1.0], [1.0, -1.0]])}
    after = prune(weights, masks.ones(weights, weights), {"a": "fc"}, experiment(rate=0.5), 1)
    assert after["a"].tolist() == [[False, False], [True, True]]


def test_large_negative_weights_survive() -> None:
    """A comparison without abs would prune them first."""
    weights = {"a": torch.tensor([-5.0, 0.1, 0.2, -0.3])}
    after = prune(weights, masks.ones(weights, weights), {"a": "fc"}, experiment(rate=0.5), 1)
    assert after["a"].tolist() == [True, False, False, True]


def test_the_output_layer_goes_at_half_rate_or_not_at_all() -> None:
    lose = {pool[0]: n for pool, n in allocation.budget(LENET, 266_200, GROUPS, experiment(), 1)}
    assert lose == {"fc1.weight": 47_040, "fc2.weight": 6_000, "output.weight": 100}
    untouched = allocation.budget(LENET, 266_200, GROUPS, experiment(output_factor=0.0), 1)
    assert [pool for pool, _ in untouched] == [("fc1.weight",), ("fc2.weight",)]


def test_random_masks_have_the_tickets_counts_in_each_layer() -> None:
    mask = {"a": torch.arange(60).reshape(6, 10) % 3 == 0, "b": torch.zeros(4, dtype=torch.bool)}
    drawn = rules.random(mask, torch.Generator().manual_seed(1))
    other = rules.random(mask, torch.Generator().manual_seed(2))
    assert masks.alive(drawn) == masks.alive(mask) and drawn["a"].shape == (6, 10)
    assert not torch.equal(drawn["a"], other["a"]) and not torch.equal(drawn["a"], mask["a"])


@pytest.mark.parametrize(
    "sizes,prune,message",
    [
        ({"a": 2}, {"rate": 0.2}, "level 1 would remove nothing"),
        ({"a": 4}, {"rate": 0.9}, "level 1 would leave no weight"),
        ({"a": 100}, {"densities": [0.5, 0.499]}, "level 2 would remove nothing"),
    ],
)
def test_levels_that_cannot_be(sizes: dict[str, int], prune: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        allocation.ladder(sizes, dict.fromkeys(sizes, "fc"), experiment(2 if "densities" in prune else 5, **prune))


@given(st.lists(st.booleans(), max_size=70))
def test_packed_masks_come_back(values: list[bool]) -> None:
    layer = torch.tensor(values, dtype=torch.bool)
    assert torch.equal(unpack(pack(layer), layer.shape), layer)


def test_a_packed_mask_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="3 bytes, not 2"):
        unpack(torch.zeros(2, dtype=torch.uint8), torch.Size([4, 5]))


def test_apply_copies_and_zeroes() -> None:
    weights = {"w": torch.tensor([1.0, -2.0]), "b": torch.tensor([3.0])}
    masked = masks.apply({"w": torch.tensor([True, False])}, weights)
    assert masked["w"].tolist() == [1.0, 0.0] and masked["b"].tolist() == [3.0]
    masked["b"].zero_()
    assert weights["b"].tolist() == [3.0] and weights["w"].tolist() == [1.0, -2.0]


def test_density_and_overlap() -> None:
    a = {"w": torch.tensor([True, True, False, False])}
    b = {"w": torch.tensor([True, False, True, False])}
    assert masks.density(a) == 0.5 and masks.overlap(a, b) == pytest.approx(1 / 3)
